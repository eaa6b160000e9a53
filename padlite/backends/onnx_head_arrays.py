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

from padlite.backends import preflight
from padlite.backends.onnx_head import HalfArray, Probe, write_head
from padlite.backends.onnx_head_part import arrays_of
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
    arrays = arrays_of(model, info, path)
    return HeadArrays(
        table=np.array(arrays.table, dtype=np.float16),  # copies: a file that is mapped can't be replaced on Windows
        maps=np.array(arrays.maps.transpose(2, 0, 1), dtype=np.float32, order="C"),
        dimensions=info.dimensions,
        tokenizer_sha256=info.tokenizer_sha256,
        probe=info.probe,
        provenance=_provenance({entry.key: entry.value for entry in model.metadata_props}),
        text_map=info.text_map,
    )


def _provenance(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return where a head comes from; a head that doesn't say so in padlite's way says nothing."""
    try:
        value = cast(object, json.loads(metadata.get(_PROVENANCE, "{}")))
    except (ValueError, RecursionError):
        return {}
    entries = cast(dict[object, object], value) if isinstance(value, dict) else {}
    return {key: text for key, text in entries.items() if isinstance(key, str) and isinstance(text, str)}
