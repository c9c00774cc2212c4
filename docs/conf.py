"""The documentation site: `make docs` builds it into docs/_build, and fails at the first warning."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import trt_rt

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "trt_rt"
copyright = "the trt_rt developers"
version = release = trt_rt.__version__

extensions = [
    "bench_figures",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxarg.ext",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
nitpicky = False  # types such as "path-like" and "callable" in docstrings are words, not names

myst_enable_extensions = ["colon_fence", "deflist"]
# GitHub's anchors, so that links work there, too.
myst_heading_anchors = 3
mermaid_version = "11.12.0"
mermaid_height = "auto"
# Drawings of one page get different names, also if they are drawn within the same millisecond.
mermaid_init_config = {"startOnLoad": False, "deterministicIds": True}

autodoc_typehints = "none"  # docstrings have the types
autodoc_member_order = "groupwise"
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "trt_rt"
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def _repository_links(app: Any, document: str, content: list[str]) -> None:
    """Replace links to files of the repository that are no pages, such as ../CONTRIBUTING.md, by their names.

    In the repository these links lead to the files. The site has no copy of them.
    """
    folder = Path(app.srcdir, document).parent

    def replaced(link: re.Match[str]) -> str:
        inside = (folder / link[2]).resolve().is_relative_to(Path(app.srcdir).resolve())
        return link[0] if inside else f"`{link[1]}`"

    content[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)#]*)[^)]*\)", replaced, content[0])


def setup(app: Any) -> None:
    """Connect what this file adds to Sphinx."""
    app.connect("source-read", _repository_links)
