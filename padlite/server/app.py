"""The routes: which paths there are, what they read, and that every error has OpenAI's shape.

`build` is the whole application as ASGI, without a socket: tests and other programs can call it as it is.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from padlite import __version__
from padlite.errors import PadliteError
from padlite.server.completions import Completions
from padlite.server.failures import ApiError, explained
from padlite.server.guards import Access, Guard
from padlite.server.metrics import Metrics
from padlite.server.openapi import document
from padlite.server.page import page_routes
from padlite.server.requests import ChatRequest, read_request
from padlite.server.shelf import Shelf

LARGEST_BODY = 4 * 2**20  # bytes
LONGEST_READ_S = 30.0
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Server:
    """The application and what whoever runs it needs of it; *failure* is why the first model couldn't be loaded."""

    app: ASGIApp
    shelf: Shelf
    completions: Completions
    metrics: Metrics
    failure: list[BaseException] = field(default_factory=list[BaseException])


def build(shelf: Shelf, access: Access, *, with_metrics: bool = False, largest_body: int = LARGEST_BODY) -> Server:
    """Return the application that serves *shelf* to those whom *access* lets in."""
    metrics = Metrics()
    completions = Completions(shelf, metrics)
    pages = _Pages(shelf, completions, metrics, largest_body)
    routes = [
        *page_routes(shelf),
        Route("/health", pages.health, methods=["GET"]),
        Route("/openapi.json", pages.openapi, methods=["GET"]),
        Route("/v1/models", pages.models, methods=["GET"]),
        Route("/v1/models/{name:path}", pages.model, methods=["GET"]),
        Route("/v1/chat/completions", pages.chat, methods=["POST"]),
    ]
    if with_metrics:
        routes.append(Route("/metrics", pages.metrics, methods=["GET"]))
    failure: list[BaseException] = []

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(_preload(shelf, failure))
        try:
            yield
        finally:
            completions.stop()
            await loading
            await shelf.close()

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            ApiError: _on_api_error,
            PadliteError: _on_padlite_error,
            HTTPException: _on_http_error,
            Exception: _on_bug,
        },
    )
    app.router.redirect_slashes = False
    guarded = Guard(app, access, metrics)
    return Server(app=guarded, shelf=shelf, completions=completions, metrics=metrics, failure=failure)


async def _preload(shelf: Shelf, failure: list[BaseException]) -> None:
    """Load the first model; /health says when that is done."""
    try:
        async with shelf.model(shelf.models[0]):
            shelf.ready = True
    except Exception as error:  # noqa: BLE001 — whoever runs the server tells the person
        failure.append(error)


class _Pages:
    """What the paths answer."""

    def __init__(self, shelf: Shelf, completions: Completions, metrics: Metrics, largest_body: int) -> None:
        self._shelf, self._completions, self._metrics = shelf, completions, metrics
        self._largest_body = largest_body

    async def health(self, _request: Request) -> Response:
        """Say whether answers can be had, and how many are being decoded and wait."""
        running, waiting = self._shelf.load()
        ready = self._shelf.ready and not self._completions.stopping
        status = "ok" if ready else "stopping" if self._completions.stopping else "loading"
        return JSONResponse({"status": status, "running": running, "waiting": waiting}, 200 if ready else 503)

    async def metrics(self, _request: Request) -> Response:
        """Give the numbers."""
        running, waiting = self._shelf.load()
        text = self._metrics.text(running=running, waiting=waiting)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def openapi(self, _request: Request) -> Response:
        """Describe the API."""
        return JSONResponse(document(__version__))

    async def models(self, _request: Request) -> Response:
        """List models, and model@profile for every person."""
        names = await asyncio.to_thread(self._shelf.names)
        return JSONResponse({"object": "list", "data": [_model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        """Give one of them."""
        name = str(request.path_params["name"])
        if name not in await asyncio.to_thread(self._shelf.names):
            raise ApiError(404, "there is no such model", parameter="model", code="model_not_found")
        return JSONResponse(_model(name))

    async def chat(self, request: Request) -> Response:
        """Answer a chat completion."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, "the body must be application/json", code="unsupported_media_type")
        wanted = read_request(await self._body(request))
        return _Answering(self._completions, wanted)

    async def _body(self, request: Request) -> bytes:
        """Return the body. Raises ApiError if it is too large or doesn't come."""
        too_large = ApiError(413, f"the body is larger than {self._largest_body:,} bytes", code="body_too_large")
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length[:20]) > self._largest_body:
            raise too_large
        chunks, size = list[bytes](), 0
        try:
            async with asyncio.timeout(LONGEST_READ_S):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self._largest_body:
                        raise too_large
                    chunks.append(chunk)
        except TimeoutError:
            raise ApiError(408, "the body didn't arrive in time", code="body_timeout") from None
        except ClientDisconnect:
            raise ApiError(400, "the client left", code="client_left") from None
        return b"".join(chunks)


class _Answering(Response):
    """A response that decodes while it is sent."""

    def __init__(self, completions: Completions, wanted: ChatRequest) -> None:
        super().__init__()
        self._completions, self._wanted = completions, wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        await self._completions.answer(self._wanted, scope, receive, send)


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "padlite"}


async def _on_api_error(_request: Request, error: Exception) -> Response:
    return error.response() if isinstance(error, ApiError) else await _on_bug(_request, error)


async def _on_padlite_error(_request: Request, error: Exception) -> Response:
    return explained(error).response() if isinstance(error, PadliteError) else await _on_bug(_request, error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return await _on_bug(request, error)
    known = {404: ("there is nothing at this path", "not_found"), 405: ("not with this method", "method_not_allowed")}
    message, code = known.get(error.status_code, (error.detail, "http_error"))
    return ApiError(error.status_code, message, code=code, headers=error.headers).response()


async def _on_bug(_request: Request, error: Exception) -> Response:
    _log.error("a bug in padlite: %s", type(error).__name__)
    return ApiError(500, "this is a bug in padlite", code="bug").response()
