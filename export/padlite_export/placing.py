"""Files that are made beside where they will be, and appear under their final name when they are whole and proved.

Whoever is stopped, runs out of disk or fails leaves nothing under the final name but what was there before. What a
killed process leaves behind is removed by the next one with the same target. Knows nothing of what is in the files.
"""

import contextlib
import os
import shutil
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
        raise UsageError(f"{out} is a folder", remedy="name a file with --out")
    try:
        with _working_folder(out) as folder:
            made = folder / out.name
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


@contextlib.contextmanager
def _working_folder(out: Path) -> Iterator[Path]:
    """Give a new hidden folder beside *out*, locked as long as this process lives; older ones without a lock go."""
    prefix = f".{out.name}.padlite-"
    _remove_leftovers(out.parent, prefix)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=out.parent)))
        lock = _lock(folder, wait=True)
        if lock is not None:
            stack.callback(os.close, lock)
        yield folder


def _remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove the folders in *folder* whose names begin with *prefix* and that no process holds any more."""
    for path in [each for each in folder.iterdir() if each.name.startswith(prefix) and each.is_dir()]:
        lock = _lock(path, wait=False)
        if lock is None:
            continue
        if any(path.iterdir()):  # an empty one may be so new that it isn't locked yet
            shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """Return a descriptor that locks *folder* until it is closed or its process is gone; None if that can't be had."""
    try:
        import fcntl
    except ImportError:  # Windows: nothing is locked, so nothing is taken for a leftover
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held by another, or a file system without locks
        os.close(descriptor)
        return None
    return descriptor


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
