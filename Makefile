# Two commands do everything on a fresh machine with Python 3.10 or later, a C++ compiler and make:
# `make demo` and `make test`. What they install goes into .venv, at the versions of constraints.txt.

PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
BUILT := $(VENV)/.built
BENCH_BUILT := $(VENV)/.bench-built

CORE := $(wildcard trt_rt/_core/*.pyx trt_rt/_core/*.pxd trt_rt/_core/*.pxi)
NATIVE := $(shell find trt_rt/deploy/native trt_rt/deploy/include -name '*.cpp' -o -name '*.h')
BENCH_CORE := bench/setup.py $(wildcard bench/*.pyx bench/*/*.pyx)

.DEFAULT_GOAL := help
.PHONY: help demo test lint count bench gpu dist docs clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BUILT) ## run a trained network on real images with the best backend of this machine
	$(BIN)/trt-rt demo

# Each process gets tests in the order of their files, and takes over those of another when it has none left.
test: $(BUILT) ## run the tests, on every core (at most eight)
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

lint: $(BUILT) $(BENCH_BUILT) ## check style, types, and that the stubs match the compiled modules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint trt_rt bench
	$(BIN)/mypy
	$(BIN)/stubtest --mypy-config-file pyproject.toml --ignore-disjoint-bases \
	    --allowlist tools/stubtest_allowlist.txt trt_rt._core
	$(BIN)/pre-commit validate-config

count: $(BUILT) $(BENCH_BUILT) ## count the instructions of a call, and check them against bench/budgets.json
	$(BIN)/python bench/count.py

docs: $(BUILT) $(VENV)/.docs ## build the documentation site into docs/_build; a warning fails it (Python 3.11 or later)
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build

bench: $(BUILT) $(BENCH_BUILT) ## time a call next to its floors, and compare with earlier runs
	$(BIN)/python -m pytest bench -m "not gpu" --benchmark-autosave
	$(BIN)/python bench/history.py --html .benchmarks/history.html

gpu: ## with an NVIDIA GPU: build with PYTHON (no venv, no network), run the GPU tests and benches
	@$(PYTHON) -c 'import sys, torch; torch.cuda.is_available() or sys.exit("make gpu: torch sees no NVIDIA GPU here")'
	$(PYTHON) setup.py build_ext --inplace
	$(PYTHON) bench/setup.py build_ext --inplace
	$(PYTHON) -m pytest -m gpu
	$(PYTHON) -m pytest bench -m gpu
	PYTHONPATH=".:$$PYTHONPATH" $(PYTHON) bench/report.py --device cuda
	test -z "$$TRT_RT_PLANS" || PYTHONPATH=".:$$PYTHONPATH" $(PYTHON) bench/real_engines.py

# Everything happens outside of the working tree's environment: the build in one of its own, the demo in a new one.
dist: $(VENV)/.release ## build the source distribution and a wheel, check both, run the demo from the wheel
	rm -rf dist
	PIP_CONSTRAINT=constraints.txt $(VENV)/release/bin/python -m build
	$(VENV)/release/bin/python -m twine check --strict dist/*
	$(VENV)/release/bin/python -m auditwheel show dist/*.whl
	$(VENV)/release/bin/python tools/check_wheel.py --any-linux dist/*.whl
	$(PYTHON) tools/try_wheel.py dist/*.whl

clean: ## remove what was built and installed here
	rm -rf $(VENV) build dist docs/_build *.egg-info bench/build .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find trt_rt bench -name '*.so' -delete
	find trt_rt bench tests -name __pycache__ -prune -exec rm -r {} +

# The build tools are in the venv too, so that a rebuild takes seconds and uses the same versions. nvidia-pytriton
# holds a Triton server for tests. It asks for NumPy 1, which the server does not need, and glibc 2.35.
$(INSTALLED): constraints.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("trt_rt needs Python 3.10 or later, and \
	this is %s. Name a newer one: make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt setuptools cython cuda-bindings nvidia-cuda-runtime
	TRT_RT_SKIP_CORE=1 $(PIP) install -c constraints.txt --no-build-isolation --check-build-dependencies \
	    --editable '.[all-pypi,demo,dev]'
	$(PIP) install -c constraints.txt --no-deps nvidia-pytriton || \
	    echo 'Without nvidia-pytriton, the tests that need a Triton server are skipped.'
	touch $@

$(VENV)/.docs: $(INSTALLED) docs/requirements.txt
	$(PIP) install -c constraints.txt -r docs/requirements.txt
	touch $@

$(VENV)/.release: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)/release
	$(VENV)/release/bin/python -m pip --disable-pip-version-check install -c constraints.txt \
	    auditwheel build pyelftools twine
	touch $@

$(BUILT): $(INSTALLED) $(CORE) $(NATIVE)
	$(BIN)/python setup.py build_ext --inplace
	touch $@

$(BENCH_BUILT): $(INSTALLED) $(BENCH_CORE)
	$(BIN)/python bench/setup.py build_ext --inplace
	touch $@
