"""`padlite train` and `padlite eval` on the command line: options in, progress on stderr, the report on stdout.

Imports the libraries of their extras only when the work begins, and says what to install where they are missing.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from padlite import settings
from padlite.bundle import find_bundle
from padlite.cli.groups import SuggestingGroup
from padlite.cli.interrupts import Interrupts
from padlite.errors import DecodingCancelled, NotFoundError, UsageError
from padlite.profile import Profile, load_profile
from padlite_training.pairs.recipe import PairTraining
from padlite_training.records import json_text

if TYPE_CHECKING:
    from padlite_training.pairs.training import Report

GOES_ON = "stopped; the same command goes on from here"
_DEFAULTS = PairTraining()


@click.group(cls=SuggestingGroup)
def train() -> None:
    """Train a reward head for your own model from preference pairs."""


@train.command()
@click.option("--model", required=True, metavar="NAME|PATH", help="The base model: a bundle or a GGUF file.")
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
@click.option("--text-rate", default=_DEFAULTS.text_rate, show_default=True, help="Learning rate of the text map.")
@click.option(
    "--onto", type=click.Path(path_type=Path), metavar="ONNX",
    help="A head of this model: keep its dimensions, and train only the map from text to weights.",
)  # fmt: skip
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
    text_rate: float,
    onto: Path | None,
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
        base=base_of(model), pairs=pairs, out=out, candidates=candidates, context_length=context_length,
        threads=threads, device=device, held_out=held_out, force=force, onto=onto,
        plan=dataclasses.replace(
            _DEFAULTS, rank=rank, kl=kl, likelihood=likelihood, rate=rate, epochs=epochs, seed=seed,
            text_rate=text_rate,
        ),
    )  # fmt: skip
    with stoppable(GOES_ON) as cancelled:
        report = train_head(order, Progress(), cancelled=cancelled)
    if as_json:
        click.echo(json_text(dataclasses.asdict(report)))
    else:
        _print_report(report, out)


@click.command()
@click.option("--pairs", required=True, type=click.Path(path_type=Path), help="Preference pairs, a JSON object a line.")
@click.option("--profile", "-P", "profile_name", metavar="NAME|FILE", help="The model and the decoding of a profile.")
@click.option("--model", metavar="NAME|PATH", help="A bundle or a GGUF file.")
@click.option("--reward", type=click.Path(path_type=Path), help="A reward head for it.")
@click.option(
    "--reference", type=click.Path(path_type=Path),
    help="Pairs that the classifier learns from; without them, --pairs is divided by group.",
)  # fmt: skip
@click.option(
    "--rival", "rivals", multiple=True, type=click.Choice(["plain", "prompt", "head", "contrast", "best-of-n"]),
    help="Judge only these; may be repeated.",
)  # fmt: skip
@click.option("--strengths", default="0.5,1,1.5,2,3", show_default=True, help="The values of β.")
@click.option("--best-of", default="2,4,8", show_default=True, help="The values of n.")
@click.option("--sentence", "sentences", metavar="NAME=TEXT", multiple=True, help='Instead of "Be NAME.".')
@click.option(
    "--held-out", default=0.15, show_default=True, type=click.FloatRange(0.01, 0.9),
    help="Share of the groups that is judged without --reference: no more than the head was trained without.",
)  # fmt: skip
@click.option("--prompts", default=40, show_default=True, type=click.IntRange(1), help="Conversations to answer.")
@click.option("--pairs-each", default=60, show_default=True, type=click.IntRange(1), help="Pairs a dimension to rank.")
@click.option("--max-tokens", default=64, show_default=True, type=click.IntRange(1), help="Of an answer.")
@click.option("--seed", default=1, show_default=True, help="Of the answers that best-of-n draws.")
@click.option("--threads", default=0, type=click.IntRange(0, 1024), help="0 is the profile's, or one a physical core.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw steering against perplexity into this PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def evaluate(
    *,
    pairs: Path,
    profile_name: str | None,
    model: str | None,
    reward: Path | None,
    reference: Path | None,
    rivals: tuple[str, ...],
    strengths: str,
    best_of: str,
    sentences: tuple[str, ...],
    held_out: float,
    prompts: int,
    pairs_each: int,
    max_tokens: int,
    seed: int,
    threads: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Judge how far a reward head bends the answers, what that costs, and how simpler ways do.

    On held-out pairs: steering by an independent classifier, perplexity under the base, policy accuracy and more, for
    the plain model, the preference in the prompt, the head, the contrast of sentences, and the best of n answers.
    """
    with _extra("eval"):
        from padlite_training.judging.order import RIVALS, EvaluationOrder, run
        from padlite_training.judging.picture import draw, require_library
        from padlite_training.judging.tables import print_evaluation

        if plot is not None:
            require_library()
    if plot is not None and not plot.parent.is_dir():
        raise UsageError(f"there is no folder {plot.parent}", remedy="make it, or choose another --plot")
    if plot is not None and plot.is_dir():
        raise UsageError(f"{plot} is a folder", remedy=f"--plot {plot / 'plot.png'}")
    order = EvaluationOrder(
        profile=_profile_of(profile_name, model, reward, threads),
        pairs=pairs, reference=reference, rivals=rivals or RIVALS, strengths=numbers_in(strengths, "--strengths"),
        best_of=counts_in(best_of, "--best-of"), prompts=prompts,
        pairs_each=pairs_each, max_tokens=max_tokens, held_out=held_out, seed=seed,
        sentences=dict(map(_sentence, sentences)),
    )  # fmt: skip
    with stoppable("stopped; nothing of it is kept") as cancelled:
        evaluation = run(order, Progress(), cancelled=cancelled)
    if as_json:
        click.echo(json_text(evaluation.as_record()))
    else:
        print_evaluation(evaluation)
    if plot is not None:
        try:
            draw(evaluation, plot, title=f"{model or order.profile.model}: steering and its price")
        except OSError as error:
            raise UsageError(f"{plot} can't be written: {error.strerror}", remedy="choose another --plot") from error


