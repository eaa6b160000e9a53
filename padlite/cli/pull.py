"""`padlite models pull`: a model from the Hugging Face hub."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from padlite import settings
from padlite.cli.waiting import byte_bar, waiting
from padlite.hub.record import UNKNOWN_LICENSE

if TYPE_CHECKING:
    from padlite.hub import HubFile, Repository
    from padlite.pulling import SeveralFilesError


@click.command()
@click.argument("model", metavar="ORG/NAME[:FILE]")
@click.option("--name", metavar="NAME", help="What it is called here; default: the GGUF file's own name.")
@click.option("--revision", metavar="NAME", default="main", show_default=True, help="A branch, a tag or a commit.")
@click.option("--offline", is_flag=True, help="Take what the hub's cache has; open no connection.")
def pull(*, model: str, name: str | None, revision: str, offline: bool) -> None:
    """Download a model from the Hugging Face hub and install it, after it has answered.

    A repository with a bundle.toml is a bundle. Of others FILE is a GGUF file, or a part of its name that no other file
    has; without it the only one is taken, or all are listed. Interrupt it when you like; the same command goes on.

    \b
    padlite models pull ORG/NAME
    padlite models pull ORG/NAME:Q4_K_M --name mine

    Needs: pip install 'padlite[hub]'
    """
    from padlite import pulling
    from padlite.cli.models import homely
    from padlite.hub import Hub

    order = pulling.wanted(model, revision=revision, name=name)
    try:
        bundle = pulling.pull(order, Hub(offline=offline), settings.paths(), _Teller())
    except pulling.SeveralFilesError as error:
        _print_choice(error)
        raise
    except KeyboardInterrupt:
        click.echo("\nstopped, nothing is installed; the same command goes on from here", err=True)
        raise
    click.echo(f"{bundle.name}: installed in {homely(bundle.folder)}")
    click.echo(f"try: padlite chat --model {bundle.name}", err=True)


def _print_choice(error: "SeveralFilesError") -> None:
    """Print the files with their sizes, each as the command that pulls it."""
    for file in error.files:
        click.echo(f"{_megabytes(file.size):>12}  padlite models pull {error.repository}:{file.name}")


class _Teller:
    """Says on stderr how it goes; with a bar, speed and time left on a terminal."""

    def found(self, repository: "Repository", files: "Sequence[HubFile]") -> None:
        license = "not stated" if repository.license == UNKNOWN_LICENSE else repository.license  # noqa: A001
        size = _megabytes(sum(file.size for file in files))
        click.echo(f"{repository.id} at {repository.commit[:8]}: {size}, licence {license}", err=True)

    @contextlib.contextmanager
    def fetching(self, file: "HubFile") -> "Iterator[Callable[[int], None]]":
        with byte_bar(file.name.rpartition("/")[2], file.size) as show:
            yield show

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        with waiting(sys.stderr, "checking the model, and letting it answer …"):
            yield


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
