"""A reward head's graph with some of its dimensions only.

A step reads every map of the graph, wanted or not, and people seldom weigh all dimensions: on small models these maps
are most of what guidance costs. Nothing is written to disk, and the table stays where it is. Shapes as in `onnx_head`.
Knows neither ONNX Runtime nor who wants what.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from padlite.backends import onnx_schema as onnx
from padlite.backends.onnx_head_reader import HeadInfo
from padlite.seams import FloatArray

IndexArray = npt.NDArray[np.intp]


def maps_of(model: onnx.Model, info: HeadInfo, path: Path) -> FloatArray:
    """Return the maps (d, r, m) of the accepted *model*, from the file at *path* or mapped from the one beside it."""
    folded = next(tensor for tensor in model.graph.initializer if tensor.name == "A")
    shape = (info.hidden_size, info.rank, len(info.dimensions))
    if folded.data_location != onnx.EXTERNAL:
        return np.frombuffer(folded.raw_data, dtype="<f4").reshape(shape)
    where = {entry.key: entry.value for entry in folded.external_data}
    beside, begin = path.with_name(where["location"]), int(where.get("offset", "0"))
    return np.memmap(beside, dtype="<f4", mode="r", offset=begin, shape=shape)


def with_dimensions(model: onnx.Model, maps: FloatArray, wanted: IndexArray) -> bytes:
    """Return the head *model* with its dimensions *wanted* (indices) and one that is always 0, as a file holds it.

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
