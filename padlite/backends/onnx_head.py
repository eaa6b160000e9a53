"""A reward head as a file: its one graph, the metadata that binds it to a base model, writing and reading both.

    maps = MatMul(hidden (n, d), A (d, r·m))   →  z = Reshape(maps) (n, r, m)
    rows = Gather(table (V, r), candidates (n, k))  →  u = Cast(rows) (n, k, r)
    features (n, k, m) = MatMul(u, z)

That is φ_i(s, a) = u_aᵀ A_i h for every candidate a and dimension i (docs/formats.md). Arrays over 1 MiB lie beside the
file as NAME.onnx.data, which ONNX Runtime maps into memory. `read_head` accepts this graph and no other, so the size of
every intermediate result is known before anything runs. Knows nothing of ONNX Runtime or of what else may be unsafe in
a file (`preflight`).
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from padlite.backends import onnx_schema as onnx
from padlite.errors import BackendError, UsageError
from padlite.seams import Dimension, FloatArray

SCHEMA = "1"
OPSET = 21
INLINE_BYTES = 2**20
INPUTS = ("hidden", "candidates")
OUTPUT = "features"

_IR_VERSION = 10  # the one that came with opset 21
_ALIGNMENT = 2**16  # what Windows asks of a mapped region; Linux is content with less
_INT_ATTRIBUTE = 2
_LAYOUT = (
    ("MatMul", ("hidden", "A"), "maps"),
    ("Reshape", ("maps", "shape"), "z"),
    ("Gather", ("table", "candidates"), "rows"),
    ("Cast", ("rows",), "u"),
    ("MatMul", ("u", "z"), "features"),
)
_REMEDY = "export the head again with this version of padlite, or choose another reward model"

HalfArray = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A fingerprint of the base model that a head was trained on.

    *hidden* (d,) is the base's hidden state after the last token of *text*, scaled to length 1. The text is encoded as
    plain text: no control tokens, no BOS, no chat template.
    """

    text: str
    hidden: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadInfo:
    """What a head's file says about itself: its dimensions in order, V, d, r, and the base model it belongs to."""

    dimensions: tuple[Dimension, ...]
    vocabulary_size: int
    hidden_size: int
    rank: int
    tokenizer_sha256: str
    probe: Probe


