"""`padlite dimension`: make a dimension of a sentence, list, show, rename and remove dimensions.

Says what happens and how it turned out; how a dimension is made is `padlite.dimensions`'s business.
"""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import click

from padlite import settings
from padlite.cli.completion import complete_models
from padlite.cli.failures import one_line
from padlite.cli.groups import SuggestingGroup
from padlite.cli.sections import SectionedCommand
from padlite.errors import PadliteError, UsageError
from padlite.naming import check_name
from padlite.options import DEVICES
from padlite.profile import chosen_profile

if TYPE_CHECKING:
    from rich.progress import Progress

    from padlite.dimensions.adding import Report, Watch
    from padlite.dimensions.shelf import Shelf

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

FEWEST_ANSWERS = 60
DEFAULT_ANSWERS = 1200
ADD_SECTIONS: Mapping[str, Sequence[str]] = {
    "Model and sentences": ("sentences", "model"),
    "Learning": ("prompts", "answers", "seed"),
    "Engine": ("device", "threads"),
}
_RESERVED = ("sentences", "text")  # sections under [preferences] of a profile
_EXAMPLES = 3

_model_option = click.option(
    "--model", "-m", metavar="NAME|PATH", shell_complete=complete_models,
    help="A bundle or a GGUF file. Default: the model of the profile 'me', or the bundled one.",
)  # fmt: skip
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=SuggestingGroup)
def dimension() -> None:
    """Make dimensions of sentences, and manage those of a model.

    A dimension is one thing to prefer more or less of. A sentence such as "Answer like a pirate." becomes one in a few
    minutes on your own machine, for any GGUF with a chat template, and costs nothing when you chat.
    """


