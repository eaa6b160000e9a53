"""How many weights a checkpoint has, and whether there is room on the disk and in memory for what is made of them.

Looks into the files without loading them; sizes in bytes. Knows nothing of GGUF or ONNX.
"""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
from safetensors import SafetensorError, safe_open

from padlite.errors import BackendError, UsageError
from padlite.installing import require_room
from padlite_export.checkpoint import first_line, pickles_of, weights_of

_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """At most how many there are in a checkpoint, what they take at least in float32, and whether any is bf16."""

    count: int
    float32_bytes: int
    bf16: bool


def read_weights(source: Path) -> Weights:
    """Return what the checkpoint's files say; pickled ones only by their size: no weight takes under 2 or over 4 bytes.

    Raises BackendError for a file that can't be read.
    """
    files = weights_of(source)
    if not files:
        sizes = {path: path.stat().st_size for path in pickles_of(source)}
        read = sum(size for path, size in sizes.items() if path.name.startswith("pytorch_model"))
        return Weights(count=sum(sizes.values()) // 2, float32_bytes=read, bf16=False)
    count, bf16 = 0, False
    for path in files:
        try:
            with safe_open(path, framework="np") as file:
                for key in file.keys():  # noqa: SIM118  no mapping
                    tensor = file.get_slice(key)
                    count += math.prod(tensor.get_shape())
                    bf16 |= tensor.get_dtype() == "BF16"
        except (SafetensorError, OSError) as error:
            raise BackendError(f"{path} can't be read: {first_line(error)}", remedy="copy it again") from error
    return Weights(count=count, float32_bytes=_FLOAT32_BYTES * count, bf16=bf16)


def require_space(folder: Path, needed: int) -> None:
    """Raise BackendError unless *folder* has room for *needed* bytes, UsageError if there is no such folder."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", remedy=f"mkdir -p {folder}")
    require_room(folder, needed, free=shutil.disk_usage(folder).free)


def require_memory(weights: Weights) -> None:
    """Raise BackendError if *weights* can't be held in float32, for comparing, even when memory is swapped out."""
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    if free < weights.float32_bytes:
        raise BackendError(
            f"comparing the export with its source takes {weights.float32_bytes / 1e9:.1f} GB of memory, 4 bytes for "
            f"each weight, and {free / 1e9:.1f} GB are free",
            remedy="close other programs, add swap, or export it on a computer with more memory",
        )
