"""Which number type a processor multiplies matrices fastest in: bfloat16 if it has instructions for it, or float32."""

import contextlib
import functools

import torch


@functools.cache
def fast_type() -> torch.dtype:
    """Return the type to train in; weights and optimizer states stay in float32 either way."""
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def mixed_precision() -> contextlib.AbstractContextManager[object]:
    """Return a context in which PyTorch multiplies matrices in `fast_type`."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast_type() is torch.bfloat16)
