"""Writes a reward head: its one graph, and the metadata that binds it to a base model.

    maps = MatMul(hidden (n, d), A (d, r·m))   →  z = Reshape(maps) (n, r, m)
    rows = Gather(table (V, r), candidates (n, k))  →  u = Cast(rows) (n, k, r)
    features (n, k, m) = MatMul(u, z)

That is φ_i(s, a) = u_aᵀ A_i h for every candidate a and dimension i (docs/formats.md). Arrays over 1 MiB lie beside the
file as NAME.onnx.data, which ONNX Runtime maps into memory. V vocabulary, d width of the hidden state, r rank,
n states, k candidates, m dimensions. Knows nothing of ONNX Runtime; `onnx_head_reader` reads what is written here.
"""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from padlite.backends import onnx_schema as onnx
from padlite.backends.onnx_metadata import SCHEMA
from padlite.errors import UsageError
from padlite.seams import Dimension, FloatArray
from padlite.text_map import TextMap, problem_of
from padlite.whole_files import write_beside, write_whole

OPSET = 21
INLINE_BYTES = 2**20
TEXT_MAP = "padlite.text_map"
INPUTS = ("hidden", "candidates")
OUTPUT = "features"
PROBE_TOLERANCE = 0.01  # how far the length of a probe's hidden state may be from 1

_IR_VERSION = 10  # the one that came with opset 21
_ALIGNMENT = 2**16  # what Windows asks of a mapped region; Linux is content with less
_INT_ATTRIBUTE = 2
LAYOUT = (
    ("MatMul", ("hidden", "A"), "maps"),
    ("Reshape", ("maps", "shape"), "z"),
    ("Gather", ("table", "candidates"), "rows"),
    ("Cast", ("rows",), "u"),
    ("MatMul", ("u", "z"), "features"),
)

HalfArray = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A fingerprint of the base model that a head was trained on.

    *hidden* (d,) is the base's hidden state after the last token of *text*, scaled to length 1. The text is encoded as
    plain text: no control tokens, no BOS, no chat template.
    """

    text: str
    hidden: FloatArray


def write_head(
    path: Path,
    *,
    table: HalfArray,
    maps: FloatArray,
    dimensions: Sequence[Dimension],
    tokenizer_sha256: str,
    probe: Probe,
    provenance: Mapping[str, str] | None = None,
    text_map: TextMap | None = None,
) -> None:
    """Write a head with *table* (V, r) float16 and *maps* (m, d, r) float32 to *path*, replacing what is there.

    The same arguments give the same bytes. Raises UsageError when the arrays don't fit together or hold a number that
    isn't finite.
    """
    _check_arrays(table, maps, dimensions, probe, tokenizer_sha256)
    if text_map is not None and (problem := problem_of(text_map, [each.name for each in dimensions], maps.shape[1])):
        raise UsageError(f"this is no reward head: {problem}", remedy="check the arrays that training handed over")
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
    if text_map is not None:
        numbers = base64.b64encode(np.ascontiguousarray(text_map.matrix, dtype="<f4").tobytes()).decode("ascii")
        metadata[TEXT_MAP] = _to_json({"dimensions": list(text_map.names), "matrix": numbers})
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    _write_files(path, onnx.serialize_model(model), data)


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
        "a scale isn't finite": not all(math.isfinite(each.scale) for each in dimensions),
        "the probe has no text": not probe.text,
        "the probe's hidden state isn't of length 1": abs(float(np.linalg.norm(probe.hidden)) - 1) > PROBE_TOLERANCE,
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
    for operator, inputs, output in LAYOUT:
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
    """Put *data* and *graph* in place, both complete on disk first: a cut in between leaves none, not a mixed one."""
    beside = path.with_name(path.name + ".data")
    if not data:
        write_whole(path, graph)
        beside.unlink(missing_ok=True)
        return
    written = [(each, write_beside(each, content)) for each, content in ((beside, data), (path, graph))]
    path.unlink(missing_ok=True)
    for place, complete in written:
        complete.replace(place)


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
