"""Opens the base model's GGUF for training and judging."""

from pathlib import Path

from padlite.backends.llama import LlamaModel
from padlite.options import EngineOptions


def open_base(path: Path, *, threads: int = 1, sequences: int = 4) -> LlamaModel:
    """Open the GGUF at *path* for training: hidden states on, no GPU."""
    return LlamaModel.open(path, EngineOptions(threads=threads, sequences=sequences, gpu_layers=0))
