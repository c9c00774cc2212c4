"""The errors of TensorRT's ONNX parser, as sentences."""

from __future__ import annotations

from typing import Any

from trt_rt.compiler.onnx_model import OnnxModel

__all__ = ["describe_parser_errors"]

# Names of ErrorCode members: the members differ between versions.
_UNSUPPORTED = {
    "UNSUPPORTED_GRAPH",
    "UNSUPPORTED_NODE",
    "UNSUPPORTED_NODE_ATTR",
    "UNSUPPORTED_NODE_INPUT",
    "UNSUPPORTED_NODE_DATATYPE",
    "UNSUPPORTED_NODE_DYNAMIC",
    "UNSUPPORTED_NODE_SHAPE",
}
_WHAT_TO_DO = (
    "Compute it with other operators, load a plugin that implements it (trt_rt.load_plugins), or leave that "
    "part of the model to PyTorch"
)


def describe_parser_errors(parser: Any, model: OnnxModel) -> str:
    """Describe every error: node, operator, reason, the line of the user's model, and what to do."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    # A parser that failed without an error has only logged its reason.
    sentences = [_describe(error, model) for error in errors] or ["it gave no reason"]
    if any(error.code().name in _UNSUPPORTED for error in errors):
        sentences.append(_WHAT_TO_DO)
    elif any(error.code().name == "MODEL_DESERIALIZE_FAILED" for error in errors):
        sentences.append("It is not an ONNX model, or it is corrupt or truncated")
    return ". ".join(sentences)


def _describe(error: Any, model: OnnxModel) -> str:
    description = f"{error.desc().rstrip('. ')} [{error.code().name}]"
    if not error.node_operator():
        return description
    line = model.source_line(error.node(), error.node_name())
    place = f", from {line}" if line else ""
    return f"node {error.node_name()!r}, operator {error.node_operator()}{place}: {description}"
