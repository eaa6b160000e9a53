"""Opens the base model's GGUF for training and judging."""

from pathlib import Path

from padlite.backends.llama import LlamaModel
from padlite.options import EngineOptions


def open_base(path: Path, *, threads: int = 1, sequences: int = 4, context_length: int = 0) -> LlamaModel:
    """Open the GGUF at *path* for training: hidden states on, no GPU; *context_length* is shared by all sequences."""
    options = EngineOptions(threads=threads, sequences=sequences, context_length=context_length, gpu_layers=0)
    return LlamaModel.open(path, options)
