"""Files that are made beside where they will be, and appear under their final name when they are whole and proved.

Whoever is stopped, runs out of disk or fails leaves nothing under the final name but what was there before. Knows
nothing of what is in the files.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from padlite.errors import BackendError, UsageError

_COMPANIONS = (".data", ".tokenizer.json")


@contextlib.contextmanager
def placing(out: Path) -> Iterator[Path]:
    """Give a path called like *out* in a hidden folder beside it; when the body ends well, the file moves to *out*.

    Its data and its tokenizer (`NAME.data`, `NAME.tokenizer.json`) move with it. Raises UsageError if there is no
    folder to write into, PadliteError when writing fails: a full disk, missing rights.
    """
    if out.is_dir():
        raise UsageError(f"{out} is a folder", remedy="name a file with --out, such as reward.onnx")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
            made = Path(folder) / out.name
            yield made
            _move(made, out)
    except FileNotFoundError as error:
        if out.parent.is_dir():
            raise
        raise UsageError(f"{out.parent} is no folder", remedy=f"mkdir -p {out.parent}") from error
    except (OSError, SafetensorError) as error:
        raise BackendError(
            f"{out} can't be written: {_reason(error)}",
            remedy="make room, check the folder's rights, or choose another --out",
        ) from error


def _move(made: Path, out: Path) -> None:
    """Put graph and companions in place. An old graph goes first: it must never stand beside another one's data."""
    companions = {made.with_name(made.name + end): out.with_name(out.name + end) for end in _COMPANIONS}
    new = {path: target for path, target in companions.items() if path.exists()}
    for path in (*new, made):
        if path.exists():
            _settle(path)
    if new:
        out.unlink(missing_ok=True)
    for path, target in new.items():
        path.chmod(made.stat().st_mode)  # onnx makes the data for its owner alone, whatever the umask says
        path.replace(target)
    made.replace(out)
    for path, target in companions.items():
        if path not in new:
            target.unlink(missing_ok=True)


def _settle(path: Path) -> None:
    """Wait until *path* is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
