"""`padlite profile`: make, show, check and change profiles."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence

import click

from padlite import settings
from padlite.cli.completion import complete_dimensions, complete_models, complete_new_profiles, complete_profiles
from padlite.cli.failures import one_line
from padlite.cli.groups import SuggestingGroup
from padlite.cli.profile_view import LABEL_WIDTH, as_record, bar, facts, in_a_line, indented, origin
from padlite.errors import NotFoundError, ProfileError, UsageError
from padlite.options import LARGEST_WEIGHT
from padlite.profile import (
    DEFAULT_MODEL,
    DEFAULT_PROFILE,
    Profile,
    check_dimensions,
    list_profiles,
    load_profile,
    new_profile_text,
    parse_profile,
    profile_path,
    set_values,
    write_profile,
)
from padlite.profile.keys import PREFERENCES, TEXT, resolve_key
from padlite.profile.record import Named
from padlite.profile.writing import ProfileValue, parse_value

_profile_argument = click.argument(
    "profile_name", metavar="[NAME|FILE]", default=DEFAULT_PROFILE, shell_complete=complete_profiles
)


@click.group(cls=SuggestingGroup)
def profile() -> None:
    """Make, show and change profiles: what you prefer.

    A profile is named (it is kept in your own folder) or is any .toml file. The one named 'me' is used where none is
    named.
    """


@profile.command()
@click.argument("target", metavar="[NAME|FILE]", default=DEFAULT_PROFILE, shell_complete=complete_new_profiles)
@click.option("--name", help="Whose profile it is.")
@click.option("--model", help="A model of `padlite models list`.", shell_complete=complete_models)
@click.option("--about", help="About you; the model reads it.")
@click.option(
    "--set", "assignments", metavar="DIMENSION=WEIGHT", multiple=True, help="For example friendly=0.5.",
    shell_complete=complete_dimensions,
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a profile that exists.")
def new(
    target: str, *, name: str | None, model: str | None, about: str | None, assignments: tuple[str, ...], force: bool
) -> None:
    """Make a profile: asks a few questions in a terminal, or takes the answers as options."""
    path = profile_path(target)
    if path.exists() and not force:
        raise ProfileError(
            f"{path} exists already", remedy=f"padlite profile edit {shlex.quote(target)}, or add --force"
        )
    asking = _somebody_is_there() and not (name or about or assignments)
    if asking:
        click.echo("A few questions; Enter takes what stands in brackets.", err=True)
        name = click.prompt("Your name", default=path.stem, err=True, type=str)
        model = model or click.prompt("Model", default=DEFAULT_MODEL, err=True, type=str)
    model = model or DEFAULT_MODEL
    dimensions = _dimensions_of(Profile(model=model))
    weights = _ask_weights(dimensions) if asking else _weights(assignments)
    if asking:
        about = click.prompt("About you (the model reads it)", default="", show_default=False, err=True, type=str)
    text = new_profile_text(
        name=name or path.stem, model=model, dimensions=dimensions, preferences=weights, about=about or ""
    )
    check_dimensions(parse_profile(text), dimensions)
    write_profile(path, text)
    click.echo(f"wrote {path}")
    wanted = "" if target == DEFAULT_PROFILE else f" --profile {shlex.quote(target)}"
    click.echo(f"try: padlite chat{wanted}", err=True)


@profile.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_all(*, as_json: bool) -> None:
    """List the named profiles."""
    names = list_profiles()
    if as_json:
        click.echo(json.dumps([{"name": name, "path": str(profile_path(name))} for name in names], ensure_ascii=False))
        return
    if not names:
        click.echo("There are no named profiles yet; make one with: padlite profile new", err=True)
    width = max((len(name) for name in names), default=0)
    for name in names:
        click.echo(f"{name:<{width}}  {in_a_line(name)}")


@profile.command()
@_profile_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(profile_name: str, *, as_json: bool) -> None:
    """Show a profile, with the weights that its text under [preferences.text] stands for."""
    shown = _read(load_profile(profile_name))
    if as_json:
        click.echo(json.dumps(as_record(shown), ensure_ascii=False, indent=2))
        return
    for label, value in facts(shown):
        click.echo(f"{label:<{LABEL_WIDTH}} {indented(value)}")
    if shown.weights:
        click.echo()
    width = max((len(name) for name in shown.weights), default=0)
    for name, weight in shown.weights.items():
        click.echo(f"{one_line(name):<{width}} {bar(weight)} {weight:+.2f}  {origin(shown, name)}".rstrip())
    if shown.text_weights and not any(shown.text_weights.values()):
        click.echo("What you say of yourself tells this model nothing; weigh dimensions yourself.", err=True)


@profile.command()
@_profile_argument
def check(profile_name: str) -> None:
    """Check a profile against the model it names."""
    from padlite.opening import check_reward_lm

    checked = load_profile(profile_name)
    dimensions = _dimensions_of(checked)
    check_dimensions(checked, dimensions)
    check_reward_lm(checked)
    names = ", ".join(dimension.name for dimension in dimensions) or "none"
    click.echo(f"{checked.source}: good")
    click.echo(f"it weighs {len(checked.preferences)} of the model's {len(dimensions)} dimensions: {one_line(names)}")
    if checked.preference_text:
        _require_reader(checked)
        click.echo("and what it says in words becomes weights: padlite profile show")
    if checked.sentences:
        click.echo(
            f"and has {len(checked.sentences)} of its own, as sentences: {one_line(', '.join(checked.sentences))}"
        )


@profile.command("set")
@click.argument("words", metavar="[NAME|FILE] KEY=VALUE...", nargs=-1, shell_complete=complete_dimensions)
@click.option(
    "--profile", "profile_name", metavar="NAME|FILE", help="The profile to change.", shell_complete=complete_profiles
)
@click.option("--unset", "removals", metavar="KEY", multiple=True, help="Take a key out of the profile.")
def set_keys(words: tuple[str, ...], *, profile_name: str | None, removals: tuple[str, ...]) -> None:
    """Change values in a profile; its comments stay.

    \b
    padlite profile set friendly=0.5 witty=-0.3
    padlite profile set strength=1.2 --profile ada
    padlite profile set ada.toml temperature=0.7 --unset about
    """
    chosen, assignments = _which_profile(words, profile_name)
    if not assignments and not removals:
        raise UsageError("say what to change", remedy="padlite profile set friendly=0.5")
    path = profile_path(chosen)
    old = load_profile(chosen)
    changes = {key: parse_value(key, text) for key, text in map(_split, assignments)}
    _refuse_unknown_dimensions(old, changes)
    changed = set_values(path, changes, removals=removals)
    for key in changes:
        click.echo(f"{path}: {one_line(key)} is set")
    for key in removals:
        click.echo(f"{path}: {one_line(key)} is gone")
    _warn_about_model(changed)


@profile.command()
@_profile_argument
def edit(profile_name: str) -> None:
    """Open a profile in your editor, and check it afterwards."""
    path = profile_path(profile_name)
    if not path.exists():
        load_profile(profile_name)  # says what is missing, and what to type
    click.edit(editor=settings.editor(), filename=str(path))
    edited = load_profile(profile_name)
    check_dimensions(edited, _dimensions_of(edited))
    click.echo(f"{path}: good")


@profile.command("path")
@_profile_argument
def show_path(profile_name: str) -> None:
    """Print the file of a profile, whether it exists or not."""
    click.echo(profile_path(profile_name))


def _read(shown: Profile) -> Profile:
    """Return the profile with what its text stands for; the models are opened only if it has one."""
    if not shown.preference_text:
        return shown
    from padlite.opening import open_models

    _require_reader(shown)
    with open_models(shown.on_device("cpu")) as models:
        return models.read(shown)


def _require_reader(chosen: Profile) -> None:
    """Raise ProfileError unless the profile's model can turn text into weights; opens no model."""
    from padlite.opening import find_source, reads_text, required_text_map

    _dimensions_of(chosen)  # says which file is missing
    if not reads_text(find_source(chosen)):
        required_text_map(chosen, None)


