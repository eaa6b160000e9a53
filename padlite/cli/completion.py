"""`padlite completion SHELL`, and what commands offer when Tab is pressed: profiles, sessions, models, dimensions.

The functions `complete_…` are for click's `shell_complete=`. They never raise and print nothing: a broken file must not
spoil somebody's command line.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import click

from padlite import settings
from padlite.profile import DEFAULT_PROFILE, chosen_profile, list_profiles


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete padlite's commands and names.

    \b
    bash:  echo 'eval "$(padlite completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(padlite completion zsh)"' >> ~/.zshrc
    fish:  padlite completion fish > ~/.config/fish/completions/padlite.fish
    """
    from click.shell_completion import get_completion_class

    from padlite.cli import COMPLETION_VARIABLE, PROGRAM, cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(kind(cli, {}, PROGRAM, COMPLETION_VARIABLE).source())


def complete_profiles(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the named profiles that begin like *incomplete*, and the .toml files."""
    with contextlib.suppress(Exception):
        return [*_matching(list_profiles(), incomplete), *_files(incomplete)]
    return []


def complete_sessions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the kept sessions that begin like *incomplete*."""
    with contextlib.suppress(Exception):
        path = settings.paths().sessions
        if path.exists():
            from padlite.store import SessionStore

            with SessionStore.open(path) as store:
                return _matching((info.name for info in store.list()), incomplete)
    return []


def complete_models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the installed bundles that begin like *incomplete*."""
    with contextlib.suppress(Exception):
        from padlite.bundle import list_bundles

        return _matching((bundle.name for bundle in list_bundles()), incomplete)
    return []


def complete_dimensions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return `dimension=` for the dimensions of the profile's model (the option --profile, or the default profile)."""
    with contextlib.suppress(Exception):
        from padlite.bundle import find_bundle

        chosen: object = context.params.get("profile_name") or context.params.get("profile")
        model: object = context.params.get("model")
        sentences: Iterable[str] = ()
        if not isinstance(model, str):
            profile = chosen_profile(chosen if isinstance(chosen, str) else None)
            model, sentences = None if profile.base else profile.model, profile.sentences
        dimensions = find_bundle(model).dimensions if model else ()
        return _matching((f"{name}=" for name in (*(each.name for each in dimensions), *sentences)), incomplete)
    return []


def complete_new_profiles(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the usual name of a first profile."""
    return _matching((DEFAULT_PROFILE,), incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _files(incomplete: str) -> list[str]:
    """Return the .toml files and the folders that begin like the path *incomplete*, as it is written."""
    folder, separator, beginning = incomplete.rpartition("/")
    where = Path(folder + separator or ".").expanduser()
    found: list[str] = []
    for entry in sorted(where.iterdir()):
        if entry.name.startswith(beginning) and (beginning.startswith(".") or not entry.name.startswith(".")):
            if entry.is_dir():
                found.append(f"{folder}{separator}{entry.name}/")
            elif entry.suffix == ".toml":
                found.append(f"{folder}{separator}{entry.name}")
    return found
