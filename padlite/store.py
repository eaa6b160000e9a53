"""Kept conversations, in one SQLite file that only its owner may read.

A turn is on disk (WAL, synchronous=FULL) when `append` returns, so a process that is killed loses no finished turn.
Any number of processes may use the file at once; two that write the same conversation are told (`StoreConflict`).
What is removed is gone from the file and its journal, not only from view. One store belongs to one thread. Positions
count messages from 0. Knows nothing of models, profiles or the terminal.
"""

import contextlib
import json
import shlex
import sqlite3
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias, cast

from padlite.errors import NotFoundError, StoreError, did_you_mean
from padlite.naming import check_name
from padlite.store_failures import storage_failures
from padlite.store_file import open_file

LONGEST_TITLE = 60
ExportFormat: TypeAlias = Literal["json", "markdown"]

_INFO = """
    SELECT name, created, updated, model, profile,
        (SELECT count(*) FROM message WHERE session = id),
        (SELECT content FROM message WHERE session = id AND role = 'user' ORDER BY position LIMIT 1)
    FROM session"""


class StoreConflict(StoreError):
    """Somebody else has this name, or changed this conversation since this store last read or wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """One message; *tokens* are the ids of an answer as they were generated, for an exact continuation."""

    role: str
    content: str
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A conversation without its messages; times are seconds since the epoch, *title* is how it began."""

    name: str
    created: float
    updated: float
    model: str
    profile: str
    messages: int
    title: str


