"""The page's two paths: `/`, the document, and `/page/models`, what can be chosen and which sliders that has.

Answers themselves the page asks of /v1/chat/completions, like any client. Knows the shelf; decodes nothing.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from padlite.opening import find_source
from padlite.page import page
from padlite.profile import Profile
from padlite.seams import Dimension
from padlite.server.failures import Json
from padlite.server.shelf import Shelf


def page_routes(shelf: Shelf) -> list[Route]:
    """Return the routes of the page that chats with the models of *shelf*."""
    whole = page()

    async def document(_request: Request) -> Response:
        return Response(whole.html, headers=whole.headers)

    async def models(_request: Request) -> Response:
        return JSONResponse({"models": await asyncio.to_thread(_choices, shelf)})

    return [Route("/", document, methods=["GET"]), Route("/page/models", models, methods=["GET"])]


def _choices(shelf: Shelf) -> list[Json]:
    return [_choice(name, shelf.profile(*_parts(name, shelf))) for name in shelf.names()]


def _parts(name: str, shelf: Shelf) -> tuple[str, str | None]:
    """Return the model and the profile in one of the shelf's names."""
    if name in shelf.models:
        return name, None
    model, _, profile = name.rpartition("@")
    return model, profile


def _choice(name: str, profile: Profile) -> Json:
    source = find_source(profile)
    options = profile.decoding_options(source.defaults)
    own = [Dimension(name=each, description=sentence.text) for each, sentence in profile.sentences.items()]
    dimensions = [*(source.bundle.dimensions if source.bundle else ()), *own]
    return {
        "name": name,
        "dimensions": [{"name": each.name, "description": each.description} for each in dimensions],
        "weights": dict(profile.weights),
        "strength": options.strength,
        "temperature": options.temperature,
    }
