"""Decides whether a reward model's file may be opened at all, before ONNX Runtime sees a byte of it.

A 106-byte ONNX file can ask for 4 GB or loop for ever, and weights may be said to lie in any file of the disk. So the
file is parsed here first, by protobuf alone, and refused unless every operator is on the list of its kind, every array
has exactly the bytes its shape says, and everything it refers to lies beside it. What isn't known is refused, not
skipped. What a graph computes and whether it fits a base model is not looked at (`onnx_head_reader`, `onnx`).
"""

import math
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from padlite.backends import onnx_schema as onnx
from padlite.errors import BackendError, NotFoundError

_REMEDY = "don't use this file; get the reward model from a source you trust"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a kind of reward model may contain: *operators* by domain, and upper bounds for counts and bytes.

    *values* are inputs, outputs and notes on what lies between; *numbers* the types of arrays besides float and int64.
    """

    operators: Mapping[str, frozenset[str]]
    nodes: int
    tensors: int
    values: int
    parts: int
    weight_bytes: int
    numbers: frozenset[int] = frozenset()


_MEDIUM = 2**20
_MAX_ENTRIES = 64

# What the exporters of padlite_export make of the architectures they know.
_LM_OPERATORS = frozenset(
    {
        "Add", "Cast", "Concat", "Cos", "Div", "Equal", "Erf", "Expand", "Gather", "Gelu", "Gemm", "LayerNormalization",
        "MatMul", "Mul", "Neg", "Pow", "Range", "Reciprocal", "ReduceLogSumExp", "ReduceMean", "ReduceSum", "Relu",
        "Reshape", "Shape", "Sigmoid", "SimplifiedLayerNormalization", "Sin", "Slice", "Split", "Sqrt", "Squeeze",
        "Sub", "Tanh", "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip

ALLOWANCES: Mapping[str, Allowance] = MappingProxyType(
    {
        "head": Allowance(
            operators=MappingProxyType({"": frozenset({"Cast", "Gather", "MatMul", "Reshape"})}),
            nodes=16,
            tensors=16,
            values=_MAX_ENTRIES,
            parts=4096,
            weight_bytes=2048 * _MEDIUM,
        ),
        "lm": Allowance(
            operators=MappingProxyType(
                {
                    "": _LM_OPERATORS,
                    "com.microsoft": frozenset(
                        {"GroupQueryAttention", "MatMulNBits", "SkipSimplifiedLayerNormalization"}
                    ),
                }
            ),
            nodes=8192,
            tensors=8192,
            values=1024,
            parts=200_000,
            weight_bytes=65_536 * _MEDIUM,
            numbers=frozenset({onnx.UINT8}),
        ),
    }
)

_IR_VERSIONS = range(8, 14)
_OPSETS = range(13, 27)
_PLAIN_ATTRIBUTES = {1: "f", 2: "i", 3: "s", 6: "floats", 7: "ints", 8: "strings"}  # AttributeProto.type → its field
_NUMBERS = frozenset({onnx.FLOAT, onnx.FLOAT16, onnx.INT64})
_MAX_RANK = 8
_FILE_BYTES = 4 * _MEDIUM


def inspect(path: Path, *, kind: str = "head") -> onnx.Model:
    """Return the parsed file if it is safe to open as a reward model of this *kind*.

    Raises NotFoundError if there is no such file, BackendError with the reason if it must not be opened.
    """
    allowance = ALLOWANCES[kind]
    model = onnx.parse_model(_read(path, _FILE_BYTES))
    _check_parts(model, allowance)
    for node in model.graph.node:
        _check_operator(node, kind, allowance)
    _check_messages(model, allowance.parts)
    if sum(_tensor_bytes(tensor, path, allowance) for tensor in model.graph.initializer) > allowance.weight_bytes:
        raise _refused(f"its weights are larger than {allowance.weight_bytes // _MEDIUM} MiB")
    return model


def kind_of(path: Path) -> str:
    """Return what kind of reward model the file *path* says it is: a key of `ALLOWANCES`.

    Raises NotFoundError if there is no such file, BackendError if it says nothing or something unknown.
    """
    model = onnx.parse_model(_read(path, _FILE_BYTES))
    kind = next((entry.value for entry in model.metadata_props if entry.key == "padlite.kind"), None)
    if kind is None:
        raise BackendError(
            f"{path.name} is no padlite reward model: its metadata lacks padlite.kind",
            remedy="export it with `padlite export reward`",
        )
    if kind not in ALLOWANCES:
        raise _refused(f"its kind {_shown(kind)} is none of {', '.join(ALLOWANCES)}")
    return kind


def _read(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file no larger than *limit*."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BackendError(f"{path} is no regular file", remedy="name an .onnx file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no reward model at {path}", remedy="check the path") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a usable path"
        raise BackendError(f"{path} can't be read: {reason}", remedy="check the file and its rights") from error
    if not data:
        raise BackendError(f"{path} is empty", remedy="copy or download it again")
    if len(data) > limit:
        raise _refused(f"it has more than {limit // _MEDIUM} MiB (weights belong into an external data file)")
    return data


def _check_parts(model: onnx.Model, allowance: Allowance) -> None:
    """Refuse whatever a reward model has no use for, counts that are too high, and versions that are unknown."""
    graph = model.graph
    unwanted = {
        "local functions": model.functions,
        "training graphs": model.training_info,
        "device configurations": model.configuration,
        "sparse arrays": graph.sparse_initializer,
        "quantization notes": graph.quantization_annotation,
    }
    for name, part in unwanted.items():
        if len(part):
            raise _refused(f"it contains {name}")
    values = len(graph.input) + len(graph.output) + len(graph.value_info)
    entries = len(model.metadata_props) + len(graph.metadata_props) + len(model.opset_import)
    if len(graph.node) > allowance.nodes or len(graph.initializer) > allowance.tensors:
        raise _refused(
            f"it has {len(graph.node)} operators and {len(graph.initializer)} arrays, "
            f"more than {allowance.nodes} and {allowance.tensors}"
        )
    if values > allowance.values or entries > _MAX_ENTRIES:
        raise _refused(f"it has more than {allowance.values} inputs and outputs or {_MAX_ENTRIES} metadata entries")
    if model.ir_version not in _IR_VERSIONS:
        raise _refused(f"its format version {model.ir_version} is unknown")
    for opset in model.opset_import:
        if opset.domain not in allowance.operators or (not opset.domain and opset.version not in _OPSETS):
            raise _refused(f"it uses operator set {_shown(opset.domain or 'ai.onnx')} {opset.version}")


def _check_messages(model: onnx.Model, most: int) -> None:
    """Refuse a file with too many parts, or with a field that only other readers might understand."""
    for number, part in enumerate(onnx.walk(model)):
        if number > most:
            raise _refused(f"it has more than {most} parts")
        if onnx.has_unknown_fields(part):
            raise _refused("it holds fields that this version of padlite doesn't know")


def _check_operator(node: onnx.Node, kind: str, allowance: Allowance) -> None:
    """Refuse an operator that isn't on the list, or one whose settings are more than numbers and strings."""
    allowed = allowance.operators.get(node.domain, frozenset[str]())
    if node.op_type not in allowed:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        known = ", ".join(sorted(_names(allowance)))
        raise _refused(f"it uses the operator {_shown(name)}, a reward {kind} needs only {known}")
    if node.overload or len(node.device_configurations):
        raise _refused(f"its operator {node.op_type} names an overload or a device")
    if len(node.attribute) + len(node.input) + len(node.output) > _MAX_ENTRIES:
        raise _refused(f"its operator {node.op_type} has more than {_MAX_ENTRIES} inputs, outputs and settings")
    for attribute in node.attribute:
        wanted = {"name", "type", "doc_string", _PLAIN_ATTRIBUTES.get(attribute.type, "")}
        if attribute.type not in _PLAIN_ATTRIBUTES or not onnx.present_fields(attribute) <= wanted:
            raise _refused(f"its operator {node.op_type} carries a graph, an array or a type as a setting")