def write_head(
    path: Path,
    *,
    table: HalfArray,
    maps: FloatArray,
    dimensions: Sequence[Dimension],
    tokenizer_sha256: str,
    probe: Probe,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Write a head with *table* (V, r) float16 and *maps* (m, d, r) float32 to *path*, replacing what is there.

    The same arguments give the same bytes. Raises UsageError when the arrays don't fit together or hold a number that
    isn't finite.
    """
    _check_arrays(table, maps, dimensions, probe, tokenizer_sha256)
    count, width, rank = maps.shape
    folded = np.ascontiguousarray(maps.transpose(1, 2, 0), dtype="<f4").reshape(width, rank * count)
    model = _empty_head(rank, count, width)
    data = _add_tensors(model.graph, path.name + ".data", {"table": table.astype("<f2"), "A": folded})
    metadata = {
        "padlite.schema": SCHEMA,
        "padlite.kind": "head",
        "padlite.dimensions": _to_json(
            [{"name": each.name, "description": each.description, "scale": each.scale} for each in dimensions]
        ),
        "padlite.tokenizer_sha256": tokenizer_sha256,
        "padlite.n_embd": str(width),
        "padlite.probe": _to_json({"text": probe.text, "hidden": [float(f"{x:.6g}") for x in probe.hidden]}),
        "padlite.provenance": _to_json(dict(provenance or {})),
    }
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    _write_files(path, onnx.serialize_model(model), data)


def read_head(model: onnx.Model) -> HeadInfo:
    """Return what *model* says about itself; raise BackendError unless metadata and graph are those of a head."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    _check_schema(metadata)
    vocabulary_size, width, rank, count = _check_graph(model.graph)
    dimensions = _read_dimensions(metadata, count)
    if metadata.get("padlite.n_embd") != str(width):
        raise _refused(f"it says n_embd = {metadata.get('padlite.n_embd')!r}, but its graph reads {width} numbers")
    return HeadInfo(
        dimensions=dimensions,
        vocabulary_size=vocabulary_size,
        hidden_size=width,
        rank=rank,
        tokenizer_sha256=_read_sha256(metadata),
        probe=_read_probe(metadata, width),
    )


def _check_arrays(
    table: HalfArray, maps: FloatArray, dimensions: Sequence[Dimension], probe: Probe, tokenizer_sha256: str
) -> None:
    """Raise UsageError unless the arguments of `write_head` describe one head."""
    problems = {
        "table is not (V, r) float16": table.ndim != 2 or table.dtype != np.float16,
        "maps is not (m, d, r) float32": maps.ndim != 3 or maps.dtype != np.float32,
        "table and maps have different ranks": table.shape[-1:] != maps.shape[-1:],
        "there isn't one name for each map": len({each.name for each in dimensions} - {""}) != maps.shape[0],
        "the probe's hidden state isn't as wide as the maps": probe.hidden.shape != maps.shape[1:2],
        "the tokenizer's sha256 isn't 64 hexadecimal digits": not re.fullmatch("[0-9a-f]{64}", tokenizer_sha256),
        "an array is empty": 0 in {*table.shape, *maps.shape},
        "a number isn't finite (float16 ends at 65504)": not all(
            bool(np.isfinite(each).all()) for each in (table, maps, probe.hidden)
        ),
    }
    for problem, found in problems.items():
        if found:
            raise UsageError(f"this is no reward head: {problem}", remedy="check the arrays that training handed over")


def _empty_head(rank: int, count: int, width: int) -> onnx.Model:
    """Return the model with its nodes, inputs and output, but without its two big arrays."""
    model = onnx.new_model()
    model.ir_version, model.producer_name = _IR_VERSION, "padlite"
    model.opset_import.add().version = OPSET
    graph = model.graph
    graph.name = "head"
    for operator, inputs, output in _LAYOUT:
        node = graph.node.add()
        node.op_type, node.name = operator, output
        node.input.extend(inputs)
        node.output.append(output)
        if operator == "Cast":
            attribute = node.attribute.add()
            attribute.name, attribute.type, attribute.i = "to", _INT_ATTRIBUTE, onnx.FLOAT
    shape = graph.initializer.add()
    shape.name, shape.data_type = "shape", onnx.INT64
    shape.dims.append(3)
    shape.raw_data = np.array([-1, rank, count], dtype="<i8").tobytes()
    _describe(graph.input.add(), "hidden", onnx.FLOAT, ("n", width))
    _describe(graph.input.add(), "candidates", onnx.INT64, ("n", "k"))
    _describe(graph.output.add(), OUTPUT, onnx.FLOAT, ("n", "k", count))
    return model


def _describe(value: onnx.Value, name: str, item: int, shape: Sequence[int | str]) -> None:
    """Give an input or output its name, item type and shape."""
    value.name = name
    value.type.tensor_type.elem_type = item
    for size in shape:
        dimension = value.type.tensor_type.shape.dim.add()
        if isinstance(size, int):
            dimension.dim_value = size
        else:
            dimension.dim_param = size


def _add_tensors(graph: onnx.Graph, location: str, arrays: Mapping[str, HalfArray | FloatArray]) -> bytes:
    """Add *arrays* as initializers and return the bytes that belong into the file *location*, often none."""
    data = bytearray()
    for name, array in arrays.items():
        tensor = graph.initializer.add()
        tensor.name = name
        tensor.data_type = onnx.FLOAT16 if array.itemsize == 2 else onnx.FLOAT
        tensor.dims.extend(array.shape)
        if array.nbytes <= INLINE_BYTES:
            tensor.raw_data = array.tobytes()
            continue
        data.extend(bytes(-len(data) % _ALIGNMENT))
        tensor.data_location = onnx.EXTERNAL
        for key, value in (("location", location), ("offset", str(len(data))), ("length", str(array.nbytes))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        data.extend(array.tobytes())
    return bytes(data)


def _write_files(path: Path, graph: bytes, data: bytes) -> None:
    """Put *data* and then *graph* in place, each complete under another name first."""
    beside = path.with_name(path.name + ".data")
    if data:
        _replace(beside, data)
    _replace(path, graph)
    if not data:
        beside.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _check_schema(metadata: Mapping[str, str]) -> None:
    schema, kind = metadata.get("padlite.schema"), metadata.get("padlite.kind")
    if schema is None:
        raise BackendError(
            "this ONNX file is no padlite reward model: it has no padlite.schema in its metadata", remedy=_REMEDY
        )
    if schema != SCHEMA:
        raise BackendError(
            f"the reward model has schema {schema[:20]!r}, this padlite reads {SCHEMA!r}", remedy="upgrade padlite"
        )
    if kind != "head":
        raise _refused(f"its kind is {(kind or '')[:20]!r}, not 'head'")


def _check_graph(graph: onnx.Graph) -> tuple[int, int, int, int]:
    """Return V, d, r and m of a head's graph; raise BackendError when it is any other graph."""
    table, folded, shape = _initializers(graph)
    if len(table.dims) != 2 or table.data_type != onnx.FLOAT16:
        raise _refused("its table isn't (V, r) float16")
    vocabulary_size, rank = table.dims
    if len(folded.dims) != 2 or folded.data_type != onnx.FLOAT:
        raise _refused("its maps aren't (d, r·m) float32")
    width, columns = folded.dims
    if not all((vocabulary_size, rank, width, columns)) or columns % rank:
        raise _refused(f"its table of rank {rank} and its maps of {columns} columns don't belong together")
    count = columns // rank
    wanted = np.array([-1, rank, count], dtype="<i8").tobytes()
    if shape.data_type != onnx.INT64 or list(shape.dims) != [3] or shape.raw_data != wanted:
        raise _refused("it doesn't reshape its maps to (n, r, m)")
    _check_nodes(graph)
    _check_value(graph.input, 0, "hidden", onnx.FLOAT, ("n", width))
    _check_value(graph.input, 1, "candidates", onnx.INT64, ("n", "k"))
    _check_value(graph.output, 0, OUTPUT, onnx.FLOAT, ("n", "k", count))
    if len(graph.input) != 2 or len(graph.output) != 1:
        raise _refused(f"it has {len(graph.input)} inputs and {len(graph.output)} outputs, not 2 and 1")
    return vocabulary_size, width, rank, count


def _initializers(graph: onnx.Graph) -> tuple[onnx.Tensor, onnx.Tensor, onnx.Tensor]:
    """Return the head's constants: table, A, shape."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    if len(graph.initializer) != 3 or found.keys() != {"table", "A", "shape"}:
        raise _refused("its constants aren't 'table', 'A' and 'shape'")
    return found["table"], found["A"], found["shape"]


def _check_nodes(graph: onnx.Graph) -> None:
    found = tuple((node.op_type, tuple(node.input), ",".join(node.output)) for node in graph.node)
    if found != _LAYOUT:
        raise _refused(
            f"its graph isn't {' → '.join(operator for operator, _, _ in _LAYOUT)} as docs/formats.md has it"
        )
    for node in graph.node:
        given = [(attribute.name, attribute.i) for attribute in node.attribute]
        if given != ([("to", onnx.FLOAT)] if node.op_type == "Cast" else []):
            raise _refused(f"its operator {node.op_type} has settings that a reward head doesn't use")


def _check_value(
    values: onnx.Messages[onnx.Value], index: int, name: str, item: int, shape: tuple[int | str, ...]
) -> None:
    """Raise BackendError unless the input or output *index* has this name, item type and shape (names fit any size)."""
    found = _signature(values[index]) if index < len(values) else None
    if found is None or found[:2] != (name, item) or len(found[2]) != len(shape):
        fits = False
    else:
        fits = all(isinstance(want, str) or have == want for have, want in zip(found[2], shape, strict=True))
    if not fits:
        kind = {onnx.FLOAT: "float32", onnx.INT64: "int64"}[item]
        sizes = ", ".join(map(str, shape))
        raise _refused(f"it has no input or output {name!r} ({sizes}) {kind} in place {index + 1}")


def _signature(value: onnx.Value) -> tuple[str, int, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, tuple(each.dim_param or each.dim_value for each in tensor.shape.dim)


def _read_dimensions(metadata: Mapping[str, str], count: int) -> tuple[Dimension, ...]:
    listed = _from_json(metadata, "padlite.dimensions")
    if not isinstance(listed, list):
        raise _refused("padlite.dimensions isn't a list")
    entries = cast(list[object], listed)
    if len(entries) != count:
        raise _refused(f"it names {len(entries)} dimensions, but its graph computes {count}")
    dimensions = tuple(map(_read_dimension, entries))
    if len({each.name for each in dimensions}) != len(dimensions):
        raise _refused("two of its dimensions have the same name")
    return dimensions


def _read_dimension(entry: object) -> Dimension:
    fields = cast(dict[str, object], entry) if isinstance(entry, dict) else {}
    name, description, scale = fields.get("name"), fields.get("description", ""), fields.get("scale", 1.0)
    if not (isinstance(name, str) and name and isinstance(description, str) and _is_finite(scale)):
        raise _refused("an entry of padlite.dimensions isn't {name, description, scale}")
    return Dimension(name=name, description=description, scale=float(cast(float, scale)))


def _read_sha256(metadata: Mapping[str, str]) -> str:
    value = metadata.get("padlite.tokenizer_sha256", "")
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise _refused("padlite.tokenizer_sha256 isn't a sha256 in hexadecimal")
    return value


def _read_probe(metadata: Mapping[str, str], width: int) -> Probe:
    entry = _from_json(metadata, "padlite.probe")
    fields = cast(dict[str, object], entry) if isinstance(entry, dict) else {}
    text, numbers = fields.get("text"), fields.get("hidden")
    if not isinstance(text, str) or not text or not isinstance(numbers, list):
        raise _refused("padlite.probe isn't {text, hidden}")
    values = cast(list[object], numbers)
    if len(values) != width or not all(map(_is_finite, values)):
        raise _refused(f"the hidden state in padlite.probe isn't {width} finite numbers")
    hidden = np.array(values, dtype=np.float64)
    length = float(np.linalg.norm(hidden))
    if not 0.99 < length < 1.01:
        raise _refused(f"the hidden state in padlite.probe has length {length:.3g}, not 1")
    return Probe(text=text, hidden=(hidden / length).astype(np.float32))


def _from_json(metadata: Mapping[str, str], key: str) -> object:
    if key not in metadata:
        raise _refused(f"its metadata lacks {key}")
    try:
        return cast(object, json.loads(metadata[key]))
    except (ValueError, RecursionError) as error:
        raise _refused(f"{key} in its metadata is no JSON") from error


def _is_finite(value: object) -> bool:
    """Tell whether *value* is a number that a float32 can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e30 and math.isfinite(value)


def _refused(reason: str) -> BackendError:
    return BackendError(f"the reward head can't be used: {reason}", remedy=_REMEDY)
