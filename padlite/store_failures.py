"""What SQLite's and the file system's errors mean for a person whose conversations are to be kept."""

import contextlib
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from padlite.errors import StoreError

_SPACE = "df -h"


@contextlib.contextmanager
def storage_failures(path: Path) -> Iterator[None]:
    """Turn failures to use the file *path* into StoreError with the reason and a remedy. Nothing is ever deleted."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(error, path) from error
    except (FileExistsError, NotADirectoryError) as error:
        message = f"can't keep conversations in {path}: a file stands where a folder is needed"
        raise StoreError(message, remedy="padlite paths") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"can't keep conversations in {path}: {reason.lower()}", remedy=_look_at(path)) from error


def _explained(error: sqlite3.Error, path: Path) -> StoreError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    quoted = shlex.quote(str(path))
    aside = f"mv {quoted} {shlex.quote(str(path) + '.damaged')}"
    broken = (
        f"{path} is damaged or no database; padlite leaves it as it is",
        f"{aside}   (the next chat makes a new one; sqlite3's .recover may save the old one)",
    )
    explanations = {
        sqlite3.SQLITE_NOTADB: broken,
        sqlite3.SQLITE_CORRUPT: broken,
        sqlite3.SQLITE_FULL: (f"can't write {path}: the disk is full", _SPACE),
        sqlite3.SQLITE_READONLY: (f"can't write {path}: it is read-only", _look_at(path)),
        sqlite3.SQLITE_CANTOPEN: (f"can't open {path} or its journal beside it", _look_at(path)),
        sqlite3.SQLITE_BUSY: (
            f"another padlite has kept {path} locked for too long",
            "close the other one",
        ),
        sqlite3.SQLITE_IOERR: (f"can't read or write {path}: the disk is full or failing", _SPACE),
    }
    message, remedy = explanations.get(code, (f"can't use {path}: {error}", "padlite doctor"))
    return StoreError(message, remedy=remedy)


def _look_at(path: Path) -> str:
    return f"ls -ld {shlex.quote(str(path.parent))} {shlex.quote(str(path))}"
