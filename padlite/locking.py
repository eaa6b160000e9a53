"""Files that one process at a time holds, so that nobody else changes meanwhile what they stand for.

The system takes the lock back when the process ends, however it ends; the file that is left then locks nobody out.
Raises plain OSError; who calls knows what is locked and what to advise.
"""

import contextlib
import errno
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_MODE = 0o600
_LOOK_AGAIN_S = 0.05
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(path: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the file *path*, which is made for that and removed afterwards.

    Raises BlockingIOError if somebody else, in this process or another, still holds it after *wait_s*. On a file system
    that knows no locks (some network folders) everybody gets it, with a warning in the log.
    """
    descriptor = _taken(path, until=time.monotonic() + wait_s)
    try:
        yield
    finally:
        _give_back(path, descriptor)


def _taken(path: Path, *, until: float) -> int:
    """Return the descriptor of *path*, locked; its holder before may have removed the file that was just opened."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, _MODE)
        locked = False
        try:
            locked = _lock(descriptor)
            if locked and os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not locked:
            if time.monotonic() >= until:
                raise BlockingIOError(errno.EAGAIN, "somebody else holds it", str(path))
            time.sleep(_LOOK_AGAIN_S)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _give_back(path: Path, descriptor: int) -> None:
        os.close(descriptor)  # an open file can't be removed here, and one that somebody else holds shall not be
        with contextlib.suppress(OSError):
            path.unlink()

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _log.warning("the file system knows no locks: %s", error.strerror)
        return True

    def _give_back(path: Path, descriptor: int) -> None:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held: who waits for this file sees that it is gone, and makes another
        os.close(descriptor)
