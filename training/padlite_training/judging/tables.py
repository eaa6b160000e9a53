"""An evaluation as tables on the terminal: the means of all rivals, then each dimension where its rival steers most."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from padlite import settings
from padlite_training.judging.evaluation import Evaluation, Row
from padlite_training.means import with_error


def print_evaluation(evaluation: Evaluation) -> None:
    """Print *evaluation* on stdout."""
    console = Console(no_color=not settings.color_wanted(), highlight=False)
    console.print(_means(evaluation))
    console.print(_by_dimension(evaluation))
    console.print(
        f"Mean ± standard error over groups. Chance is {evaluation.chance:.2f}; the classifier itself is right on "
        f"{evaluation.classifier_accuracy:.0%} of answers of groups that it hasn't seen, and sees the dimension in "
        f"{evaluation.preferred_steering:.0%} of the preferred answers of the judged pairs.",
        soft_wrap=True,
    )


def _means(evaluation: Evaluation) -> Table:
    table = Table(title="Mean over dimensions", title_justify="left")
    for name in ("rival", "β, n", "steering", "perplexity", "distinct 1, 2", "flips", "policy accuracy", "tokens/s"):
        table.add_column(name, justify="left" if name == "rival" else "right", no_wrap=True)
    before = ""
    for row in evaluation.means():
        if before and row.rival != before:
            table.add_section()
        before = row.rival
        table.add_row(
            row.rival, _dial(row), with_error(row.steering, row.steering_error), _number(row.perplexity),
            f"{row.distinct_1:.2f}, {row.distinct_2:.2f}", f"{row.flip_rate:.2f}",
            with_error(row.policy_accuracy, row.policy_error), f"{row.tokens_per_s:,.0f}",
        )  # fmt: skip
    return table


def _by_dimension(evaluation: Evaluation) -> Table:
    """Return a table of each dimension's steering, for every rival at the strength where its mean is highest."""
    best: dict[str, Row] = {}
    for row in evaluation.means():
        if row.rival not in best or row.steering > best[row.rival].steering:
            best[row.rival] = row
    table = Table("dimension", title="Steering by dimension, each rival where it steers most", title_justify="left")
    for row in best.values():
        table.add_column(" ".join(part for part in (row.rival, _dial(row)) if part), justify="right")
    names = list(dict.fromkeys(row.dimension for row in evaluation.rows if row.dimension != "mean"))
    for name in names:
        table.add_row(name, *_cells(evaluation.rows, best, name))
    return table


def _cells(rows: Sequence[Row], best: dict[str, Row], dimension: str) -> list[str]:
    found = {(row.rival, row.strength): row for row in rows if row.dimension == dimension}
    chosen = [found[rival, mean.strength] for rival, mean in best.items()]
    return [with_error(row.steering, row.steering_error) for row in chosen]


def _dial(row: Row) -> str:
    return "" if row.rival in {"plain", "prompt"} else f"{row.strength:g}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
