"""The keys that a profile may hold: where each one is at home and what kind of value it takes."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypedDict

from padlite.profile.record import Decoding

KeyPath = tuple[str, ...]


class Engine(TypedDict, total=False):
    """The keys of EngineOptions that a profile may set."""

    context_length: int
    threads: int
    gpu_layers: int
    device: str


TOP_LEVEL = ("name", "model", "base", "reward", "reward_text", "about", "system")
PREFERENCES = "preferences"
SENTENCES = "sentences"  # under [preferences]: dimensions that are preference sentences, not the model's own
TEXT = "text"  # under [preferences]: what the person says of themselves, to become weights
TEXT_KEYS = ("about",)
SECTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        PREFERENCES: (),  # any dimension; which ones there are is the model's business
        "decoding": tuple(Decoding.__annotations__),
        "engine": tuple(Engine.__annotations__),
        "context": ("overflow",),
    }
)
TEXTS = frozenset({*TOP_LEVEL, "overflow", "device"})
WHOLE_NUMBERS = frozenset({"candidates", "repetition_window", "seed", "max_tokens", *Engine.__annotations__} - TEXTS)


def resolve_key(key: str) -> KeyPath:
    """Return where *key* stands in the file: an option in its section (with or without that), else a dimension."""
    if key == f"{PREFERENCES}.{TEXT}.about":
        return PREFERENCES, TEXT, "about"
    section, dot, rest = key.partition(".")
    if dot and section in SECTIONS:
        return section, rest
    if key in TOP_LEVEL:
        return (key,)
    return home_of(key) or PREFERENCES, key


def home_of(key: str) -> str | None:
    """Return the section that *key* belongs to, or None if it is no section's key."""
    return next((name for name, keys in SECTIONS.items() if key in keys), None)


def meant_elsewhere(key: str) -> str:
    """Return a suggestion if *key* is close to a key of some section, or an empty string."""
    homes = {name: section for section, names in SECTIONS.items() for name in names if name != key}
    close = difflib.get_close_matches(key, homes, n=1)
    return f" — did you mean {close[0]!r} under [{homes[close[0]]}]?" if close else ""


def advice(key: str, section: str, known: Iterable[str]) -> str:
    """Return what to do with a *key* that *section* ('' = the top of the file) doesn't know."""
    home = home_of(key)
    if home:
        return f"move {key} under [{home}]"
    if section and key in TOP_LEVEL:
        return f"move {key} to the top of the file"
    dimensions = "" if section else "; dimensions belong under [preferences]"
    return f"use one of: {', '.join(known)}{dimensions}"
