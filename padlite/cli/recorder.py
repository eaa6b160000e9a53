"""Keeps a conversation in the store while it is being held: what was said is on disk before the prompt returns.

Never raises: a store that fails (read-only folder, full disk) is reported once and tried again with the next turn, and
a conversation that somebody else continued meanwhile goes on under a new name. Knows messages, not sessions.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

from padlite.errors import PadliteError, StoreError
from padlite.store import SessionInfo, StoreConflict, StoredMessage
from padlite.template import Message


class TurnStore(Protocol):
    """What is needed of `padlite.store.SessionStore`."""

    def create(self, name: str | None, model: str, profile: str) -> str: ...  # noqa: D102
    def append(self, name: str, *, position: int, messages: Sequence[StoredMessage]) -> None: ...  # noqa: D102
    def truncate(self, name: str, position: int) -> None: ...  # noqa: D102
    def list(self) -> Sequence[SessionInfo]: ...  # noqa: D102


class Recorder:
    """Writes one conversation at a time to *store* (None: nothing is kept).

    *name* is what the session shall be called, or None for one that the store chooses; it is created with its first
    message. *notify* gets one line for the person when something couldn't be done as asked.
    """

    def __init__(
        self,
        store: TurnStore | None,
        *,
        model: str,
        profile: str,
        notify: Callable[[str], None],
        name: str | None = None,
    ) -> None:
        self._store = store
        self._model, self._profile = model, profile
        self._notify = notify
        self._wanted = name
        self._name: str | None = None  # as it is in the store
        self._kept: list[StoredMessage] = []  # what the store holds
        self._older: list[StoredMessage] = []  # said, but dropped from the context
        self._failing = False

    @property
    def keeping(self) -> bool:
        """Whether there is a store to write to."""
        return self._store is not None

    @property
    def name(self) -> str | None:
        """The session's name, if it has one."""
        return self._name or self._wanted

    def resume(self, name: str, messages: Sequence[StoredMessage]) -> None:
        """Go on writing to the session *name*, which holds *messages*."""
        self._name = self._wanted = name
        self._kept, self._older = list(messages), []

    def start_new(self, name: str | None = None) -> None:
        """Write what comes from now on to a new session; what was written stays."""
        self._name, self._wanted = None, name
        self._kept, self._older = [], []

    def branch(self, name: str, messages: Sequence[Message]) -> None:
        """Write the whole conversation to a new session *name* and go on there.

        Raises StoreError, StoreConflict if the name is taken.
        """
        if self._store is None:
            raise StoreError("this chat doesn't keep conversations", remedy="/save FILE.md writes it to a file")
        whole = [*self._older, *map(_stored, messages)]
        created = self._store.create(name, self._model, self._profile)
        self._store.append(created, position=0, messages=whole)
        self._name = self._wanted = created
        self._kept = whole

    def dropped(self, turns: int) -> None:
        """Say that the oldest *turns* left the context: they stay in the store."""
        rest = self._kept[len(self._older) :]
        starts = [at for at, message in enumerate(rest) if message.role == "user"]
        cut = starts[turns] if turns < len(starts) else len(rest)
        self._older += rest[:cut]

    def record_beginning(self, messages: Sequence[Message]) -> None:
        """Record *messages*, but only if that takes nothing away: an answer that is being replaced stays until then."""
        whole = [*self._older, *map(_stored, messages)]
        if whole[: len(self._kept)] == self._kept:
            self.record(messages)

    def record(self, messages: Sequence[Message]) -> None:
        """Make the store hold *messages* (after what was dropped from the context)."""
        if self._store is None:
            return
        whole = [*self._older, *map(_stored, messages)]
        if whole == self._kept:
            return
        try:
            self._write(self._store, whole)
        except StoreConflict:
            self._go_on_elsewhere(self._store, whole)
        except StoreError as error:
            self._failed(error)
        else:
            if self._failing:
                self._notify("The conversation is being saved again.")
            self._failing = False

    def _write(self, store: TurnStore, whole: list[StoredMessage]) -> None:
        if self._name is None:
            self._name = store.create(self._wanted, self._model, self._profile)
        same = _shared(self._kept, whole)
        if same < len(self._kept):
            store.truncate(self._name, same)
            self._kept = whole[:same]
        if same < len(whole):
            store.append(self._name, position=same, messages=whole[same:])
        self._kept = whole

    def _go_on_elsewhere(self, store: TurnStore, whole: list[StoredMessage]) -> None:
        """Write *whole* to a new session NAME-2 (or -3 …), because NAME was continued by somebody else."""
        old = self._name or self._wanted or "session"
        try:
            taken = {info.name for info in store.list()}
            new = next(name for n in itertools.count(2) if (name := f"{old}-{n}") not in taken)
            self._name, self._wanted, self._kept = None, new, []
            self._write(store, whole)
        except PadliteError as error:  # also a name that is too long now
            self._failed(error)
        else:
            self._notify(f"Session {old!r} was continued elsewhere; this one goes on as {self._name!r}, complete.")

    def _failed(self, error: PadliteError) -> None:
        if not self._failing:
            self._notify(f"The conversation can't be saved: {error.message}. The chat goes on.")
        self._failing = True


def restored(messages: Sequence[StoredMessage]) -> list[Message]:
    """Return stored *messages* as a session takes them."""
    return [Message(role=m.role, content=m.content, tokens=tuple(m.tokens)) for m in messages]


def _stored(message: Message) -> StoredMessage:
    return StoredMessage(role=message.role, content=message.content, tokens=message.tokens)


def _shared(a: Sequence[StoredMessage], b: Sequence[StoredMessage]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