@dimension.command(cls=SectionedCommand, sections=ADD_SECTIONS)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option(
    "--sentence", "-s", "sentences", metavar="TEXT", multiple=True,
    help="What tells the model to be so. One for each NAME, in their order.",
)  # fmt: skip
@_model_option
@click.option("--prompts", metavar="FILE", type=click.Path(path_type=Path), help="Your own prompts, one a line.")
@click.option(
    "--answers", metavar="COUNT", type=click.IntRange(FEWEST_ANSWERS, 1_000_000), default=DEFAULT_ANSWERS,
    show_default=True, help="Answers to learn from, in twenties: more of them teach more and take longer.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(DEVICES), default="auto", help="Where it runs. auto: a GPU where it can be used."
)
@click.option("--threads", metavar="COUNT", type=click.IntRange(0, 1024), help="CPU threads. Default: every core.")
@click.option("--seed", metavar="COUNT", type=click.IntRange(0, 2**32 - 1), default=7, help="Makes it repeatable.")
@_json_option
def add(
    *,
    names: tuple[str, ...],
    sentences: tuple[str, ...],
    model: str | None,
    prompts: Path | None,
    answers: int,
    device: str,
    threads: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Make a dimension of a sentence.

    \b
    padlite dimension add pirate --sentence "Answer like a pirate."
    padlite dimension add poet cook --sentence "Speak in rhyme." --sentence "Talk about food."
    padlite dimension add brief --sentence "Be brief." --model my-model.Q8_0.gguf
    padlite chat --weight pirate=1

    The model answers ordinary prompts with and without the sentence, and a small reward head learns the difference.
    Interrupted, the same command goes on where it was. A bundle that ships with padlite is copied into your own folder
    first (`padlite paths`); a GGUF file stays as and where it is.
    """
    from padlite.dimensions.adding import Making, Wanted, add_dimensions
    from padlite.dimensions.prompts import ordinary_prompts, read_prompts

    _check(names, sentences)
    wanted = [Wanted(name=name, sentence=text.strip()) for name, text in zip(names, sentences, strict=True)]
    shelf = _shelf(model)
    asked = read_prompts(prompts) if prompts else ordinary_prompts()
    making = Making(prompts=asked, answers=answers, threads=threads or 0, device=device, seed=seed)
    try:
        with _watching() as watch:
            added = add_dimensions(shelf, wanted, making, watch)
    except KeyboardInterrupt:
        click.echo("padlite: stopped; the same command goes on from here", err=True)
        raise
    if as_json:
        records = [_as_record(each) for each in added.reports]
        _print_json({"model": shelf.source.name, "head": str(added.head), "dimensions": records})
        return
    for each, one in zip(added.reports, wanted, strict=True):
        _print_report(each, one.sentence)
    click.echo(f"\nadded to {one_line(str(added.head))}")
    chosen = _model_option_for(shelf, added.head, model)
    click.echo(f"try: padlite chat{chosen} --weight {shlex.quote(f'{names[0]}=1')}", err=True)


@dimension.command("list")
@_model_option
@_json_option
def list_(*, model: str | None, as_json: bool) -> None:
    """List the dimensions of a model."""
    from padlite.dimensions.stacking import origin

    shelf = _shelf(model)
    head = shelf.load()
    rows = [
        (each.name, "yours" if origin(head, each.name) else "its own", each.description)
        for each in (head.dimensions if head else ())
        if head
    ]
    if as_json:
        _print_json([{"name": name, "yours": whose == "yours", "description": text} for name, whose, text in rows])
        return
    if not rows:
        click.echo(f"{shelf.source.name} has no dimensions; make one: padlite dimension add --help", err=True)
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, whose, text in rows:
        click.echo(f"{one_line(name):<{width}}  {whose:<7}  {one_line(text)}".rstrip())


@dimension.command()
@click.argument("name")
@_model_option
@_json_option
def show(*, name: str, model: str | None, as_json: bool) -> None:
    """Show what is known about the dimension NAME."""
    from padlite.dimensions.stacking import origin, place_of

    shelf = _shelf(model)
    head = shelf.require()
    shown = head.dimensions[place_of(head, name)]
    facts = _facts(origin(head, name))
    if as_json:
        record: dict[str, Json] = {"name": name, "description": shown.description, "scale": shown.scale}
        _print_json({**record, "model": shelf.source.name, "head": str(shelf.head), "made": facts})
        return
    click.echo(f"{one_line(name)}: {one_line(shown.description)}")
    click.echo(f"  model       {one_line(shelf.source.name)}")
    click.echo(f"  head        {shelf.head}")
    click.echo(f"  scale       {shown.scale:.3g}")
    if facts is None:
        click.echo("  origin      came with the model")
        return
    for label, key in (("learned", "explained"), ("steering", "steering")):
        value = facts.get(key)
        if isinstance(value, float | int):
            click.echo(f"  {label:<11} {value:.0%} of the sentence's own")


@dimension.command()
@click.argument("name")
@_model_option
def rm(*, name: str, model: str | None) -> None:
    """Remove the dimension NAME; the others compute what they did."""
    from padlite.dimensions.stacking import without

    shelf = _shelf(model)
    shelf.require_place()
    shelf.reduce(lambda head: without(shelf.required(head), name))
    click.echo(f"{one_line(name)} is gone from {one_line(shelf.source.name)}")


@dimension.command()
@click.argument("old")
@click.argument("new")
@_model_option
def rename(*, old: str, new: str, model: str | None) -> None:
    """Call the dimension OLD by the name NEW. Profiles that weigh it have to be changed by hand."""
    from padlite.dimensions.stacking import renamed

    _check_dimension_name(new)
    shelf = _shelf(model)
    shelf.require_place()
    shelf.save(lambda head: renamed(shelf.required(head), old, new))
    click.echo(f"{one_line(old)} is now {one_line(new)}")


def _check(names: Sequence[str], sentences: Sequence[str]) -> None:
    """Raise UsageError unless there is one sentence for each good name."""
    example = 'padlite dimension add pirate --sentence "Answer like a pirate."'
    if len(sentences) != len(names):
        count = f"{len(names)} name{'s' * (len(names) != 1)} and {len(sentences)} sentence{'s' * (len(sentences) != 1)}"
        raise UsageError(f"there are {count}; each name needs one", remedy=example)
    for name in names:
        _check_dimension_name(name)
        if names.count(name) > 1:
            raise UsageError(f"{name!r} is named twice", remedy="give each dimension a name of its own")
    if len(names) > 16:
        raise UsageError("16 dimensions are the most for one run", remedy="make the others in a second run")


def _check_dimension_name(name: str) -> None:
    if check_name(name, kind="dimension") in _RESERVED:
        raise UsageError(f"a dimension can't be called {name!r}: profiles use that word", remedy="choose another name")


def _shelf(model: str | None) -> "Shelf":
    """Return where the dimensions of *model* are, or of the model that is used where none is named."""
    from padlite.dimensions.shelf import Shelf
    from padlite.errors import NotFoundError
    from padlite.opening import find_source

    profile = chosen_profile(None)
    if model is not None:
        profile = profile.on_model(model)
    if profile.reward is not None:
        raise UsageError(
            f"{profile.source}: the profile has a reward model of its own (reward = …), and only a model's own can "
            "have dimensions added",
            remedy=f"--model {shlex.quote(str(profile.base or profile.model))}, or remove reward from the profile",
        )
    if profile.base is not None and not profile.base.is_file():
        raise NotFoundError(f"there is no model file {profile.base}", remedy="check the path, or `padlite models list`")
    paths = settings.paths()
    return Shelf(source=find_source(profile, paths=paths), paths=paths)


def _model_option_for(shelf: "Shelf", head: Path, model: str | None) -> str:
    """Return what `padlite chat` has to be told to use *head*: nothing if that is what it uses anyway."""
    from padlite.opening import find_source

    with suppress(PadliteError):  # where the profile's own model is gone, the one that was named is still there
        if find_source(chosen_profile(None), paths=shelf.paths).reward == head:
            return ""
    name = shelf.source.name if shelf.source.bundle else (model or str(shelf.source.base))
    return f" --model {shlex.quote(name)}"


@contextmanager
def _watching() -> "Iterator[Watch]":
    """Show how far it is on stderr: a bar with the time left on a terminal, a line per stage elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True, no_color=not settings.color_wanted(), highlight=False)
    columns = (
        TextColumn("{task.description:<13}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("spent"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield _Bars(progress, quiet=not console.is_terminal)


class _Bars:
    """One bar for each stage."""

    def __init__(self, progress: "Progress", *, quiet: bool) -> None:
        self._progress, self._quiet = progress, quiet
        self._task: int | None = None

    def stage(self, text: str, total: int) -> None:
        """A stage of *total* steps begins."""
        if self._quiet:
            click.echo(f"{text} …", err=True)
        self._task = int(self._progress.add_task(text, total=total))

    def reached(self, step: float) -> None:
        """So many of its steps are done."""
        if self._task is not None:
            from rich.progress import TaskID

            self._progress.update(TaskID(self._task), completed=step)


def _print_report(report: "Report", sentence: str) -> None:
    click.echo(f"{one_line(report.name)}: {one_line(sentence)}")
    click.echo(
        f"  learned     {report.explained:.0%} of what the sentence does, on {len(report.prompts)} prompts kept back "
        f"(from {report.states:,} words)"
    )
    click.echo(
        f"  steering    {report.steering:.0%} of the sentence's own at weight {report.weight:.2f}, which is as strong"
    )
    click.echo(
        f"  perplexity  {report.plain.perplexity:.1f} plain, {report.taught.perplexity:.1f} with the sentence, "
        f"{report.learned.perplexity:.1f} at that weight, {report.example.perplexity:.1f} at weight 1"
    )
    changed = [
        each
        for each in zip(report.prompts, report.plain.texts, report.example.texts, strict=True)
        if each[1] != each[2]
    ]
    for prompt, before, after in changed[:_EXAMPLES]:
        click.echo(f"  › {one_line(prompt)}")
        click.echo(f"      before  {one_line(before)}")
        click.echo(f"      after   {one_line(after)}")
    if not changed:
        click.echo("  At weight 1 no answer to them changes; try a larger weight.")


def _as_record(report: "Report") -> Json:
    manners = {
        "plain": report.plain,
        "sentence": report.taught,
        "dimension": report.learned,
        "weight_1": report.example,
    }
    return {
        "name": report.name,
        "explained": round(report.explained, 4),
        "steering": round(report.steering, 4),
        "equal_weight": round(report.weight, 4),
        "rounds": report.rounds,
        "states": report.states,
        "steering_nats": {key: round(manner.steering, 4) for key, manner in manners.items()},
        "perplexity": {key: round(manner.perplexity, 3) for key, manner in manners.items()},
        "answers": [
            {"prompt": prompt, "plain": before, "weight_1": after}
            for prompt, before, after in zip(report.prompts, report.plain.texts, report.example.texts, strict=True)
        ],
    }


def _facts(origin: str | None) -> dict[str, Json] | None:
    """Return what was noted about a dimension when it was made, or None if nothing was."""
    if origin is None:
        return None
    try:
        facts = cast("object", json.loads(origin))
    except ValueError:
        return {}
    return cast("dict[str, Json]", facts) if isinstance(facts, dict) else {}


def _print_json(value: Json) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