def _names(allowance: Allowance) -> Iterator[str]:
    for domain, names in allowance.operators.items():
        yield from (f"{domain}.{name}" if domain else name for name in names)


def _tensor_bytes(tensor: onnx.Tensor, path: Path, allowance: Allowance) -> int:
    """Return the size of an array; refuse one whose bytes aren't exactly what its shape says."""
    name = _shown(tensor.name)
    item = onnx.ITEM_SIZE.get(tensor.data_type)
    if item is None or (tensor.data_type not in _NUMBERS and tensor.data_type not in allowance.numbers):
        raise _refused(f"its array {name} has number type {tensor.data_type}, not float16, float32 or int64")
    if len(tensor.dims) > _MAX_RANK or any(size < 0 for size in tensor.dims):
        raise _refused(f"its array {name} has an impossible shape")
    size = math.prod(tensor.dims) * item
    stored = set(onnx.present_fields(tensor)) - {"dims", "data_type", "name", "doc_string"}
    if tensor.data_location == onnx.EXTERNAL and stored == {"data_location", "external_data"}:
        _check_external(tensor, path, size)
    elif not stored <= {"raw_data"}:
        raise _refused(f"its array {name} is stored as {', '.join(sorted(stored))}, not as raw or external data")
    elif len(tensor.raw_data) != size:
        raise _refused(f"its array {name} should have {size} bytes and has {len(tensor.raw_data)}")
    return size


