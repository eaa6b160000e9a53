"""Opens the file of a reward model, whichever kind it says it is. Knows neither how they run nor what they are for."""

from pathlib import Path

from padlite.backends import preflight
from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_head_reader import read_head
from padlite.backends.onnx_lm import OnnxLm

DEFAULT_CONTEXT = 8192
"""Tokens that a reward LM has room for unless told otherwise, as for a base model."""


def has_text_map(path: Path) -> bool:
    """Tell whether the reward model at *path* can turn text into weights. Raises as `open_reward` does."""
    return preflight.kind_of(path) == "head" and read_head(preflight.inspect(path, kind="head")).text_map is not None


def open_reward(path: Path, *, device: str = "auto", context_length: int = 0, threads: int = 1) -> OnnxHead | OnnxLm:
    """Open the reward model at *path*; a reward LM with room for *context_length* tokens (0: `DEFAULT_CONTEXT`).

    Raises NotFoundError, BackendError (unsafe, damaged or no reward model; no CUDA), UsageError (unknown device).
    """
    if preflight.kind_of(path) == "lm":
        return OnnxLm.open(path, device=device, context_length=context_length or DEFAULT_CONTEXT, threads=threads)
    return OnnxHead.open(path, device=device)
