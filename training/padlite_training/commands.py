"""`padlite train` on the command line: options in, progress on stderr, the report on stdout.

Imports PyTorch and the rest of the extra only when a training begins, and says what to install where it is missing.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from padlite import settings
from padlite.bundle import find_bundle
from padlite.cli.groups import SuggestingGroup
from padlite.cli.interrupts import Interrupts
from padlite.errors import DecodingCancelled, NotFoundError
from padlite_training.pairs.recipe import PairTraining

if TYPE_CHECKING:
    from padlite_training.pairs.training import Report

_DEFAULTS = PairTraining()


@click.group(cls=SuggestingGroup)
def train() -> None:
    """Train a reward head for your own model from preference pairs."""


@train.command()
@click.option("--model", required=True, metavar="GGUF|NAME", help="The base model: a GGUF file, or a bundle's name.")
@click.option("--pairs", required=True, type=click.Path(path_type=Path), help="Preference pairs, a JSON object a line.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of the head.")
@click.option("--rank", default=_DEFAULTS.rank, show_default=True, help="Rank of the head.")
@click.option("--kl", default=_DEFAULTS.kl, show_default=True, help="How much staying near the base counts.")
@click.option(
    "--likelihood", default=_DEFAULTS.likelihood, show_default=True,
    help="How much making the chosen answer likelier counts, beside preferring it.",
)  # fmt: skip
@click.option("--rate", default=_DEFAULTS.rate, show_default=True, help="Learning rate.")
@click.option("--epochs", default=_DEFAULTS.epochs, show_default=True, help="At most so many passes over the pairs.")
@click.option("--seed", default=_DEFAULTS.seed, show_default=True, help="Equal seeds give equal heads (on the CPU).")
@click.option("--candidates", default=32, show_default=True, type=click.IntRange(2, 1000), help="Tokens kept a state.")
@click.option(
    "--held-out", default=0.15, show_default=True, type=click.FloatRange(0.01, 0.9),
    help="Share of the groups that is kept to judge by.",
)  # fmt: skip
@click.option("--context-length", default=0, help="In tokens; 0 is the model's own, at most 8192.")
@click.option("--threads", default=0, help="0 is one per physical core.")
@click.option("--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), help="Where the head is fitted.")
@click.option("--force", is_flag=True, help="Replace a head that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def head(
    *,
    model: str,
    pairs: Path,
    out: Path,
    rank: int,
    kl: float,
    likelihood: float,
    rate: float,
    epochs: int,
    seed: int,
    candidates: int,
    held_out: float,
    context_length: int,
    threads: int,
    device: str,
    force: bool,
    as_json: bool,
) -> None:
    """Train a reward head from preference pairs, and calibrate it.

    The base model stays as it is: every answer of the pairs goes through it once, what the head needs of it is kept on
    disk, and the head is fitted to that. Interrupt it when you like; the same command goes on.
    """
    with _extra("train"):
        from padlite_training.pairs.training import TrainingOrder, train_head
    order = TrainingOrder(
        base=_base_of(model), pairs=pairs, out=out, candidates=candidates, context_length=context_length,
        threads=threads, device=device, held_out=held_out, force=force,
        plan=dataclasses.replace(
            _DEFAULTS, rank=rank, kl=kl, likelihood=likelihood, rate=rate, epochs=epochs, seed=seed
        ),
    )  # fmt: skip
    with stoppable() as cancelled:
        report = train_head(order, Progress(), cancelled=cancelled)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), ensure_ascii=False, indent=2))
    else:
        _print_report(report, out)


class Progress:
    """Progress on stderr: a bar with the time left on a terminal, plain lines elsewhere."""

    def say(self, text: str) -> None:
        """Print a line on stderr."""
        click.echo(text, err=True)

    @contextlib.contextmanager
    def counting(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar of *total* steps; the function yielded takes how many are done."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True, no_color=not settings.color_wanted(), highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
            task = bars.add_task(text, total=total)
            yield lambda done: bars.update(task, completed=done)


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM end the work inside at the next good moment; yields what tells that they came."""
    interrupts, asked = Interrupts(), False

    def stop() -> None:
        nonlocal asked
        asked = True

    with interrupts.listening(), interrupts.stopping(stop):
        try:
            yield lambda: asked
        except DecodingCancelled:
            click.echo("\nstopped; the same command goes on from here", err=True)
            interrupts.raise_pending()
            raise


@contextlib.contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say what to install if a library of the extra *name* is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise NotFoundError(
            f"this needs the Python package {error.name}", remedy=f"pip install 'padlite[{name}]'"
        ) from error


def _base_of(model: str) -> Path:
    """Return the GGUF that *model* means: a file, or a bundle's base."""
    path = Path(model).expanduser()
    if path.exists() or path.suffix.lower() == ".gguf" or len(path.parts) > 1:
        return path
    return find_bundle(model).base


def _print_report(report: "Report", out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("dimension", "held-out pairs", "pair accuracy", "policy accuracy", "base alone", "scale")
    for name, row in report.dimensions.items():
        table.add_row(
            name, str(row.pairs), f"{row.pair_accuracy:.2f}", f"{row.policy_accuracy:.2f}", f"{row.base_accuracy:.2f}",
            f"{report.scales[name]:.2f}",
        )  # fmt: skip
    mean = report.mean
    table.add_section()
    table.add_row(
        "mean", str(mean.pairs), f"{mean.pair_accuracy:.2f}", f"{mean.policy_accuracy:.2f}", f"{mean.base_accuracy:.2f}"
    )
    Console(highlight=False).print(table)
    click.echo(
        f"{report.states:,} states; harvest {report.harvest_s:.0f} s, fit {report.fit_s:.0f} s "
        f"({report.epochs} epochs), peak memory {report.peak_memory_mib:,.0f} MiB"
    )
    click.echo(f"wrote {out / 'reward.onnx'}")
