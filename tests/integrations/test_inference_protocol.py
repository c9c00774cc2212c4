"""Requests and responses of the Open Inference Protocol: what is sent comes back, faults are refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.examples import examples
from trt_rt.integrations.inference_protocol import (
    InferenceRequest,
    RequestError,
    WireTensor,
    read_request,
    write_response,
)

_DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]


def _tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(1, 1 + torch.Size(shape).numel()).to(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 4)])
@pytest.mark.parametrize("binary", [False, True])
def test_a_tensor_survives_the_way_there_and_back(
    dtype: torch.dtype, shape: tuple[int, ...], binary: bool
) -> None:
    tensor = _tensor(dtype, shape)
    asked = InferenceRequest("7", {}, {}, binary)
    body, headers = write_response(asked, "m", {"y": WireTensor.of(tensor)})
    length = headers.get("Inference-Header-Content-Length")
    answer = json.loads(body[: int(length)] if length else body)
    assert (answer["model_name"], answer["id"]) == ("m", "7")
    [output] = answer["outputs"]
    # A response's outputs have the form of a request's inputs.
    head = json.dumps({"inputs": [output]}).encode()
    rest = body[int(length) :] if length else b""
    again = read_request(head + rest, str(len(head)) if length else None).inputs["y"].tensor()
    assert again.dtype == tensor.dtype
    assert torch.equal(again, tensor)


def test_a_client_chooses_outputs_and_their_form() -> None:
    asked = InferenceRequest("", {}, {"a": True}, False)
    results = {name: WireTensor.of(torch.ones(2)) for name in ("a", "b")}
    body, headers = write_response(asked, "m", results)
    end = int(headers["Inference-Header-Content-Length"])
    assert [each["name"] for each in json.loads(body[:end])["outputs"]] == ["a"]
    assert body[end:] == results["a"].data
    with pytest.raises(RequestError, match=r"'c' is not an output. The outputs are a, b\."):
        write_response(InferenceRequest("", {}, {"c": False}, False), "m", results)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_come_as_bytes_only(value: float) -> None:
    results = {"y": WireTensor.of(torch.tensor([value]))}
    with pytest.raises(RequestError, match=r"NaN or an infinity, which JSON lacks"):
        write_response(InferenceRequest("", {}, {}, False), "m", results)
    body, _ = write_response(InferenceRequest("", {}, {}, True), "m", results)
    assert body.endswith(results["y"].data)


def _input(**changes: Any) -> bytes:
    entry = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]} | changes
    return json.dumps({"inputs": [entry]}).encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"[]", "the request must be a JSON object"),
        (b'{"inputs": 3}', "'inputs' must be a JSON array"),
        (b"[" * 100_000, "the body is not JSON"),
        (_input(name=3), "the name of an input must be a string"),
        (_input(datatype="FP8"), "has datatype 'FP8'; known are"),
        (_input(shape=[-1]), "which is no list of sizes"),
        (_input(shape=[True, 2]), "which is no list of sizes"),
        (_input(shape=[3]), "has 2 numbers, and its shape \\[3\\] wants 3"),
        (_input(data=["a", "b"]), "is not FP32"),
        (_input(data=None), "the data of the input 'x' must be a JSON array"),
        (_input(datatype="UINT8", data=[1, 300]), "is not UINT8"),
        (_input(parameters={"binary_data_size": 8}), "which the body does not have"),
        (json.dumps({"inputs": [json.loads(_input())["inputs"][0]] * 2}).encode(), "is given twice"),
    ],
)
def test_what_is_wrong_is_refused_with_a_sentence(body: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as error:
        read_request(body, None)
    assert error.value.status == 400


@pytest.mark.parametrize("length", ["x", "-1", "9999"])
def test_a_wrong_length_of_the_json_is_refused(length: str) -> None:
    with pytest.raises(RequestError, match="Inference-Header-Content-Length is"):
        read_request(_input(), length)


def test_nested_numbers_are_taken_as_clients_write_them() -> None:
    body = _input(shape=[2, 2], data=[[1, 2], [3, 4]])
    assert read_request(body, None).inputs["x"].tensor().tolist() == [[1, 2], [3, 4]]


@examples(100)
@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=5)))
def test_any_body_is_read_or_refused(body: bytes, length: str | None) -> None:
    with contextlib.suppress(RequestError):
        read_request(body, length)


@examples(100)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(
                st.sampled_from(
                    ["inputs", "outputs", "name", "shape", "data", "datatype", "parameters", "id"]
                ),
                inner,
                max_size=4,
            ),
        ),
    )
)
def test_any_json_is_read_or_refused(content: Any) -> None:
    with contextlib.suppress(RequestError):
        read_request(json.dumps(content).encode(), None)


@pytest.mark.parametrize(
    ("datatype", "number"),
    [("INT64", 1.5), ("UINT8", -1), ("BOOL", 2), ("BOOL", 0.5), ("INT32", float("nan"))],
)
def test_a_number_that_a_datatype_does_not_have_is_refused(datatype: str, number: float) -> None:
    with pytest.raises(RequestError, match=f"is not {datatype}"):
        read_request(_input(datatype=datatype, shape=[1], data=[number]), None)


def test_json_has_every_digit_of_float64() -> None:
    tensor = torch.tensor([1 / 3, 1e300], dtype=torch.float64)
    body, _ = write_response(InferenceRequest("", {}, {}, False), "m", {"y": WireTensor.of(tensor)})
    assert json.loads(body)["outputs"][0]["data"] == [1 / 3, 1e300]


def test_a_shape_without_elements_has_a_limit_too() -> None:
    with pytest.raises(RequestError, match="too large"):
        read_request(_input(datatype="FP32", shape=[0] + [2**31 - 1] * 5, data=[]), None)


def test_a_length_of_many_digits_is_refused() -> None:
    with pytest.raises(RequestError) as refused:
        read_request(b"{}", "9" * 5000)
    assert len(str(refused.value)) < 200


def test_a_boolean_is_one_of_two_bytes() -> None:
    head = _input(datatype="BOOL", shape=[2], parameters={"binary_data_size": 2})
    good = read_request(head + b"\0\1", str(len(head)))
    assert good.inputs["x"].tensor().tolist() == [False, True]
    with pytest.raises(RequestError, match="is BOOL and has bytes other than 0 and 1"):
        read_request(head + b"\0\2", str(len(head)))


@pytest.mark.parametrize(("identifier", "answered"), [(None, None), ("", None), (7, "7"), ("a", "a")])
def test_a_response_has_the_request_s_identifier(identifier: Any, answered: str | None) -> None:
    asked = read_request(json.dumps({"id": identifier, "inputs": []}).encode(), None)
    body, _ = write_response(asked, "m", {})
    assert json.loads(body).get("id") == answered
