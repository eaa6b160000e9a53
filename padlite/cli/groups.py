"""Command groups that suggest what was meant, and one that imports its commands when they are called."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import click

from padlite.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class LazyCommand(NamedTuple):
    """A command that isn't imported yet: its *name*, *where* it is (``module:attribute``), and its line in the help."""

    name: str
    where: str
    summary: str

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.where.partition(":")
        command: object = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.where} is not a command")
        return command


class SuggestingGroup(click.Group):
    """A group whose unknown commands come with a suggestion."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that *args* start with, or raise UsageError with the closest name."""
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise UsageError(
                f"no such command: {ctx.command_path} {args[0]}{did_you_mean(args[0], names)}",
                remedy=f"{ctx.command_path} --help",
            )
        return super().resolve_command(ctx, args)


class LazyGroup(SuggestingGroup):
    """A group of LazyCommands; its help comes from their summaries, so it imports none of them."""

    lazy: Mapping[str, LazyCommand] = MappingProxyType({})

    def promise(self, commands: Iterable[LazyCommand]) -> None:
        """Offer *commands*, in this order."""
        self.lazy = {command.name: command for command in commands}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they were given."""
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or None if there is none of this name."""
        lazy = self.lazy.get(cmd_name)
        return lazy.load() if lazy else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from their summaries."""
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.summary) for command in self.lazy.values()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Complete the commands' names from their summaries, and this group's options."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(command.name, help=command.summary)
            for command in self.lazy.values()
            if command.name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]
