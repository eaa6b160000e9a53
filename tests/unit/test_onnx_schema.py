"""The declared part of ONNX's file format."""

import pytest

from padlite.backends import onnx_schema as onnx
from padlite.errors import BackendError


def test_a_model_survives_writing_and_reading() -> None:
    model = onnx.new_model()
    model.ir_version = 10
    node = model.graph.node.add()
    node.op_type = "MatMul"
    node.input.extend(["a", "b"])
    tensor = model.graph.initializer.add()
    tensor.dims.extend([2, 3])
    tensor.raw_data = b"\x00\xff"
    again = onnx.parse_model(onnx.serialize_model(model))
    assert again.ir_version == 10
    assert [(each.op_type, list(each.input)) for each in again.graph.node] == [("MatMul", ["a", "b"])]
    assert [(list(each.dims), each.raw_data) for each in again.graph.initializer] == [([2, 3], b"\x00\xff")]


def test_a_part_holds_what_its_outputs_need_and_nothing_else() -> None:
    model = onnx.new_model()
    model.ir_version = 10
    model.opset_import.add().version = 21
    for inputs, outputs in ((["x", "a"], ["y"]), (["y", ""], ["z", "", "w"]), (["v", "a", ""], ["u"]), (["b"], ["t"])):
        node = model.graph.node.add()
        node.input.extend(inputs)
        node.output.extend(outputs)
    for name in "ab":
        model.graph.initializer.add().name = name
    for name in "xv":
        model.graph.input.add().name = name
    for name in "wut":
        model.graph.output.add().name = name
    part = onnx.part_of(model, "u")
    assert (part.ir_version, part.opset_import[0].version) == (10, 21)
    assert [list(node.output) for node in part.graph.node] == [["u"]]
    found = part.graph.initializer, part.graph.input, part.graph.output
    assert [[each.name for each in values] for values in found] == [["a"], ["v"], ["u"]]
    assert [list(node.output) for node in onnx.part_of(model, "w").graph.node] == [["y"], ["z", "", "w"]]


def test_field_numbers_are_those_of_onnx() -> None:
    """Bytes written by hand from onnx-ml.proto: ir_version 8, one node Relu with domain x, opset 21, metadata k=v."""
    data = bytes.fromhex("08083a0b0a09220452656c753a01784202101572060a016b120176")
    model = onnx.parse_model(data)
    assert model.ir_version == 8
    assert [(node.op_type, node.domain) for node in model.graph.node] == [("Relu", "x")]
    assert [each.version for each in model.opset_import] == [21]
    assert [(each.key, each.value) for each in model.metadata_props] == [("k", "v")]


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05", b"\x3a\x02\x0a\x09", b"\x12\x01\xff"])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(BackendError, match="damaged or no ONNX"):
        onnx.parse_model(data)


def test_even_an_empty_subgraph_or_training_graph_is_seen() -> None:
    model = onnx.parse_model(b"\xa2\x01\x00" + b"\x3a\x06" + b"\x0a\x04" + b"\x2a\x02" + b"\x32\x00")
    assert len(model.training_info) == 1
    assert onnx.present_fields(model.graph.node[0].attribute[0]) == {"g"}


def test_a_field_that_is_not_declared_is_reported_where_it_stands() -> None:
    model = onnx.parse_model(b"\x3a\x05" + b"\x0a\x03" + b"\xf8\x07\x01")
    parts = list(onnx.walk(model))
    assert [onnx.has_unknown_fields(part) for part in parts] == [False, False, True]
