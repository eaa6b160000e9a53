"""Where to train, and which number type multiplies matrices fastest there: bfloat16 where the hardware has it."""

import contextlib
import functools

import torch

from padlite.errors import UsageError


def require_device(name: str) -> str:
    """Return *name*, 'cpu' or 'cuda' ('auto' takes CUDA where there is one); UsageError if it isn't there."""
    available = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if available else "cpu"
    if name == "cuda" and not available:
        raise UsageError(
            "no GPU was found that PyTorch can use", remedy="use --device cpu, or install PyTorch with CUDA"
        )
    return name


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
