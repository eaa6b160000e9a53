"""Where a chat is shown: answers on one console (stdout), everything else on another (stderr).

Knows about colour, terminals and how errors look in a chat; nothing of sessions.
"""

import sys
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from padlite import settings
from padlite.cli.render import visible
from padlite.errors import PadliteError


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """The two consoles of a chat."""

    answers: Console
    notes: Console

    def show(self, *renderables: object) -> None:
        """Print things that aren't an answer."""
        self.notes.print(*renderables, sep="\n", highlight=False)

    def note(self, text: str) -> None:
        """Say one quiet line."""
        self._line(text, "dim")

    def warn(self, text: str) -> None:
        """Say one line that should be seen."""
        self._line(text, "yellow")

    def error(self, error: PadliteError) -> None:
        """Say what is wrong and what to do next; the chat goes on."""
        self._line(error.message, "bold red")
        if error.remedy:
            self._line(f"try: {error.remedy}", "dim")

    def _line(self, text: str, style: str) -> None:
        """Print one line; only a terminal gets it wrapped."""
        self.notes.print(Text(visible(text), style), highlight=False, soft_wrap=not self.notes.is_terminal)


def open_screen() -> Screen:
    """Return the screen of this process: colour only on terminals, and none with NO_COLOR."""
    plain = not settings.color_wanted()
    return Screen(
        answers=Console(file=sys.stdout, no_color=plain, highlight=False, emoji=False, markup=False),
        notes=Console(file=sys.stderr, no_color=plain, highlight=False, emoji=False, markup=False),
    )
