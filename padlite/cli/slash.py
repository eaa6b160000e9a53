"""The commands of a chat: what each is called, takes and completes, and how a typed line becomes one.

A line that begins with two slashes is a message that begins with one. Knows not what the commands do.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from padlite.cli.conversation import Conversation
from padlite.cli.screen import Screen
from padlite.errors import UsageError, did_you_mean
from padlite.session import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What follows a command: an answer to decode, leaving, or just the next prompt (with *typed* already in it).

    *replaced* is the answer that the new one takes the place of.
    """

    events: Iterator[Event] | None = None
    replaced: str | None = None
    leave: bool = False
    typed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command; *run* gets what was typed behind its name, *complete* offers words for that place."""

    name: str
    takes: str
    summary: str
    run: Callable[[Conversation, Screen, str], Outcome | None]
    group: str
    complete: Callable[[Conversation], Iterable[tuple[str, str]]] | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A typed command and its argument."""

    command: Command
    argument: str


def is_command(line: str) -> bool:
    """Tell whether *line* is meant as a command."""
    return line.startswith("/") and not line.startswith("//")


def message_text(line: str) -> str:
    """Return what is said with *line*: the line, without the slash that escapes a slash."""
    return line[1:] if line.startswith("//") else line


def parse(line: str, commands: Iterable[Command]) -> Call:
    """Return the command typed as *line*, which begins with a slash. Raises UsageError with the closest name."""
    name, _, argument = line[1:].strip().partition(" ")
    name, newline, rest = name.partition("\n")
    argument = f"{rest} {argument}" if newline else argument
    known = {word: command for command in commands for word in (command.name, *command.aliases)}
    if name not in known:
        raise UsageError(
            f"there is no command /{name[:30]}{_suggestion(name, known)}",
            remedy="/help lists them; //… sends text that begins with a slash",
        )
    return Call(command=known[name], argument=argument.strip())


def _suggestion(name: str, known: Iterable[str]) -> str:
    beginning = [word for word in known if name and word.startswith(name)]
    close = f" — did you mean '{beginning[0]}'?" if len(beginning) == 1 else did_you_mean(name, known)
    return close.replace("'", "/", 1).replace("'", "", 1)
