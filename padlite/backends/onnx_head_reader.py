"""Reads a reward head's file: accepts the graph and the metadata that `onnx_head` writes, and no other.

Because the graph is always the same, the size of every intermediate result is known before anything runs. Shapes as in
`onnx_head`. Doesn't look at what may be unsafe in any ONNX file (`preflight` comes first) and runs nothing.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from padlite.backends import onnx_schema as onnx
from padlite.backends.onnx_head import LAYOUT, OUTPUT, PROBE_TOLERANCE, SCHEMA, Probe
from padlite.errors import BackendError
from padlite.seams import Dimension

_REMEDY = "export the head again with this version of padlite, or choose another reward model"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadInfo:
    """What a head's file says about itself: its dimensions in order, V, d, r, and the base model it belongs to."""

    dimensions: tuple[Dimension, ...]
    vocabulary_size: int
    hidden_size: int
    rank: int
    tokenizer_sha256: str
    probe: Probe


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
    if found != LAYOUT:
        raise _refused("its operators aren't wired as docs/formats.md says")
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
    if abs(length - 1) > PROBE_TOLERANCE:
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
    return abs(value) < 1e30


def _refused(reason: str) -> BackendError:
    return BackendError(f"the reward head can't be used: {reason}", remedy=_REMEDY)
