"""The part of ONNX's file format that padlite reads and writes, so that it needs no `onnx` package.

A class below is a protobuf message, an annotation a field: its Python type, its number and its wire type. Numbers are
those of onnx-ml.proto (https://github.com/onnx/onnx, IR version 13). What padlite only ever refuses (functions,
training graphs, subgraphs, sparse tensors, …) is declared as opaque repeated bytes, so that even an empty one is
seen, and none is looked into. Anything not declared ends in a message's unknown fields, which `has_unknown_fields`
reports. The syntax is proto3 because that makes the parser refuse strings that aren't UTF-8.

Knows neither what a padlite graph looks like nor what is safe to open.
"""

import functools
import typing
from collections.abc import Collection, Iterable, Iterator, MutableSequence
from typing import Annotated, Protocol, TypeVar, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from padlite.errors import BackendError

FLOAT, UINT8, INT64, FLOAT16 = 1, 2, 7, 10
ITEM_SIZE = {FLOAT: 4, UINT8: 1, INT64: 8, FLOAT16: 2}
EXTERNAL = 1

T_co = TypeVar("T_co", covariant=True)


class Messages(Protocol[T_co]):
    """A repeated field of messages."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T_co]: ...
    def __getitem__(self, index: int, /) -> T_co: ...
    def __delitem__(self, index: "int | slice[int | None, int | None, int | None]", /) -> None: ...
    def add(self) -> T_co:
        """Append a new message and return it."""
        ...


Strings = MutableSequence[str]
Integers = MutableSequence[int]
Opaque = MutableSequence[bytes]


class Entry(Protocol):
    """StringStringEntryProto."""

    key: Annotated[str, 1, "string"]
    value: Annotated[str, 2, "string"]


class Tensor(Protocol):
    """TensorProto: a constant array; `raw_data` is little-endian."""

    dims: Annotated[Integers, 1, "int64"]
    data_type: Annotated[int, 2, "int32"]
    segment: Annotated[Opaque, 3, "bytes"]
    float_data: Annotated[MutableSequence[float], 4, "float"]
    int32_data: Annotated[Integers, 5, "int32"]
    string_data: Annotated[Opaque, 6, "bytes"]
    int64_data: Annotated[Integers, 7, "int64"]
    name: Annotated[str, 8, "string"]
    raw_data: Annotated[bytes, 9, "bytes"]
    double_data: Annotated[MutableSequence[float], 10, "double"]
    uint64_data: Annotated[Integers, 11, "uint64"]
    doc_string: Annotated[str, 12, "string"]
    external_data: Annotated[Messages[Entry], 13, "message"]
    data_location: Annotated[int, 14, "int32"]
    metadata_props: Annotated[Messages[Entry], 16, "message"]


class Attribute(Protocol):
    """AttributeProto; tensors, graphs and types stay opaque."""

    name: Annotated[str, 1, "string"]
    f: Annotated[float, 2, "float"]
    i: Annotated[int, 3, "int64"]
    s: Annotated[bytes, 4, "bytes"]
    t: Annotated[Opaque, 5, "bytes"]
    g: Annotated[Opaque, 6, "bytes"]
    floats: Annotated[MutableSequence[float], 7, "float"]
    ints: Annotated[Integers, 8, "int64"]
    strings: Annotated[Opaque, 9, "bytes"]
    tensors: Annotated[Opaque, 10, "bytes"]
    graphs: Annotated[Opaque, 11, "bytes"]
    doc_string: Annotated[str, 13, "string"]
    tp: Annotated[Opaque, 14, "bytes"]
    type_protos: Annotated[Opaque, 15, "bytes"]
    type: Annotated[int, 20, "int32"]
    ref_attr_name: Annotated[str, 21, "string"]
    sparse_tensor: Annotated[Opaque, 22, "bytes"]
    sparse_tensors: Annotated[Opaque, 23, "bytes"]


class Node(Protocol):
    """NodeProto: one operator."""

    input: Annotated[Strings, 1, "string"]
    output: Annotated[Strings, 2, "string"]
    name: Annotated[str, 3, "string"]
    op_type: Annotated[str, 4, "string"]
    attribute: Annotated[Messages[Attribute], 5, "message"]
    doc_string: Annotated[str, 6, "string"]
    domain: Annotated[str, 7, "string"]
    overload: Annotated[str, 8, "string"]
    metadata_props: Annotated[Messages[Entry], 9, "message"]
    device_configurations: Annotated[Opaque, 10, "bytes"]


class ShapeDimension(Protocol):
    """TensorShapeProto.Dimension: a number or a name."""

    dim_value: Annotated[int, 1, "int64"]
    dim_param: Annotated[str, 2, "string"]
    denotation: Annotated[str, 3, "string"]


class Shape(Protocol):
    """TensorShapeProto."""

    dim: Annotated[Messages[ShapeDimension], 1, "message"]


class TensorType(Protocol):
    """TypeProto.Tensor."""

    elem_type: Annotated[int, 1, "int32"]
    shape: Annotated[Shape, 2, "message"]


class ValueType(Protocol):
    """TypeProto; everything but dense tensors stays opaque."""

    tensor_type: Annotated[TensorType, 1, "message"]
    sequence_type: Annotated[Opaque, 4, "bytes"]
    map_type: Annotated[Opaque, 5, "bytes"]
    denotation: Annotated[str, 6, "string"]
    opaque_type: Annotated[Opaque, 7, "bytes"]
    sparse_tensor_type: Annotated[Opaque, 8, "bytes"]
    optional_type: Annotated[Opaque, 9, "bytes"]


class Value(Protocol):
    """ValueInfoProto: name and type of an input or output."""

    name: Annotated[str, 1, "string"]
    type: Annotated[ValueType, 2, "message"]
    doc_string: Annotated[str, 3, "string"]
    metadata_props: Annotated[Messages[Entry], 4, "message"]


class Graph(Protocol):
    """GraphProto."""

    node: Annotated[Messages[Node], 1, "message"]
    name: Annotated[str, 2, "string"]
    initializer: Annotated[Messages[Tensor], 5, "message"]
    doc_string: Annotated[str, 10, "string"]
    input: Annotated[Messages[Value], 11, "message"]
    output: Annotated[Messages[Value], 12, "message"]
    value_info: Annotated[Messages[Value], 13, "message"]
    quantization_annotation: Annotated[Opaque, 14, "bytes"]
    sparse_initializer: Annotated[Opaque, 15, "bytes"]
    metadata_props: Annotated[Messages[Entry], 16, "message"]


class OperatorSet(Protocol):
    """OperatorSetIdProto."""

    domain: Annotated[str, 1, "string"]
    version: Annotated[int, 2, "int64"]


class Model(Protocol):
    """ModelProto: the whole file."""

    ir_version: Annotated[int, 1, "int64"]
    producer_name: Annotated[str, 2, "string"]
    producer_version: Annotated[str, 3, "string"]
    domain: Annotated[str, 4, "string"]
    model_version: Annotated[int, 5, "int64"]
    doc_string: Annotated[str, 6, "string"]
    graph: Annotated[Graph, 7, "message"]
    opset_import: Annotated[Messages[OperatorSet], 8, "message"]
    metadata_props: Annotated[Messages[Entry], 14, "message"]
    training_info: Annotated[Opaque, 20, "bytes"]
    functions: Annotated[Opaque, 25, "bytes"]
    configuration: Annotated[Opaque, 26, "bytes"]


_DECLARED = (
    Entry, Tensor, Attribute, Node, ShapeDimension, Shape, TensorType, ValueType, Value, Graph, OperatorSet, Model,
)  # fmt: skip
_PACKAGE = "padlite.onnx"
_Field = descriptor_pb2.FieldDescriptorProto


def new_model() -> Model:
    """Return an empty model."""
    return cast(Model, _model_class()())


def parse_model(data: bytes) -> Model:
    """Return the model that *data* encodes; raise BackendError when it is no protobuf of that shape."""
    message = _model_class()()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise BackendError("the file is damaged or no ONNX model", remedy="copy or download it again") from error
    return cast(Model, message)


def serialize_model(model: Model) -> bytes:
    """Return the bytes of *model*, the same for the same content."""
    return cast(Message, model).SerializeToString(deterministic=True)


def part_of(model: Model, outputs: Collection[str]) -> Model:
    """Return what of *model* computes *outputs*, as a model of its own: their nodes, arrays and inputs, no metadata.

    Arrays that lie in another file stay there. Nodes are taken to stand in the order in which they run.
    """
    needed, nodes = set(outputs), list[Node]()
    for node in reversed(list(model.graph.node)):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(filter(None, node.input))  # an input that is left out has an empty name
    part = new_model()
    part.ir_version, part.graph.name = model.ir_version, model.graph.name
    _add_copies(part.opset_import, model.opset_import)
    _add_copies(part.graph.node, reversed(nodes))
    _add_copies(part.graph.initializer, (each for each in model.graph.initializer if each.name in needed))
    _add_copies(part.graph.input, (each for each in model.graph.input if each.name in needed))
    _add_copies(part.graph.output, (each for each in model.graph.output if each.name in outputs))
    return part


def _add_copies(target: Messages[T_co], messages: Iterable[T_co]) -> None:
    for message in messages:
        cast(Message, target.add()).CopyFrom(cast(Message, message))


def present_fields(part: object) -> frozenset[str]:
    """Return the names of the fields that are set in a message."""
    return frozenset(field.name for field, _ in cast(Message, part).ListFields())


def has_unknown_fields(part: object) -> bool:
    """Tell whether a message, not counting those inside it, holds a field that isn't declared in this module."""
    return len(UnknownFieldSet(cast(Message, part))) > 0


