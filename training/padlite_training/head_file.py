"""From a fitted head to `reward.onnx`: the table of u_a, the maps, and what ties them to the base model."""

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx_head import Probe, write_head
from padlite.seams import Dimension, FloatArray
from padlite_training.distill import Head
from padlite_training.styles import DESCRIPTIONS, STYLES

PROBE_TEXT = "Hello there! How are you doing today? I would like to talk about films and music."


def output_table(path: Path) -> FloatArray:
    """Return the output table (V, d) of the GGUF at *path* as llama.cpp uses it, that is after quantization."""
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "token_embd.weight")
    return np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)


def write_reward(path: Path, head: Head, *, table: FloatArray, base: LlamaModel, provenance: Mapping[str, str]) -> None:
    """Write *head* for *base*, whose output table is *table* (V, d), to *path*.

    The numbers are balanced between table and maps first, so that float16 serves the table well.
    """
    words = table @ head.projection
    size = float(np.abs(words).max()) / 8.0
    dimensions = [
        Dimension(name=style, description=DESCRIPTIONS[style], scale=float(scale))
        for style, scale in zip(STYLES, head.scales, strict=True)
    ]
    write_head(
        path,
        table=(words / size).astype(np.float16),
        maps=np.ascontiguousarray(head.maps * np.float32(size)),
        dimensions=dimensions,
        tokenizer_sha256=base.tokenizer.sha256,
        probe=Probe(text=PROBE_TEXT, hidden=base.unit_hidden_state(PROBE_TEXT)),
        provenance=provenance,
    )
