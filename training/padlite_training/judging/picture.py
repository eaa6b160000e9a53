"""The plot of an evaluation: steering against perplexity, one curve a rival, as a PNG.

What isn't defined (`Row`) is NaN to the plot: a point or an error bar that isn't drawn.
"""

import math
from itertools import cycle
from pathlib import Path

from padlite_training.judging.evaluation import Evaluation, Row

MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def require_library() -> None:
    """Raise ModuleNotFoundError unless matplotlib is there, before any work is done for the plot."""
    import matplotlib as mpl

    mpl.use("Agg")


def draw(evaluation: Evaluation, path: Path, *, title: str) -> None:
    """Write the plot of *evaluation*'s means to *path*."""
    require_library()
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.5), dpi=150)
    markers = cycle(MARKERS)
    plain = {row.strength: row for row in evaluation.means() if row.rival == "plain"}
    for name in dict.fromkeys(row.rival for row in evaluation.means()):
        rows = sorted((row for row in evaluation.means() if row.rival == name), key=lambda row: row.strength)
        start = list(plain.values()) if name not in {"plain", "prompt", "best of n"} else []  # β = 0 is the base
        points = [*start, *rows]
        axes.errorbar(
            [_or_nan(row.perplexity) for row in points], [row.steering for row in points],
            xerr=[_or_nan(row.perplexity) * _or_nan(row.nats_error) for row in points],
            yerr=[_or_nan(row.steering_error) for row in points],
            marker=next(markers), markersize=6, linewidth=1.5, elinewidth=0.7, capsize=2, label=name,
        )  # fmt: skip
        for row in rows:
            if row.perplexity is not None and (label := _label(row)):
                axes.annotate(
                    label, (row.perplexity, row.steering), textcoords="offset points", xytext=(6, 5), fontsize=8
                )
    axes.axhline(evaluation.chance, color="grey", linestyle=":", linewidth=1)
    axes.annotate(
        "chance", (0.995, evaluation.chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8,
        color="grey",
    )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.set_ylim(0, 1)
    axes.set_xlabel("perplexity of the answers under the base model (less is nearer to the base)")
    axes.set_ylabel("answers that show the wanted dimension")
    axes.set_title(title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, format="png")
    pyplot.close(figure)


def _label(row: Row) -> str:
    """Return what to write at the point of *row*."""
    if row.rival in {"plain", "prompt"}:
        return ""
    return f"n={row.strength:g}" if row.rival == "best of n" else f"β={row.strength:g}"


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
