"""From a fitted head to `reward.onnx`: the table of u_a, the maps, and what ties them to the base model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import gguf
import numpy as np

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx_head import HalfArray, Probe, write_head
from padlite.seams import Dimension, FloatArray
from padlite.text_map import TextMap
from padlite_training.styles import DESCRIPTIONS, STYLES

PROBE_TEXT = "Hello there! How are you doing today? I would like to talk about films and music."


def output_table(path: Path) -> FloatArray:
    """Return the output table (V, d) of the GGUF at *path* as llama.cpp uses it, that is after quantization."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    tensor = tensors.get("output.weight", tensors["token_embd.weight"])  # the same table where they are tied
    return np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)


class LowRank(Protocol):
    """A fitted head: P (d, r), A (m, d, r), and the scales (m,) that are already contained in A."""

    @property
    def projection(self) -> FloatArray: ...  # noqa: D102 - named above
    @property
    def maps(self) -> FloatArray: ...  # noqa: D102
    @property
    def scales(self) -> FloatArray: ...  # noqa: D102


def style_dimensions(scales: FloatArray) -> list[Dimension]:
    """Return the styles of the small talk as dimensions with these *scales*."""
    return [
        Dimension(name=style, description=DESCRIPTIONS[style], scale=float(scale))
        for style, scale in zip(STYLES, scales, strict=True)
    ]


def balanced(head: LowRank, table: FloatArray) -> tuple[HalfArray, FloatArray]:
    """Return the rows u_a (V, r) of *head* in float16 and its maps (m, d, r), *table* (V, d) being the base's.

    Sizes are balanced between the two, so that float16 serves the rows well.
    """
    words = table @ head.projection
    size = float(np.abs(words).max()) / 8.0 or 1.0
    return (words / size).astype(np.float16), np.ascontiguousarray(head.maps * np.float32(size))


def write_reward(
    path: Path,
    head: LowRank,
    *,
    dimensions: Sequence[Dimension],
    table: FloatArray,
    base: LlamaModel,
    provenance: Mapping[str, str],
    text_map: TextMap | None = None,
) -> None:
    """Write *head* for *base*, whose output table is *table* (V, d), to *path*."""
    rows, maps = balanced(head, table)
    write_head(
        path,
        table=rows,
        maps=maps,
        dimensions=dimensions,
        tokenizer_sha256=base.tokenizer.sha256,
        probe=Probe(text=PROBE_TEXT, hidden=base.unit_hidden_state(PROBE_TEXT)),
        provenance=provenance,
        text_map=text_map,
    )
