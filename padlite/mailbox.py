"""How the events of an answer get from the engine's thread to a reader, in a thread or in an event loop.

Both boxes keep everything in order and wake a reader only when it waits, so that handing over costs a token next to
nothing. Knows nothing of what is in the events.
"""

import asyncio
from collections import deque
from queue import SimpleQueue

from padlite.engine import Over
from padlite.session import Event


class ThreadMailbox:
    """For one reader in a thread of its own."""

    def __init__(self) -> None:
        self._items: SimpleQueue[Event | Over] = SimpleQueue()

    def put(self, item: Event | Over) -> None:
        """Hand *item* over."""
        self._items.put(item)

    def get(self) -> Event | Over:
        """Return the next item as soon as there is one."""
        return self._items.get()


class LoopMailbox:
    """For one reader in the event loop that is running now."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: deque[Event | Over] = deque()
        self._ready = asyncio.Event()
        self._called = False  # the reader was called and has not slept since

    def put(self, item: Event | Over) -> None:
        """Hand *item* over, from any thread; RuntimeError if the loop was closed."""
        self._items.append(item)
        if not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._ready.set)

    async def get(self) -> Event | Over:
        """Return the next item as soon as there is one."""
        while not self._items:
            self._ready.clear()
            self._called = False
            if not self._items:  # else one came before the flag was down, and nobody calls for it
                await self._ready.wait()
        return self._items.popleft()

    def ready(self) -> bool:
        """Tell whether `get` would return at once."""
        return bool(self._items)