def walk(part: object) -> Iterator[object]:
    """Yield a message and every message inside it."""
    yield part
    for field, value in cast(Message, part).ListFields():
        if field.message_type is not None:
            for inner in (value,) if isinstance(value, Message) else cast(Iterable[Message], value):
                yield from walk(inner)


@functools.cache
def _model_class() -> type[Message]:
    """Build the message classes, in a pool of their own so that an installed `onnx` package doesn't clash."""
    file = descriptor_pb2.FileDescriptorProto(name="padlite/onnx.proto", package=_PACKAGE, syntax="proto3")
    for declared in _DECLARED:
        _declare(file.message_type.add(name=declared.__name__), declared)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # pyright: ignore[reportUnknownMemberType]
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{Model.__name__}"))


def _declare(target: descriptor_pb2.DescriptorProto, declared: type) -> None:
    """Translate the annotations of one class to protobuf fields."""
    for name, hint in typing.get_type_hints(declared, include_extras=True).items():
        kind, number, wire = cast(tuple[object, int, str], typing.get_args(hint))
        items = typing.get_args(kind)
        field = target.field.add(name=name, number=number, type=_Field.Type.Value(f"TYPE_{wire.upper()}"))
        field.label = _Field.LABEL_REPEATED if items else _Field.LABEL_OPTIONAL
        if wire == "message":
            field.type_name = f".{_PACKAGE}.{cast(type, items[0] if items else kind).__name__}"