class SessionStore:
    """The conversations in one file; a context manager. Every method raises StoreError when the file can't be used."""

    def __init__(self, path: Path, connection: sqlite3.Connection, clock: Callable[[], float]) -> None:
        self._path = path
        self._connection = connection
        self._clock = clock
        self._seen: dict[str, int] = {}  # the revision of each conversation that this store last read or wrote

    @classmethod
    def open(cls, path: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Open the file at *path*, or create it (private) with its folder."""
        with storage_failures(path):
            connection = open_file(path)
        return cls(path, connection, clock)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._path

    # writing

    def create(self, name: str | None, model: str, profile: str) -> str:
        """Begin a conversation and return its name; None names it after the day. StoreConflict if the name is taken."""
        if name is not None:
            check_name(name, kind="session")
        now = self._clock()
        with self._writing():
            taken = self._names()
            if name in taken:
                raise StoreConflict(f"there is already a session {name!r}", remedy=_open_again(name))
            chosen = name or _name_after_the_day(now, taken)
            self._connection.execute(
                "INSERT INTO session (name, created, updated, model, profile) VALUES (?, ?, ?, ?, ?)",
                (chosen, now, now, _storable(model), _storable(profile)),
            )
        self._seen[chosen] = 0
        return chosen

    def append(self, name: str, *, position: int, messages: Sequence[StoredMessage]) -> None:
        """Add *messages* to a conversation that holds *position* messages, all of them or none.

        Raises StoreConflict if it holds another number or was changed or removed by somebody else.
        """
        with self._changing(name) as session:
            held = self._count(session)
            if held != position:
                raise _conflict(name, f"it holds {held} messages, not {position}")
            self._connection.executemany(
                "INSERT INTO message (session, position, role, content, tokens) VALUES (?, ?, ?, ?, ?)",
                [
                    (session, position + offset, message.role, _storable(message.content), _packed(message.tokens))
                    for offset, message in enumerate(messages)
                ],
            )

    def truncate(self, name: str, position: int) -> None:
        """Forget the messages from *position* on (undo, regenerate). Raises StoreConflict as `append` does."""
        with self._changing(name) as session:
            self._connection.execute("DELETE FROM message WHERE session = ? AND position >= ?", (session, position))

    def remove(self, name: str) -> None:
        """Forget a conversation for good. Raises NotFoundError."""
        with self._writing():
            self._connection.execute("DELETE FROM session WHERE id = ?", (self._id(name),))
        self._seen.pop(name, None)
        self._leave_no_trace()

    def remove_all(self) -> int:
        """Forget every conversation for good and return how many there were."""
        with self._writing():
            count = len(self._names())
            self._connection.execute("DELETE FROM session")
        self._seen.clear()
        self._leave_no_trace()
        return count

    # reading

    def messages(self, name: str) -> tuple[StoredMessage, ...]:
        """Return the messages of a conversation in order. Raises NotFoundError."""
        with self._reading():
            session = self._id(name)
            self._seen[name] = self._revision(session)
            rows = self._connection.execute(
                "SELECT role, content, tokens FROM message WHERE session = ? ORDER BY position", (session,)
            ).fetchall()
        return tuple(
            StoredMessage(role=role, content=content, tokens=_unpacked(tokens))
            for role, content, tokens in cast("list[tuple[str, str, bytes]]", rows)
        )

    def info(self, name: str) -> SessionInfo:
        """Return what is known of a conversation. Raises NotFoundError."""
        with self._reading():
            self._id(name)
            return self._infos("WHERE name = ?", name)[0]

    def list(self) -> tuple[SessionInfo, ...]:
        """Return all conversations, the one that was changed last first."""
        with self._reading():
            return self._infos("ORDER BY updated DESC, id DESC")

    def latest(self) -> SessionInfo | None:
        """Return the conversation that was changed last and isn't empty, or None."""
        return next((info for info in self.list() if info.messages), None)

    def export(self, name: str, export_format: ExportFormat) -> str:
        """Return a conversation as text: everything as JSON, or as Markdown for reading. Raises NotFoundError."""
        info, messages = self.info(name), self.messages(name)
        return _as_json(info, messages) if export_format == "json" else _as_markdown(info, messages)

    # inside

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Read one state of the file, whoever writes meanwhile."""
        with storage_failures(self._path), self._transaction("BEGIN"):
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Write all or nothing, one process at a time."""
        with storage_failures(self._path), self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[int]:
        """Yield the id of a conversation that nobody else has changed, and count this change."""
        with self._writing():
            session = self._find(name)
            if session is None:
                raise _conflict(name, "it was removed")
            revision = self._revision(session)
            if self._seen.get(name, revision) != revision:
                raise _conflict(name, "somebody else wrote to it")
            yield session
            self._connection.execute(
                "UPDATE session SET revision = ?, updated = ? WHERE id = ?", (revision + 1, self._clock(), session)
            )
        self._seen[name] = revision + 1

    def _number(self, query: str, *values: str | int) -> int | None:
        row = cast("tuple[int] | None", self._connection.execute(query, values).fetchone())
        return row[0] if row else None

    def _find(self, name: str) -> int | None:
        return self._number("SELECT id FROM session WHERE name = ?", _storable(name))

    def _id(self, name: str) -> int:
        session = self._find(name)
        if session is None:
            meant = did_you_mean(name, self._names())
            raise NotFoundError(f"there is no session {name!r}{meant}", remedy="padlite sessions list")
        return session

    def _revision(self, session: int) -> int:
        return self._number("SELECT revision FROM session WHERE id = ?", session) or 0

    def _count(self, session: int) -> int:
        return self._number("SELECT count(*) FROM message WHERE session = ?", session) or 0

    def _names(self) -> tuple[str, ...]:
        rows = cast("list[tuple[str]]", self._connection.execute("SELECT name FROM session").fetchall())
        return tuple(name for (name,) in rows)

    def _infos(self, clauses: str, *values: str) -> tuple[SessionInfo, ...]:
        rows = cast(
            "list[tuple[str, float, float, str, str, int, str | None]]",
            self._connection.execute(f"{_INFO} {clauses}", values).fetchall(),
        )
        return tuple(
            SessionInfo(
                name=name, created=created, updated=updated, model=model, profile=profile, messages=count,
                title=_title(beginning or ""),
            )
            for name, created, updated, model, profile, count, beginning in rows
        )  # fmt: skip

    def _leave_no_trace(self) -> None:
        """Rewrite the file without what was deleted, and empty the journal that still holds it."""
        with storage_failures(self._path):
            self._connection.execute("VACUUM")
            busy = self._number("PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            raise StoreError(
                "removed, but the journal still holds the text because another padlite is reading it",
                remedy="close the other chat, then: padlite sessions list",
            )


def _conflict(name: str, reason: str) -> StoreConflict:
    return StoreConflict(f"session {name!r} was changed elsewhere: {reason}", remedy=_open_again(name))


def _open_again(name: str) -> str:
    return f"padlite chat --session {shlex.quote(name)}"


def _name_after_the_day(now: float, taken: Sequence[str]) -> str:
    """Return the first free of 2026-01-31, 2026-01-31-2, …"""
    day = datetime.fromtimestamp(now).astimezone().date().isoformat()
    number = 1
    while (name := day if number == 1 else f"{day}-{number}") in taken:
        number += 1
    return name


def _storable(text: str) -> str:
    """Return *text* as SQLite can keep it: halves of a character that belong together nowhere become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _packed(tokens: Sequence[int]) -> bytes:
    return array("q", tokens).tobytes()


def _unpacked(blob: bytes) -> tuple[int, ...]:
    tokens = array("q")
    tokens.frombytes(blob)
    return tuple(tokens)


def _title(beginning: str) -> str:
    line = " ".join(beginning.split())
    return line if len(line) <= LONGEST_TITLE else f"{line[: LONGEST_TITLE - 1].rstrip()}…"


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def _as_json(info: SessionInfo, messages: Sequence[StoredMessage]) -> str:
    record = {
        "name": info.name,
        "model": info.model,
        "profile": info.profile,
        "created": _iso(info.created),
        "updated": _iso(info.updated),
        "messages": [{"role": message.role, "content": message.content} for message in messages],
    }
    return json.dumps(record, ensure_ascii=False, indent=2) + "\n"


def _as_markdown(info: SessionInfo, messages: Sequence[StoredMessage]) -> str:
    speakers = {"user": "You", "assistant": "padlite", "system": "System"}
    heading = f"# {info.title or info.name}\n\n*{_iso(info.created)}, {info.model}*\n"
    turns = [f"\n## {speakers.get(message.role, message.role)}\n\n{message.content.strip()}\n" for message in messages]
    return heading + "".join(turns)
