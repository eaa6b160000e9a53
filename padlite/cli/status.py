"""The line below the prompt: model, profile, weights, how full the context is, the last answer's speed.

Pure: what fits a width, the least important left out first.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.cells import cell_len

from padlite.cli.render import visible

_SHOWN_WEIGHTS = 5
SEPARATOR = " · "


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the line tells; *tokens_per_s* 0 and *changed* 0 are left out."""

    model: str
    profile: str
    weights: Mapping[str, float]
    strength: float
    used: int
    length: int
    tokens_per_s: float = 0.0
    changed: int = 0
    saved: bool = True


def status_line(status: Status, width: int) -> str:
    """Return the line for *width* cells."""
    weights = _weights(status)
    context = f"context {status.used / max(status.length, 1):.0%}"
    parts = [  # in order of appearance; the number says what goes last
        (4, visible(status.model)),
        (3, visible(status.profile)),
        (6, weights),
        (5, context),
        (7, "" if status.saved else "not saved"),
        (1, f"{status.tokens_per_s:.0f} tok/s" if status.tokens_per_s else ""),
        (2, f"{status.changed} changed (/why)" if status.changed else ""),
    ]
    kept = [part for part in parts if part[1]]
    while len(kept) > 1 and cell_len(_joined(kept)) > width:
        kept.remove(min(kept))
    line = _joined(kept)
    return line if cell_len(line) <= width else line[: max(width - 1, 0)] + "…"


def _joined(parts: list[tuple[int, str]]) -> str:
    return SEPARATOR.join(text for _, text in parts)


def _weights(status: Status) -> str:
    active = sorted(((n, w) for n, w in status.weights.items() if w), key=lambda item: -abs(item[1]))
    if not active:
        return "no weights" if status.weights else ""
    if not status.strength:
        return "strength 0"
    more = " …" if len(active) > _SHOWN_WEIGHTS else ""
    return " ".join(f"{visible(name)} {weight:+g}" for name, weight in active[:_SHOWN_WEIGHTS]) + more
