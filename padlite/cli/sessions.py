"""`padlite sessions`: list, show, export and forget kept conversations."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import cast

import click

from padlite import settings
from padlite.cli.completion import complete_sessions
from padlite.cli.failures import TRACEBACK_FILE, one_line
from padlite.cli.groups import SuggestingGroup
from padlite.errors import NotFoundError, StoreError, UsageError
from padlite.private_files import write_atomically
from padlite.store import ExportFormat, SessionInfo, SessionStore

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400


@click.group(cls=SuggestingGroup)
def sessions() -> None:
    """List, show, export and forget kept conversations."""


@sessions.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_sessions(*, as_json: bool) -> None:
    """List the conversations, the last one first."""
    with _existing_store() as store:
        infos = store.list() if store else ()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(info) for info in infos], ensure_ascii=False, indent=2))
    elif not infos:
        click.echo("No conversations are kept yet.", err=True)
    else:
        _print_table(infos, time.time())


@sessions.command()
@click.argument("name", required=False, shell_complete=complete_sessions)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str | None, *, as_json: bool) -> None:
    """Show the conversation NAME, or the last one."""
    with _store_with(name) as (store, found):
        if as_json:
            click.echo(store.export(found, "json"), nl=False)
            return
        messages = store.messages(found)
    for message in messages:
        click.echo(f"{message.role}: {_harmless(message.content.strip())}\n")


@sessions.command("rm")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_sessions)
@click.option("--all", "everything", is_flag=True, help="Forget all conversations and the history of typed lines.")
@click.option("--yes", is_flag=True, help="Don't ask.")
def forget(names: tuple[str, ...], *, everything: bool, yes: bool) -> None:
    """Forget conversations for good: their text is gone from the disk's files, not only from the list."""
    if everything == bool(names):
        raise UsageError("say which conversations to forget: names, or --all", remedy="padlite sessions list")
    if everything:
        _forget_everything(yes=yes)
        return
    with _existing_store() as store:
        if store is None:
            raise _nothing_kept(names[0])
        for name in names:
            store.info(name)  # all of them are there before one is removed
        for name in dict.fromkeys(names):
            store.remove(name)
            click.echo(f"forgotten: {one_line(name)}")


@sessions.command()
@click.argument("name", required=False, shell_complete=complete_sessions)
@click.option(
    "--format", "export_format", type=click.Choice(["markdown", "json"]), default="markdown", show_default=True
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A file to write instead of standard output.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def export(name: str | None, *, export_format: str, output: Path | None, force: bool) -> None:
    """Write the conversation NAME, or the last one, as Markdown or JSON."""
    with _store_with(name) as (store, found):
        text = store.export(found, cast("ExportFormat", export_format))
    if output is None:
        click.echo(text, nl=False)
        return
    if output.exists() and not force:
        raise UsageError(f"{output} exists already", remedy="add --force, or choose another name")
    try:
        write_atomically(output, text)
    except OSError as error:
        raise StoreError(f"can't write {output}: {error.strerror}", remedy="choose another place") from error
    click.echo(f"wrote {output}", err=True)


@sessions.command("path")
def show_path() -> None:
    """Print the file in which conversations are kept."""
    click.echo(settings.paths().sessions)


def human_time(moment: float, now: float) -> str:
    """Return when *moment* was, as a person would say it at *now* (both seconds since the epoch)."""
    age_s = now - moment
    if age_s < MINUTE_S:
        return "just now"
    if age_s < HOUR_S:
        return f"{int(age_s // MINUTE_S)} min ago"
    then, today = datetime.fromtimestamp(moment).astimezone(), datetime.fromtimestamp(now).astimezone().date()
    days = (today - then.date()).days
    if days <= 1:
        return f"{'today' if days == 0 else 'yesterday'} {then:%H:%M}"
    return f"{then:%Y-%m-%d}"


@contextlib.contextmanager
def _existing_store() -> Iterator[SessionStore | None]:
    """Yield the store, or None where nothing was ever kept: looking must not create it."""
    path = settings.paths().sessions
    if not path.exists():
        yield None
        return
    with SessionStore.open(path) as store:
        yield store


@contextlib.contextmanager
def _store_with(name: str | None) -> Iterator[tuple[SessionStore, str]]:
    """Yield the store and the name of a conversation in it: *name*, or the last one."""
    with _existing_store() as store:
        if store is None:
            raise _nothing_kept(name)
        if name is None:
            last = store.latest()
            if last is None:
                raise _nothing_kept(name)
            name = last.name
        yield store, name


def _nothing_kept(name: str | None) -> NotFoundError:
    what = f"there is no session {name!r}: " if name else ""
    return NotFoundError(f"{what}no conversations are kept yet", remedy="padlite chat")


def _print_table(infos: Sequence[SessionInfo], now: float) -> None:
    rows = [(one_line(info.name), human_time(info.updated, now), info.messages, one_line(info.title)) for info in infos]
    width = max(len(row[0]) for row in rows)
    for name, when, count, title in rows:
        click.echo(f"{name:<{width}}  {when:>15}  {count:>4} messages  {title}".rstrip())


def _forget_everything(*, yes: bool) -> None:
    with _existing_store() as store:
        count = len(store.list()) if store else 0
        if not yes and not _confirmed(f"Forget all {count} conversations and the history of typed lines, for good?"):
            click.echo("Nothing was forgotten.", err=True)
            return
        if store:
            store.remove_all()
    own = settings.paths()
    for leftover in (own.input_history, own.data / TRACEBACK_FILE):
        leftover.unlink(missing_ok=True)
    click.echo(f"forgotten: {count} conversations, and the history of typed lines")


def _confirmed(question: str) -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("nobody is there to confirm this", remedy="padlite sessions rm --all --yes")
    return click.confirm(question, err=True)


def _harmless(text: str) -> str:
    """Return *text* with control characters shown instead of obeyed; line breaks and tabs stay."""
    return "\n".join("\t".join(one_line(cell) for cell in line.split("\t")) for line in text.split("\n"))
