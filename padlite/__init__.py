"""padlite: personalized chat that is steered while it decodes, offline.

    import padlite

    with padlite.open("me.toml") as chat:
        for piece in chat.stream("How was your day?"):
            print(piece, end="")

Importing this package loads no engine; the first use of a name does. ONNX Runtime's telemetry is switched off before
anything can import it: it would otherwise write a device id and start an upload thread.
"""

import importlib
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from padlite.chat import Chat, open  # noqa: A004 — callers write `padlite.open`
    from padlite.errors import PadliteError
    from padlite.options import DecodingOptions
    from padlite.profile import Profile
    from padlite.seams import Message
    from padlite.session import Answer, Dropped, Event, Finished, FinishReason, Token

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.1.0"
__all__ = [
    "Answer", "Chat", "DecodingOptions", "Dropped", "Event", "FinishReason", "Finished", "Message", "PadliteError",
    "Profile", "Token", "open",
]  # fmt: skip

_HOMES = {
    "padlite.chat": ("Chat", "open"),
    "padlite.errors": ("PadliteError",),
    "padlite.options": ("DecodingOptions",),
    "padlite.profile": ("Profile",),
    "padlite.seams": ("Message",),
    "padlite.session": ("Answer", "Dropped", "Event", "FinishReason", "Finished", "Token"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    for home, names in _HOMES.items():
        if name in names:
            value: object = getattr(importlib.import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
