"""Random reward heads for any base model, for tests and benchmarks: right in shape and binding, wishing only noise."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx_head import Probe, write_head
from padlite.options import EngineOptions
from padlite.seams import Dimension

PROBE_TEXT = "The probe tells one base model from another."


def write_random_head(
    path: Path, base: Path, *, dimensions: Sequence[str], seed: int, rank: int = 16, spread_nats: float = 0.5
) -> None:
    """Write to *path* a head that belongs to the model *base* and spreads its rewards by about *spread_nats*."""
    with LlamaModel.open(base, EngineOptions(context_length=128, threads=1, gpu_layers=0)) as model:
        probe = Probe(text=PROBE_TEXT, hidden=model.unit_hidden_state(PROBE_TEXT))
        vocabulary_size, hidden_size = model.vocabulary_size, model.hidden_size
        fingerprint = model.tokenizer.sha256
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((vocabulary_size, rank), dtype=np.float32).astype(np.float16)
    maps = rng.standard_normal((len(dimensions), hidden_size, rank), dtype=np.float32)
    maps *= np.float32(spread_nats / np.sqrt(hidden_size * rank))
    write_head(
        path,
        table=table,
        maps=maps,
        dimensions=[Dimension(name=name, description="noise") for name in dimensions],
        tokenizer_sha256=fingerprint,
        probe=probe,
        provenance={"made by": "padlite_training.random_head", "seed": str(seed)},
    )
