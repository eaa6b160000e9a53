"""The application without a socket: what it says before a model is loaded, and which paths it has."""

import asyncio
import json
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs starlette: pip install 'padlite[serve]'")

from starlette.types import ASGIApp, Message

from padlite.server.app import build
from padlite.server.guards import Access
from padlite.server.shelf import Engines, Shelf
from padlite.settings import Paths


def _get(app: ASGIApp, path: str) -> tuple[int, dict[str, object]]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost")], "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0"},
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip

    async def ask() -> None:
        await app(scope, receive, send)

    asyncio.run(ask())
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_health_is_503_until_the_first_model_is_loaded(tmp_path: Path) -> None:
    shelf = Shelf(["padlite-tiny"], Paths(config=tmp_path, data=tmp_path, cache=tmp_path), Engines())
    app = build(shelf, Access()).app
    assert _get(app, "/health") == (503, {"status": "loading", "running": 0, "waiting": 0})
    shelf.ready = True
    assert _get(app, "/health")[0] == 200


def test_the_numbers_are_not_there_unless_asked_for(tmp_path: Path) -> None:
    shelf = Shelf(["padlite-tiny"], Paths(config=tmp_path, data=tmp_path, cache=tmp_path), Engines())
    status, record = _get(build(shelf, Access()).app, "/metrics")
    assert (status, record["error"]["code"]) == (404, "not_found")  # type: ignore[index]
