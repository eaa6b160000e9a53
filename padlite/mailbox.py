"""How the events of an answer get from the engine's thread to a reader, in a thread or in an event loop.

Waking a reader costs more than what it does with an event, and where cores are few it costs the engine. So while events
come faster than one in *rest_s* seconds, a reader rests after each look, until these are over, *many* events are there
or the answer has ended, and takes together what has come. Otherwise it waits, and is woken at once. Everything keeps
its order. Knows nothing of what is in the events.
"""

import asyncio
import math
import threading
import time
from collections import deque

from padlite.engine import AHEAD, Over
from padlite.session import Event

REST_S = 0.005  # too short to be seen
MANY = AHEAD - 2  # so that the engine needn't wait while the reader wakes


class _Mailbox:
    """What has come, and whether the reader must be called for it."""

    def __init__(self, rest_s: float, many: int) -> None:
        self._rest_s, self._many = rest_s, many
        self._items: deque[Event | Over] = deque()
        self._taken_at = -math.inf
        self._hurried = False  # events came fast
        self._waits = False  # while it works or rests, it looks by itself

    def _must_call(self, item: Event | Over) -> bool:
        """Keep *item*, and tell whether the reader must be called for it."""
        self._items.append(item)
        return self._waits or len(self._items) >= self._many or isinstance(item, Over)

    def _rest_left_s(self, now: float) -> float:
        return self._taken_at + self._rest_s - now if self._hurried and not self._items else 0.0

    def _all(self, now: float) -> list[Event | Over]:
        self._hurried = len(self._items) > 1 or now - self._taken_at < 1.2 * self._rest_s  # waking takes time too
        self._waits, self._taken_at = False, now
        return [self._items.popleft() for _ in range(len(self._items))]


class ThreadMailbox(_Mailbox):
    """For one reader in a thread of its own."""

    def __init__(self, *, rest_s: float = REST_S, many: int = MANY) -> None:
        super().__init__(rest_s, many)
        self._called = threading.Event()

    def put(self, item: Event | Over) -> None:
        """Hand *item* over."""
        if self._must_call(item):
            self._called.set()

    def take(self) -> list[Event | Over]:
        """Return everything that has come, as soon as there is something."""
        self._called.clear()
        left = self._rest_left_s(time.monotonic())
        if left > 0:
            self._called.wait(left)
        while not self._items:
            self._called.clear()
            self._waits = True
            if not self._items:  # else one came before the flag was up, and nobody calls for it
                self._called.wait()
        return self._all(time.monotonic())


class LoopMailbox(_Mailbox):
    """For one reader in the event loop that is running now."""

    def __init__(self, *, rest_s: float = REST_S, many: int = MANY) -> None:
        super().__init__(rest_s, many)
        self._loop = asyncio.get_running_loop()
        self._called = asyncio.Event()

    def put(self, item: Event | Over) -> None:
        """Hand *item* over, from any thread; RuntimeError if the loop was closed."""
        if self._must_call(item):
            self._waits = False
            self._loop.call_soon_threadsafe(self._called.set)

    async def take(self) -> list[Event | Over]:
        """Return everything that has come, as soon as there is something."""
        self._called.clear()
        left = self._rest_left_s(self._loop.time())
        if left > 0:
            alarm = self._loop.call_later(left, self._called.set)
            try:
                await self._called.wait()
            finally:
                alarm.cancel()
        while not self._items:
            self._called.clear()
            self._waits = True
            if not self._items:
                await self._called.wait()
        return self._all(self._loop.time())
