"""Listening: the socket, signals, and an end that lets answers finish. The only module that knows uvicorn.

The first SIGTERM or SIGINT takes no new requests and lets answers finish for a while; then, or at a second signal, they
are told that the server stopped. Either way the run ends with exit code 0.
"""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from typing import cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from padlite.errors import PadliteError, UsageError
from padlite.server.app import Server
from padlite.server.failures import ApiError

LONGEST_HEADERS = 64 * 2**10  # bytes
HEADERS_WITHIN_S = 20.0
LONGEST_STALL_S = 60.0  # a client that takes nothing for so long, with data waiting for it, has left
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises UsageError for a port in use or an address that isn't this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen(128)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} is in use already", remedy=f"padlite serve --port {port + 1}") from error
        reason = error.strerror or "unknown address"
        raise UsageError(
            f"can't listen on {host}, port {port}: {reason}", remedy="padlite serve --port 8080"
        ) from error
    return listening


def run(server: Server, listening: socket.socket, *, grace_s: float, ready: Callable[[], None]) -> None:
    """Serve until a signal comes; *ready* is called when answers can be had.

    Raises what the first model's loading raised.
    """
    asyncio.run(_serve(server, listening, grace_s, ready))
    for failure in server.failure:
        if isinstance(failure, PadliteError):
            raise failure
        raise PadliteError("the model can't be loaded", remedy="padlite doctor") from failure


async def _serve(server: Server, listening: socket.socket, grace_s: float, ready: Callable[[], None]) -> None:
    config = uvicorn.Config(
        server.app, http=_Protocol, ws="none", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_keep_alive=30, timeout_graceful_shutdown=int(grace_s) + 5,
    )  # fmt: skip
    running = _Uvicorn(config)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if running.should_exit:
            server.completions.stop()
            return
        running.should_exit = True
        loop.call_later(grace_s, server.completions.stop)

    for number in _SIGNALS:
        with contextlib.suppress(NotImplementedError, ValueError):
            loop.add_signal_handler(number, stop)
    watching = asyncio.create_task(_watch(server, running, ready))
    try:
        await running.serve(sockets=[listening])
    finally:
        watching.cancel()


async def _watch(server: Server, running: uvicorn.Server, ready: Callable[[], None]) -> None:
    """Say when the first model is loaded, or end if it can't be."""
    while not server.shelf.ready:
        if server.failure:
            running.should_exit = True
            return
        await asyncio.sleep(0.02)
    ready()


class _Uvicorn(uvicorn.Server):
    """uvicorn without its own signals, which would end the process with the signal's exit code."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `_serve`."""
        yield


class _Protocol(HttpToolsProtocol):
    """HTTP that gives up on headers that are too long or don't come, and says so in OpenAI's shape.

    And on clients that don't take what they asked for: to the application they have left.
    """

    _received = 0
    _complete = False
    _hurry: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give a new client some time to say what it wants."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._hurry = self.loop.call_later(HEADERS_WITHIN_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clocks."""
        self._stop_the_clock()
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give a client that is behind some time to read."""
        super().pause_writing()
        self._stalled = self.loop.call_later(LONGEST_STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Take note that it has read."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def data_received(self, data: bytes) -> None:
        """Count bytes as long as they are headers."""
        if not self._complete:
            self._received += len(data)
        super().data_received(data)
        if not self._complete and self._received > LONGEST_HEADERS:
            self._refuse(ApiError(431, "the headers are too long", code="headers_too_long"))

    def on_message_begin(self) -> None:
        """Start counting the headers of a request."""
        super().on_message_begin()
        self._complete = False

    def on_headers_complete(self) -> None:
        """Stop counting."""
        self._stop_the_clock()
        self._complete, self._received = True, 0
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP."""
        self._refuse(ApiError(400, "this is not a valid HTTP request", code="invalid_http"))

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self._refuse(ApiError(408, "the request didn't arrive in time", code="headers_timeout"))

    def _stop_the_clock(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None

    def _refuse(self, error: ApiError) -> None:
        if self.transport.is_closing():
            return
        body = bytes(error.response().body)
        head = f"HTTP/1.1 {error.status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()
