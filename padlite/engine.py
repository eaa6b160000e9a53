"""The one thread that runs a model, and the queue before it: no call is lost, and none ends another.

Whoever wants an answer hands in a `Job`, an iterator of events. The thread advances up to *slots* of them in turns, one
token each; the others wait, fairly: one per client and round. A job that is ahead of its reader pauses, unless
somebody waits. Knows events only as things to deliver; knows no model, no conversation and no text.
"""

import contextlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from padlite.errors import QueueFullError, UsageError
from padlite.session import Event

T = TypeVar("T")
AHEAD = 8  # tokens: enough that the thread never waits for a reader who keeps up


@dataclass(frozen=True, slots=True)
class Over:
    """The last thing a job delivers: it ended, with *error* if it failed."""

    error: BaseException | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """An answer to be decoded: *events* run on the engine's thread, *deliver* gets each of them there, then `Over`.

    *stop* asks for an early end. *client* is who waits, for a fair queue. *ahead* limits how far the thread may run
    ahead of the reader, who counts what it *took*; None is without limit.
    """

    events: Iterator[Event]
    deliver: Callable[[Event | Over], None]
    stop: Callable[[], None]
    client: str = ""
    ahead: int | None = AHEAD
    cancelled: bool = False
    done: bool = False
    delivered: int = 0
    taken: int = 0
    paused: bool = False
    ring: Callable[[], None] = field(default=lambda: None)  # wakes the engine that has the job

    def cancel(self) -> None:
        """Ask for an early end, from any thread, whether it runs or waits."""
        self.cancelled = True
        self.stop()
        self.ring()

    def took(self, count: int = 1) -> None:
        """Note that the reader has taken so many more events."""
        self.taken += count
        if self.paused:
            self.ring()

    def is_ahead(self) -> bool:
        """Tell whether the reader has to catch up first."""
        return self.ahead is not None and self.delivered - self.taken >= self.ahead and not self.cancelled


