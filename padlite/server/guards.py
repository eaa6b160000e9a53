"""Who may ask, before anything is read: the Host header, the Origin, the key. ASGI middleware around the application.

A page in a browser that was tricked into calling 127.0.0.1 (DNS rebinding, cross-site requests) gets nothing.
"""

import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from padlite.server.failures import ApiError
from padlite.server.metrics import Metrics

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
OPEN_PATHS = ("/health", "/")  # need no key: they tell nothing
_METHODS = "GET, POST, OPTIONS"
_ALLOWED_HEADERS = "authorization, content-type"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Which *hosts* the server answers to, which *origins* may call it from a browser, and the *key*, if any."""

    hosts: Collection[str] = LOOPBACK
    origins: Collection[str] = ()
    key: str | None = None


class Guard:
    """Lets through what *access* allows; everything else gets an error in OpenAI's shape."""

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics) -> None:
        self._app, self._access, self._metrics = app, access, metrics
        self._hosts = {host.lower() for host in access.hosts}
        self._key = _digest(access.key.encode()) if access.key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = _header(scope, b"origin")

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.responses[message["status"]] += 1
                if origin in self._access.origins:
                    message["headers"] = [*message.get("headers", ()), *_cors(origin or "")]
            await send(message)

        try:
            self._check(scope, origin)
        except ApiError as error:
            await error.response()(scope, receive, counting)
            return
        if scope["method"] == "OPTIONS" and origin is not None and origin in self._access.origins:
            await counting({"type": "http.response.start", "status": 204, "headers": []})
            await counting({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, counting)

    def _check(self, scope: Scope, origin: str | None) -> None:
        host = _header(scope, b"host")
        if host is None or _without_port(host) not in self._hosts:
            raise ApiError(
                403,
                "this server doesn't answer to that Host header; allow it with --allow-host",
                code="host_not_allowed",
            )
        if origin is not None and origin not in self._access.origins and origin != f"{scope['scheme']}://{host}":
            raise ApiError(
                403, "pages of that origin may not call this server; allow it with --allow-origin",
                code="origin_not_allowed",
            )  # fmt: skip
        if self._key is None or scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS":
            return
        kind, _, given = (_header(scope, b"authorization") or "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(_digest(given.strip().encode("latin-1")), self._key):
            raise ApiError(
                401, "the API key is missing or wrong", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
            )


def _digest(key: bytes) -> bytes:
    """Return something of constant length to compare in constant time."""
    return hashlib.sha256(key).digest()


def _header(scope: Scope, wanted: bytes) -> str | None:
    """Return the header *wanted* if it is there exactly once."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]
    return values[0] if len(values) == 1 else ("" if values else None)


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isascii() and port.isdigit() else host.lower()


def _cors(origin: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-methods", _METHODS.encode()),
        (b"access-control-allow-headers", _ALLOWED_HEADERS.encode()),
        (b"vary", b"Origin"),
    ]
