"""Which head a person made for a bare GGUF file: kept in their data folder, found by what the file holds.

Knows neither what a head is nor how one is made.
"""

import hashlib
from pathlib import Path

from padlite.errors import NotFoundError
from padlite.settings import Paths

_SAMPLE = 2**20


def own_head(base: Path, paths: Paths) -> Path | None:
    """Return the newest head that the person made for the GGUF file *base*, or None."""
    if not paths.heads.is_dir() or not base.is_file():
        return None
    heads = sorted(head_folder(base, paths).glob("reward-*.onnx"))
    return heads[-1] if heads else None


def head_folder(base: Path, paths: Paths) -> Path:
    """Return where heads for the GGUF file *base* belong, whether there are any or not."""
    return paths.heads / fingerprint(base)


def fingerprint(base: Path) -> str:
    """Return what tells the file *base* from others: a hash of its size, first and last MiB, quick for any size.

    Metadata and tokenizer are at a GGUF's beginning. Whether a head really fits is checked when it is opened.
    """
    try:
        size = base.stat().st_size
        with base.open("rb") as file:
            digest = hashlib.sha256(b"%d\0" % size + file.read(_SAMPLE))
            file.seek(max(0, size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    except OSError as error:
        raise NotFoundError(f"can't read {base}: {error.strerror}", remedy="check the path") from error
    return digest.hexdigest()[:24]