class Engine:
    """A thread that opens something, runs jobs on it, and closes it; safe to call from any thread.

    *slots* jobs run at the same time, *limit* may wait (None: any number).
    """

    def __init__(self, *, slots: int = 1, limit: int | None = None) -> None:
        self._slots, self._limit = slots, limit
        self._lines: OrderedDict[str, deque[Job]] = OrderedDict()  # who waits, by client; the next in turn first
        self._waiting = 0
        self._running: list[Job] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._cancelled = False  # a job was, perhaps one that waits
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def load(self, resource: contextlib.AbstractContextManager[T]) -> T:
        """Start the thread, enter *resource* on it and return what that gives; it is left when the engine stops."""
        loaded: list[T] = []
        failed: list[BaseException] = []
        ready = threading.Event()

        def run() -> None:
            try:
                with resource as opened:
                    loaded.append(opened)
                    ready.set()
                    self._work()
            except BaseException as error:  # noqa: BLE001 — opening failed: that belongs to who asked for it
                failed.append(error)
            finally:
                ready.set()

        self._thread = threading.Thread(target=run, name="padlite-engine", daemon=True)
        self._thread.start()
        ready.wait()
        if not loaded:
            self._stopping = True
            self._thread.join()
            raise failed[0]
        return loaded[0]

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return self._waiting

    @property
    def stopped(self) -> bool:
        """Whether the engine was stopped."""
        return self._stopping

    def submit(self, job: Job) -> None:
        """Let *job* wait for its turn. Raises QueueFullError, and UsageError after a stop or in a forked process."""
        self.require_usable()
        job.ring = self._ring
        with self._lock:
            if self._stopping:
                raise _closed()
            if self._limit is not None and self._waiting >= self._limit:
                raise QueueFullError(
                    f"{self._waiting} answers are waiting already", remedy="try again when some are finished"
                )
            self._lines.setdefault(job.client, deque()).append(job)
            self._waiting += 1
        self._wake.set()

    def require_usable(self) -> None:
        """Raise UsageError if the engine was stopped, or belongs to the process that this one was forked from."""
        if os.getpid() != self._process:
            raise UsageError(
                "this chat was opened in another process, and its thread stayed there",
                remedy="call padlite.open() after the fork, in the process that chats",
            )
        if self._stopping:
            raise _closed()

    def position(self, job: Job) -> int:
        """Return how many jobs start before *job*, counting itself: 0 once it runs (or ended)."""
        with self._lock:
            line = self._lines.get(job.client, ())
            if job not in line:
                return 0
            before = list(line).index(job)
            clients = list(self._lines)
            own = clients.index(job.client)
            return 1 + before + sum(
                min(len(self._lines[client]), before + (place < own))
                for place, client in enumerate(clients)
                if place != own
            )  # fmt: skip

    def stop(self) -> None:
        """End all jobs and close what was loaded. Safe to call twice, from any thread and in a forked process."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._stopping = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _ring(self) -> None:
        """Wake the thread: a job was cancelled, or its reader has caught up."""
        self._cancelled = True
        self._wake.set()

    # on the engine's thread

    def _work(self) -> None:
        """Run jobs until the engine is stopped; those still running then end early, those waiting are refused."""
        try:
            while not self._stopping:
                if self._cancelled:
                    self._admit_cancelled()
                if self._waiting and len(self._running) < self._slots:
                    self._admit()
                if not self._advance_all():
                    self._wake.wait()
                    self._wake.clear()
            for job in self._running:
                job.cancel()
            while self._advance_all():
                pass
        finally:
            self._refuse_the_rest()

    def _refuse_the_rest(self) -> None:
        """Tell everybody who still waits that the engine was stopped."""
        with self._lock:
            self._stopping = True
            refused = [*self._running, *(job for line in self._lines.values() for job in line)]
            self._lines.clear()
            self._waiting = 0
        for job in refused:
            _finish(job, Over(_closed()))

    def _admit(self) -> None:
        """Let the next waiting job run; its client goes to the end of the round."""
        with self._lock:
            client, line = next(iter(self._lines.items()))
            job = line.popleft()
            del self._lines[client]
            if line:
                self._lines[client] = line
            self._waiting -= 1
        self._running.append(job)

    def _admit_cancelled(self) -> None:
        """Let jobs that were cancelled while they wait end at once, whether there is a slot or not."""
        self._cancelled = False
        with self._lock:
            for client, line in tuple(self._lines.items()):
                ended = [job for job in line if job.cancelled]
                if ended:
                    self._running += ended
                    self._waiting -= len(ended)
                    self._lines[client] = deque(job for job in line if not job.cancelled)
                if not self._lines[client]:
                    del self._lines[client]

    def _advance_all(self) -> bool:
        """Advance every running job by one event; false if none could be."""
        advanced = False
        for job in tuple(self._running):
            if self._holds_back(job):
                continue
            advanced = True
            if job.cancelled:
                job.stop()  # again: an answer that was just beginning may have missed it
            try:
                event = next(job.events)
            except StopIteration:
                self._remove(job, Over())
            except BaseException as error:  # noqa: BLE001 — whatever went wrong belongs to who asked for the answer
                self._remove(job, Over(error))
            else:
                job.delivered += 1
                job.deliver(event)
        return advanced

    def _holds_back(self, job: Job) -> bool:
        """Tell whether *job* has to wait for its reader; not while somebody else waits for the slot."""
        if not job.is_ahead() or self._waiting:
            return False
        job.paused = True
        if not job.is_ahead():  # the reader came in between, and saw no pause
            job.paused = False
            return False
        return True

    def _remove(self, job: Job, over: Over) -> None:
        self._running.remove(job)
        _finish(job, over)


def _finish(job: Job, over: Over) -> None:
    job.done = True
    job.deliver(over)


def _closed() -> UsageError:
    return UsageError("this chat is closed", remedy="open it again: padlite.open(…)")
