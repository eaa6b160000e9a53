"""A reward head's graph with some of its dimensions only.

A step reads every map of the graph, wanted or not, and people seldom weigh all dimensions. Nothing is written to disk,
and a large table stays where it is. Shapes as in `onnx_head`. Knows neither ONNX Runtime nor who wants what.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from padlite.backends import onnx_schema as onnx
from padlite.backends.onnx_head import HalfArray
from padlite.backends.onnx_head_reader import HeadInfo
from padlite.seams import FloatArray

IndexArray = npt.NDArray[np.intp]


class Arrays(NamedTuple):
    """The big arrays of a head: *table* (V, r) and *maps* (d, r, m); *beside*: the table isn't in the graph's file."""

    table: HalfArray
    maps: FloatArray
    beside: bool


def arrays_of(model: onnx.Model, info: HeadInfo, path: Path) -> Arrays:
    """Return the arrays of the accepted *model* at *path*: its own, or mapped from the file beside it.

    They stay what they are, whatever happens to the files.
    """
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    table = _bytes_of(found["table"], path).view("<f2").reshape(info.vocabulary_size, info.rank)
    maps = _bytes_of(found["A"], path).view("<f4").reshape(info.hidden_size, info.rank, len(info.dimensions))
    return Arrays(table=table, maps=maps, beside=found["table"].data_location == onnx.EXTERNAL)


def _bytes_of(tensor: onnx.Tensor, path: Path) -> npt.NDArray[np.uint8]:
    if tensor.data_location != onnx.EXTERNAL:
        return np.frombuffer(tensor.raw_data, dtype=np.uint8)
    where = {entry.key: entry.value for entry in tensor.external_data}
    begin, size = int(where.get("offset", "0")), int(where["length"])
    return np.memmap(path.with_name(where["location"]), dtype=np.uint8, mode="r", offset=begin, shape=(size,))


def with_dimensions(model: onnx.Model, maps: FloatArray, wanted: IndexArray) -> bytes:
    """Return the head *model* with its dimensions *wanted* (indices) and one that is always 0, as a file holds it.

    A table that lies beside the file is only referred to.

    The zero stands for all others. It also makes two of a single dimension, which ONNX Runtime would compute in another
    order: so the last bits stay as they are in the whole head.
    """
    width, rank, _ = maps.shape
    count = len(wanted) + 1
    folded = np.zeros((width, rank, count), dtype="<f4")
    folded[:, :, :-1] = maps[:, :, wanted]
    part = onnx.parse_model(onnx.serialize_model(model))
    for tensor in part.graph.initializer:
        if tensor.name == "shape":
            tensor.raw_data = np.array([-1, rank, count], dtype="<i8").tobytes()
        elif tensor.name == "A":
            tensor.raw_data, tensor.data_location = folded.tobytes(), 0
            tensor.dims[:] = [width, rank * count]
            del tensor.external_data[:]
    part.graph.output[0].type.tensor_type.shape.dim[2].dim_value = count
    return onnx.serialize_model(part)
