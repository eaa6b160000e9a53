"""The options that `/set` shows and changes: the decoding options by name, and what to do when the context is full.

Knows a session's options, nothing of the screen.
"""

import dataclasses

from padlite.errors import UsageError, did_you_mean
from padlite.options import DecodingOptions, OverflowPolicy
from padlite.session import Session

OPTION_NAMES = (*(option.name for option in dataclasses.fields(DecodingOptions)), "overflow")
_WHOLE = frozenset({"candidates", "repetition_window", "seed", "max_tokens"})


def option_values(session: Session) -> dict[str, str]:
    """Return each option's value as it would be typed."""
    values = {name: _shown(getattr(session.options, name)) for name in OPTION_NAMES[:-1]}
    return values | {"overflow": session.overflow.value}


def default_values(defaults: DecodingOptions) -> dict[str, str]:
    """Return each option's value as the model has it by itself."""
    values = {name: _shown(getattr(defaults, name)) for name in OPTION_NAMES[:-1]}
    return values | {"overflow": OverflowPolicy.STOP.value}


def change_option(session: Session, name: str, text: str) -> None:
    """Set the option *name* to what *text* says. Raises UsageError, and then nothing has changed."""
    name = name.replace("-", "_")
    if name not in OPTION_NAMES:
        raise UsageError(
            f"there is no option {name[:30]!r}{did_you_mean(name, OPTION_NAMES)}",
            remedy=f"use one of: {', '.join(OPTION_NAMES)}",
        )
    if name == "overflow":
        session.overflow = _policy(text)
    elif name == "stop":
        session.options = dataclasses.replace(session.options, stop=() if text in {"none", "off"} else (text,))
    elif name == "seed" and text in {"none", "off", "random"}:
        session.options = dataclasses.replace(session.options, seed=None)
    elif name in _WHOLE:
        session.options = _with_whole_number(session.options, name, text)
    else:
        session.options = _with_number(session.options, name, text)


def _with_whole_number(options: DecodingOptions, name: str, text: str) -> DecodingOptions:
    try:
        value = int(text)
    except ValueError:
        raise UsageError(f"{name} is a whole number", remedy=f"/set {name}=10") from None
    match name:
        case "candidates":
            return dataclasses.replace(options, candidates=value)
        case "repetition_window":
            return dataclasses.replace(options, repetition_window=value)
        case "seed":
            return dataclasses.replace(options, seed=value)
        case _:
            return dataclasses.replace(options, max_tokens=value)


def _with_number(options: DecodingOptions, name: str, text: str) -> DecodingOptions:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{name} is a number", remedy=f"/set {name}=0.8") from None
    match name:
        case "strength":
            return dataclasses.replace(options, strength=value)
        case "temperature":
            return dataclasses.replace(options, temperature=value)
        case "top_p":
            return dataclasses.replace(options, top_p=value)
        case "min_p":
            return dataclasses.replace(options, min_p=value)
        case _:
            return dataclasses.replace(options, repetition_penalty=value)


def _policy(text: str) -> OverflowPolicy:
    try:
        return OverflowPolicy(text.replace("_", "-"))
    except ValueError:
        known = " or ".join(policy.value for policy in OverflowPolicy)
        raise UsageError(f"overflow can't be {text[:30]!r}", remedy=f"use {known}") from None


def _shown(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(repr(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
