"""The SQLite file of the store: how it is made, who may read it, its schema, and whether it is ours at all.

Raises sqlite3.Error and OSError as they come (`padlite.store_failures` explains them), and StoreError for a file
that is somebody else's or from a newer padlite. Knows nothing of what a conversation is, but for its tables.
"""

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import cast

from padlite.errors import StoreError
from padlite.private_files import FILE_MODE, make_private_folder

SCHEMA_VERSION = 1
APPLICATION_ID = 0x7061646C  # "padl", so that `file` and we ourselves recognize it
PATIENCE_S = 10.0

_SCHEMA = (
    """CREATE TABLE session (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created REAL NOT NULL, updated REAL NOT NULL,
        model TEXT NOT NULL, profile TEXT NOT NULL, revision INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE message (
        session INTEGER NOT NULL REFERENCES session (id) ON DELETE CASCADE, position INTEGER NOT NULL,
        role TEXT NOT NULL, content TEXT NOT NULL, tokens BLOB NOT NULL, PRIMARY KEY (session, position))""",
)


def open_file(path: Path) -> sqlite3.Connection:
    """Return a connection to the file at *path*, made (private, with its folder) and prepared if need be."""
    _make_file(path)
    connection = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_file(path: Path) -> None:
    """Create the file and its folder, private; SQLite gives its journals the same rights."""
    make_private_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))
    mode = path.stat().st_mode
    if mode & 0o077:
        path.chmod(mode & 0o700)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Set how the file is written, and its schema; refuse a file that is somebody else's or from a newer padlite."""
    _refuse_foreign(connection, path)
    connection.execute("PRAGMA temp_store = MEMORY")  # VACUUM must not copy conversations to a temporary folder
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    if _pragma(connection, "user_version") == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    if _pragma(connection, "user_version") == 0:  # another process may have been faster
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    version = _pragma(connection, "user_version")
    tables = cast("tuple[int]", connection.execute("SELECT count(*) FROM sqlite_master").fetchone())[0]
    if tables and _pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreError(f"{path} is a database of another program", remedy="padlite paths")
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path} was written by a newer padlite", remedy="pip install --upgrade padlite")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on; SQLite doesn't wait by itself when two processes do this at once."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return cast("tuple[int]", connection.execute(f"PRAGMA {name}").fetchone())[0]
