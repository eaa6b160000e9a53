"""Files that only their owner may read: private folders, and texts that are replaced whole or not at all.

Raises plain OSError; who calls knows what the file is for and what to advise.
"""

import contextlib
import os
import tempfile
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def make_private_folder(folder: Path) -> None:
    """Create *folder* for its owner alone; one that exists already keeps its rights, and so do the folders above it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Put *text* (UTF-8) into *path*: readers see the old file or the new one, never half of it.

    A new file is private; one that is replaced keeps its mode, and a symbolic link keeps pointing where it did.
    """
    target = path.resolve()
    content = text.encode("utf-8")
    mode = target.stat().st_mode & 0o7777 if target.exists() else FILE_MODE
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