def _dimensions_of(chosen: Profile) -> Sequence[Named]:
    """Return the dimensions of the model that the profile names. Raises NotFoundError if a file isn't there."""
    for key, file in (("base", chosen.base), ("reward", chosen.reward)):
        if file is not None and not file.is_file():
            raise NotFoundError(
                f"{key} names a file that isn't there: {file}", remedy=f"padlite profile set {key}=FILE"
            )
    from padlite.own_heads import own_head

    reward = chosen.reward or (own_head(chosen.base, settings.paths()) if chosen.base else None)
    if reward is not None:
        from padlite.backends.onnx_reward import open_reward

        with open_reward(reward) as opened:
            return opened.dimensions
    if chosen.base is not None:
        return ()
    from padlite.bundle import find_bundle

    return find_bundle(chosen.model).dimensions


def _refuse_unknown_dimensions(old: Profile, changes: Mapping[str, ProfileValue]) -> None:
    """Raise ProfileError for a new weight that the profile's own model doesn't know, before anything is written."""
    if {"model", "base", "reward"} & set(changes):
        return

    paths = [resolve_key(key) for key in changes]
    weights = {path[1]: 0.0 for path in paths if path[0] == PREFERENCES and path[1] != TEXT}
    if weights:
        check_dimensions(dataclasses.replace(old, preferences=weights, source=None), _dimensions_of(old))


def _warn_about_model(changed: Profile) -> None:
    """Say on stderr if the profile as it is now doesn't fit its model; the change itself was wanted."""
    try:
        check_dimensions(changed, _dimensions_of(changed))
    except (ProfileError, NotFoundError) as error:
        click.echo(f"padlite: {one_line(error.message)}\ntry: {one_line(error.remedy)}", err=True)


def _which_profile(words: Sequence[str], profile_name: str | None) -> tuple[str, Sequence[str]]:
    """Return the profile that is meant, and the assignments: a first word without '=' names the profile."""
    named = bool(words) and "=" not in words[0]
    if named and profile_name is not None:
        raise UsageError(f"two profiles are named: {words[0]} and {profile_name}", remedy="name one of them")
    if named:
        return words[0], words[1:]
    return profile_name or DEFAULT_PROFILE, words


def _split(assignment: str) -> tuple[str, str]:
    key, separator, text = assignment.partition("=")
    if not separator or not key.strip():
        raise UsageError(f"{assignment!r} is not of the form KEY=VALUE", remedy="padlite profile set friendly=0.5")
    return key.strip(), text.strip()


def _weights(assignments: Sequence[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for name, text in map(_split, assignments):
        weight = parse_value(f"preferences.{name}", text)
        if isinstance(weight, int | float):
            weights[name] = weight
    return weights


def _ask_weights(dimensions: Sequence[Named]) -> dict[str, float]:
    """Ask for the weight of each dimension; those left at 0 aren't written."""
    click.echo("How much of each do you want? 1 is much more, 0 as the model likes, -1 much less.", err=True)
    number = click.FloatRange(-LARGEST_WEIGHT, LARGEST_WEIGHT)
    asked = {
        dimension.name: float(click.prompt(f"  {dimension.name}", default=0.0, type=number, err=True))
        for dimension in dimensions
    }
    return {name: weight for name, weight in asked.items() if weight}


def _somebody_is_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
