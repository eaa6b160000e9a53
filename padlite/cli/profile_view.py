"""How a profile is shown on a terminal and as JSON. Reads no model."""

import json
import sys
from pathlib import Path

import click

from padlite import settings
from padlite.cli.failures import one_line
from padlite.errors import ProfileError
from padlite.profile import Profile, load_profile

BAR_CELLS = 10
LABEL_WIDTH = 12


def in_a_line(name: str) -> str:
    """Return the model and the weights of a named profile on one line, or why it can't be used."""
    try:
        found = load_profile(name)
    except ProfileError as error:
        return f"can't be used: {one_line(error.message)}"
    weights = ", ".join(f"{one_line(key)} {weight:+g}" for key, weight in found.weights.items())
    words = "what you say of yourself" if found.preference_text else ""
    return f"{one_line(_model_of(found))}   {', '.join(filter(None, [words, weights])) or 'no preferences'}"


def _model_of(chosen: Profile) -> str:
    return str(chosen.base) if chosen.base else chosen.model


def facts(shown: Profile) -> list[tuple[str, str]]:
    """Return what a profile says apart from its weights, as labels and values."""
    found = [("name", shown.name), ("file", str(shown.source or "")), ("model", _model_of(shown))]
    found += [("reward", str(shown.reward))] if shown.reward else []
    found += [(key, text) for key, text in _texts(shown) if text]
    found += [(key, json.dumps(value, ensure_ascii=False)) for key, value in shown.decoding.items()]
    found += [("context", str(shown.context_length))] if shown.context_length else []
    found += [("threads", str(shown.threads))] if shown.threads else []
    found += [("gpu layers", str(shown.gpu_layers))] if shown.gpu_layers >= 0 else []
    found += [("device", shown.device)] if shown.device != "auto" else []
    return [*found, ("overflow", shown.overflow.value)]


def _texts(shown: Profile) -> tuple[tuple[str, str], ...]:
    wishes = ("reward text", shown.reward_text), ("in words", shown.preference_text)
    return *wishes, ("about", shown.about), ("system", shown.system)


def indented(text: str) -> str:
    """Return *text* with its further lines below the first one's value."""
    return ("\n" + " " * (LABEL_WIDTH + 1)).join(one_line(line) for line in text.strip().split("\n"))


def as_record(shown: Profile) -> dict[str, object]:
    """Return a profile for JSON, laid out as in its file."""
    paths: dict[str, Path | None] = {"base": shown.base, "reward": shown.reward, "source": shown.source}
    return {
        "name": shown.name,
        "model": None if shown.base else shown.model,
        "reward_text": shown.reward_text,
        "about": shown.about,
        "system": shown.system,
        "preferences": dict(shown.preferences),
        "text": {"about": shown.preference_text, "weights": dict(shown.text_weights)},
        "sentences": {name: {"text": each.text, "weight": each.weight} for name, each in shown.sentences.items()},
        "decoding": dict(shown.decoding),
        "engine": {
            "context_length": shown.context_length, "threads": shown.threads, "gpu_layers": shown.gpu_layers,
            "device": shown.device,
        },
        "context": {"overflow": shown.overflow.value},
        **{key: str(path) if path else None for key, path in paths.items()},
    }  # fmt: skip


def origin(shown: Profile, name: str) -> str:
    """Return where the weight of *name* comes from, where that isn't a plain line of the profile."""
    if name in shown.sentences:
        return one_line(shown.sentences[name].text)
    if name not in shown.text_weights:
        return ""
    told = shown.text_weights[name]
    return f"your own; your text would say {told:+.2f}" if name in shown.preferences else "from your text"


def bar(weight: float) -> str:
    """Return a bar that grows to the right for more and to the left for less, full at 1 and -1."""
    full, empty, middle = ("█", "·", "│") if _draws_blocks() else ("#", ".", "|")
    cells = round(min(abs(weight), 1.0) * BAR_CELLS)
    less, more = (cells, 0) if weight < 0 else (0, cells)
    left = empty * (BAR_CELLS - less) + full * less
    right = full * more + empty * (BAR_CELLS - more)
    if settings.color_wanted() and sys.stdout.isatty():
        left, right = click.style(left, fg="red" if less else None), click.style(right, fg="green" if more else None)
    return f"{left}{middle}{right}"


def _draws_blocks() -> bool:
    try:
        "█·│".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
