"""A reward head taken apart: its arrays and metadata in memory, to be changed and written again.

Shapes as in `onnx_head`: table (V, r) float16, maps (m, d, r) float32. Runs nothing, and opens a file only after
`preflight` and `onnx_head_reader` have accepted it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from padlite.backends import onnx_schema as onnx
from padlite.backends import preflight
from padlite.backends.onnx_head import HalfArray, Probe, write_head
from padlite.backends.onnx_head_reader import read_head
from padlite.seams import Dimension, FloatArray
from padlite.text_map import TextMap

_PROVENANCE = "padlite.provenance"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadArrays:
    """Everything that a head's file holds."""

    table: HalfArray
    maps: FloatArray
    dimensions: tuple[Dimension, ...]
    tokenizer_sha256: str
    probe: Probe
    provenance: Mapping[str, str] = field(default_factory=dict)
    text_map: TextMap | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The dimensions' names, in order."""
        return tuple(dimension.name for dimension in self.dimensions)

    def save(self, path: Path) -> None:
        """Write the head to *path*, whole or not at all."""
        write_head(
            path,
            table=self.table,
            maps=self.maps,
            dimensions=self.dimensions,
            tokenizer_sha256=self.tokenizer_sha256,
            probe=self.probe,
            provenance=self.provenance,
            text_map=self.text_map,
        )


def load_arrays(path: Path) -> HeadArrays:
    """Return the head at *path* taken apart. Raises as `OnnxHead.open` does."""
    model = preflight.inspect(path, kind="head")
    info = read_head(model)
    arrays = {tensor.name: _bytes_of(tensor, path) for tensor in model.graph.initializer}
    count, width, rank = len(info.dimensions), info.hidden_size, info.rank
    folded = np.frombuffer(arrays["A"], dtype="<f4").reshape(width, rank, count)
    return HeadArrays(
        table=np.frombuffer(arrays["table"], dtype="<f2").reshape(info.vocabulary_size, rank).astype(np.float16),
        maps=np.ascontiguousarray(folded.transpose(2, 0, 1), dtype=np.float32),
        dimensions=info.dimensions,
        tokenizer_sha256=info.tokenizer_sha256,
        probe=info.probe,
        provenance=_provenance({entry.key: entry.value for entry in model.metadata_props}),
        text_map=info.text_map,
    )


def _bytes_of(tensor: onnx.Tensor, path: Path) -> bytes:
    """Return the bytes of an array, from the file itself or from the one beside it (`preflight` has checked both)."""
    if tensor.data_location != onnx.EXTERNAL:
        return tensor.raw_data
    where = {entry.key: entry.value for entry in tensor.external_data}
    with path.with_name(where["location"]).open("rb") as file:
        file.seek(int(where.get("offset", "0")))
        return file.read(int(where["length"]))


def _provenance(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return where a head comes from; a head that doesn't say so in padlite's way says nothing."""
    try:
        value = cast(object, json.loads(metadata.get(_PROVENANCE, "{}")))
    except (ValueError, RecursionError):
        return {}
    entries = cast(dict[object, object], value) if isinstance(value, dict) else {}
    return {key: text for key, text in entries.items() if isinstance(key, str) and isinstance(text, str)}
