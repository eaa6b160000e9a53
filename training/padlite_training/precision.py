"""Where to train, and which number type multiplies matrices fastest there: bfloat16 where the hardware has it."""

import contextlib
import functools

import torch

from padlite.errors import UsageError


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called *name*: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is a GPU.

    Raises UsageError when CUDA is asked for and can't be had.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("PyTorch finds no CUDA GPU on this machine", remedy="use --device cpu, or --device auto")
    return torch.device(name)


@functools.cache
def fast_type(device: str) -> torch.dtype:
    """Return the type to train in on a kind of *device*; weights and optimizer states stay in float32 either way."""
    if device == "cuda":
        return torch.bfloat16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def mixed_precision(device: str) -> contextlib.AbstractContextManager[object]:
    """Return a context in which PyTorch multiplies matrices in `fast_type` on *device*."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=fast_type(device) is torch.bfloat16)
