"""Model artefacts that are written whole or not at all. Raises plain OSError; knows nothing of what is in them."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Put *content* into *path*, complete on disk under another name first; the umask decides who may read it."""
    write_beside(path, content).replace(path)


def write_beside(path: Path, content: bytes) -> Path:
    """Put *content* into a file beside *path*, complete on disk, and return that file, which is to replace *path*."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return partial
