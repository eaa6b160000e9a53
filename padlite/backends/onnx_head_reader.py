"""Reads a reward head's file: accepts the graph and the metadata that `onnx_head` writes, and no other.

Because the graph is always the same, the size of every intermediate result is known before anything runs. Shapes as in
`onnx_head`. Doesn't look at what may be unsafe in any ONNX file (`preflight` comes first) and runs nothing.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from padlite.backends import onnx_schema as onnx
from padlite.backends.onnx_head import LAYOUT, OUTPUT, PROBE_TOLERANCE, TEXT_MAP, Probe
from padlite.backends.onnx_metadata import Metadata, is_finite, signature
from padlite.errors import BackendError
from padlite.seams import Dimension
from padlite.text_map import TextMap, problem_of


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadInfo:
    """What a head's file says about itself: its dimensions in order, V, d, r, and the base model it belongs to."""

    dimensions: tuple[Dimension, ...]
    vocabulary_size: int
    hidden_size: int
    rank: int
    tokenizer_sha256: str
    probe: Probe
    text_map: TextMap | None


def read_head(model: onnx.Model) -> HeadInfo:
    """Return what *model* says about itself; raise BackendError unless metadata and graph are those of a head."""
    metadata = Metadata.of(model, "head")
    vocabulary_size, width, rank, count = _check_graph(model.graph)
    dimensions = metadata.dimensions(count)
    if metadata.values.get("padlite.n_embd") != str(width):
        given = metadata.values.get("padlite.n_embd")
        raise _refused(f"it says n_embd = {given!r}, but its graph reads {width} numbers")
    return HeadInfo(
        dimensions=dimensions,
        vocabulary_size=vocabulary_size,
        hidden_size=width,
        rank=rank,
        tokenizer_sha256=metadata.sha256("padlite.tokenizer_sha256"),
        probe=_read_probe(metadata, width),
        text_map=_read_text_map(metadata, [each.name for each in dimensions], width),
    )


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
    found = signature(values[index]) if index < len(values) else None
    if found is None or found[:2] != (name, item) or len(found[2]) != len(shape):
        fits = False
    else:
        fits = all(isinstance(want, str) or have == want for have, want in zip(found[2], shape, strict=True))
    if not fits:
        kind = {onnx.FLOAT: "float32", onnx.INT64: "int64"}[item]
        sizes = ", ".join(map(str, shape))
        raise _refused(f"it has no input or output {name!r} ({sizes}) {kind} in place {index + 1}")


def _read_probe(metadata: Metadata, width: int) -> Probe:
    entry = metadata.json("padlite.probe")
    fields = cast(dict[str, object], entry) if isinstance(entry, dict) else {}
    text, numbers = fields.get("text"), fields.get("hidden")
    if not isinstance(text, str) or not text or not isinstance(numbers, list):
        raise _refused("padlite.probe isn't {text, hidden}")
    values = cast(list[object], numbers)
    if len(values) != width or not all(map(is_finite, values)):
        raise _refused(f"the hidden state in padlite.probe isn't {width} finite numbers")
    hidden = np.array(values, dtype=np.float64)
    length = float(np.linalg.norm(hidden))
    if abs(length - 1) > PROBE_TOLERANCE:
        raise _refused(f"the hidden state in padlite.probe has length {length:.3g}, not 1")
    return Probe(text=text, hidden=(hidden / length).astype(np.float32))


def _read_text_map(metadata: Metadata, dimensions: Sequence[str], width: int) -> TextMap | None:
    """Return the map from text to weights, or None if the head has none."""
    if TEXT_MAP not in metadata.values:
        return None
    entry = metadata.json(TEXT_MAP)
    fields = cast(dict[str, object], entry) if isinstance(entry, dict) else {}
    listed, numbers = fields.get("dimensions"), fields.get("matrix")
    names = cast(list[object], listed) if isinstance(listed, list) else []
    if not all(isinstance(name, str) for name in names) or not isinstance(numbers, str):
        raise _refused(f"{TEXT_MAP} isn't {{dimensions, matrix}}")
    rows, columns = len(names), len(names) + width + 1
    try:
        data = base64.b64decode(numbers, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(f"the matrix in {TEXT_MAP} is no base64") from error
    if len(data) != 4 * rows * columns:
        raise _refused(f"the matrix in {TEXT_MAP} isn't ({rows}, {columns}) float32")
    matrix = np.frombuffer(data, dtype="<f4").reshape(rows, columns).astype(np.float32)
    text_map = TextMap(names=tuple(map(str, names)), matrix=matrix)
    if problem := problem_of(text_map, dimensions, width):
        raise _refused(problem)
    return text_map


def _refused(reason: str) -> BackendError:
    return Metadata({}, "head").refused(reason)