def _check_external(tensor: onnx.Tensor, path: Path, size: int) -> None:
    """Refuse weights that don't lie, whole, in a plain file right beside the model."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(tensor.external_data) != 3 or entries.keys() != {"location", "offset", "length"}:
        raise _refused(f"its array {_shown(tensor.name)} must give location, offset and length of its data, no more")
    location, offset, length = entries["location"], _number(entries["offset"]), _number(entries["length"])
    if length != size:
        raise _refused(f"its array {_shown(tensor.name)} should have {size} bytes and names {length}")
    available = _external_size(path, location)
    if offset + length > available:
        raise BackendError(
            f"{location} has {available} bytes, the reward model needs {offset + length}",
            remedy="the data file is cut off or belongs to another model: copy both files again",
        )


def _number(text: str) -> int:
    """Return a plain decimal number as a file offset."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise _refused(f"it names {_shown(text)} as offset or length of its data")
    return int(text)


def _external_size(path: Path, location: str) -> int:
    """Return the size of the data file *location* beside the model *path*.

    A symbolic link is followed only to where the model itself really lies, as in the Hugging Face cache, where both are
    links into one folder. Hard links can't be told from files that a package manager or a backup has deduplicated, so
    they are let through: whoever makes one needs write access to the folder already, and sizes and sha256 still hold.
    """
    if not location or location in {".", ".."} or any(character in location for character in "/\\:\0"):
        raise _refused(f"its data {_shown(location)} is not the plain name of a file beside it")
    beside = path.parent / location
    try:
        target = beside.resolve(strict=True)
        if target.parent not in {path.parent.resolve(), path.resolve().parent}:
            raise _refused(f"its data {_shown(location)} is a link out of its folder")
        status = target.stat()
    except FileNotFoundError as error:
        raise BackendError(
            f"{location} is missing beside {path.name}", remedy=f"copy {location} into {path.parent}"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise BackendError(f"{_shown(location)} can't be read", remedy="check the file and its rights") from error
    if not stat.S_ISREG(status.st_mode):
        raise _refused(f"its data {_shown(location)} is no regular file")
    return status.st_size


def _shown(text: str) -> str:
    """Return hostile text as something short and printable."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _refused(reason: str) -> BackendError:
    return BackendError(f"the reward model isn't safe to open: {reason}", remedy=_REMEDY)