def _profile_of(name: str | None, model: str | None, reward: Path | None, threads: int) -> Profile:
    """Return the profile of this name, or an empty one, on *model* with *reward* where they are given."""
    profile = load_profile(name) if name is not None else Profile()
    if model is not None:
        profile = profile.on_model(model)
    if threads:
        profile = dataclasses.replace(profile, threads=threads)
    return profile if reward is None else dataclasses.replace(profile, reward=reward.absolute())


def numbers_in(text: str, option: str) -> tuple[float, ...]:
    """Return the different numbers in a comma-separated list, all above 0, in its order."""
    try:
        numbers = tuple(float(each) for each in text.split(",") if each.strip())
    except ValueError as error:
        raise UsageError(f"{option} takes numbers with commas between", remedy=f"{option} 1,2") from error
    if not numbers or not all(0 < each <= 100 for each in numbers):
        raise UsageError(f"{option} takes numbers from above 0 to 100", remedy=f"{option} 1,2")
    return tuple(dict.fromkeys(numbers))


def counts_in(text: str, option: str) -> tuple[int, ...]:
    """Return the different whole numbers in a comma-separated list, all from 1 to 100, in its order."""
    numbers = numbers_in(text, option)
    if not all(each.is_integer() for each in numbers):
        raise UsageError(f"{option} takes whole numbers", remedy=f"{option} 1,2")
    return tuple(map(int, numbers))


def _sentence(assignment: str) -> tuple[str, str]:
    name, separator, text = assignment.partition("=")
    if not separator or not name.strip() or not text.strip():
        raise UsageError("--sentence is not of the form NAME=TEXT", remedy='--sentence witty="Be witty."')
    return name.strip(), text.strip()


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
def stoppable(stopped: str) -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM end the work inside at the next good moment; yields what tells that they came.

    *stopped* is what to say then: what becomes of the work.
    """
    interrupts, asked = Interrupts(), False

    def stop() -> None:
        nonlocal asked
        asked = True

    with interrupts.listening(), interrupts.stopping(stop):
        try:
            yield lambda: asked
        except DecodingCancelled:
            click.echo(f"\n{stopped}", err=True)
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


def base_of(model: str) -> Path:
    """Return the GGUF that *model* means: a file, or the base of a bundle, by its name or the path of its folder."""
    meant = Profile().on_model(model)
    return meant.base or find_bundle(meant.model).base


def _print_report(report: "Report", out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from padlite_training.means import with_error

    table = Table("dimension", "held-out pairs", "pair accuracy", "policy accuracy", "base alone", "scale")
    for name, row in report.dimensions.items():
        table.add_row(
            name, str(row.pairs), with_error(row.pair_accuracy, row.pair_error),
            with_error(row.policy_accuracy, row.policy_error), f"{row.base_accuracy:.2f}", f"{report.scales[name]:.2f}",
        )  # fmt: skip
    mean = report.mean
    table.add_section()
    table.add_row(
        "mean", str(mean.pairs), with_error(mean.pair_accuracy, mean.pair_error),
        with_error(mean.policy_accuracy, mean.policy_error), f"{mean.base_accuracy:.2f}",
    )  # fmt: skip
    console = Console(highlight=False)
    console.print(table)
    for name, row in report.dimensions.items():
        if not row.is_above_chance:
            console.print(
                f"{name}: its held-out pairs don't show that anything was learned (chance is 0.50); give it more "
                "pairs, or more groups",
                markup=False,
            )
    if report.text is not None:
        text = report.text
        click.echo(
            f"in words: {text.texts} texts, {text.held_out_texts} of them held out; policy accuracy "
            f"{with_error(text.policy_accuracy, text.policy_error)} on {text.pairs} held-out pairs, base alone "
            f"{text.base_accuracy:.2f}"
        )
    click.echo(
        f"{report.states:,} states; harvest {report.harvest_s:.0f} s, fit {report.fit_s:.0f} s "
        f"({report.epochs} epochs), peak memory {report.peak_memory_mib:,.0f} MiB"
    )
    click.echo(f"wrote {out / 'reward.onnx'}")
