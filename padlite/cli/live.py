"""The open end of what is being printed: a few lines at the bottom of the terminal that can still be redrawn.

Works on finished lines (ANSI text and their width in cells). Writes only what differs, in one write per update, and
never moves above the lines it holds. Knows nothing of markdown or of what the lines mean.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # synchronized output: terminals that don't know it ignore it


@dataclass(frozen=True, slots=True)
class Line:
    """One line as written: *ansi* text that is *cells* wide."""

    ansi: str
    cells: int


@dataclass(frozen=True, slots=True)
class Size:
    """A terminal's size in cells."""

    columns: int
    rows: int


def terminal_size(stream: IO[str]) -> Callable[[], Size]:
    """Return a function that asks for the size of the terminal behind *stream* (80x24 if it won't say)."""

    def ask() -> Size:
        try:
            size = os.get_terminal_size(stream.fileno())
        except (OSError, ValueError):
            return Size(80, 24)
        return Size(size.columns or 80, size.lines or 24)

    return ask


class LiveRegion:
    """The lines that may still change; the cursor rests at the end of the last one."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._shown: list[Line] = []
        self._fresh = True  # the cursor is at the start of an empty line

    @property
    def lines(self) -> int:
        """How many lines can still be redrawn."""
        return len(self._shown)

    def update(self, lines: Sequence[Line], *, settled: int = 0) -> None:
        """Make the region show *lines*; the first *settled* of them are then printed for good."""
        self._write(lines)
        self.settle(settled)

    def settle(self, count: int) -> None:
        """Never touch the first *count* lines again."""
        del self._shown[:count]

    def close(self) -> None:
        """End the last line; everything shown stays."""
        self._shown.clear()
        if not self._fresh:
            self._stream.write("\r\n")
            self._stream.flush()
        self._fresh = True

    def _write(self, lines: Sequence[Line]) -> None:
        same = 0
        while same < min(len(lines), len(self._shown)) and lines[same] == self._shown[same]:
            same += 1
        if same == len(lines) == len(self._shown):
            return
        self._stream.write(_BEGIN + self._difference(lines, same) + _END)
        self._stream.flush()
        self._shown = list(lines)

    def _difference(self, lines: Sequence[Line], same: int) -> str:
        stale, new = self._shown[same:], lines[same:]
        if not stale:
            start = "" if self._fresh else "\r\n"
        elif len(stale) == 1 and new and new[0].ansi.startswith(stale[0].ansi):
            self._fresh = False
            return new[0].ansi.removeprefix(stale[0].ansi) + "".join(f"\r\n{line.ansi}" for line in new[1:])
        else:
            start = (f"\x1b[{len(stale) - 1}A" if len(stale) > 1 else "") + "\r\x1b[J"
        self._fresh = not new
        return start + "\r\n".join(line.ansi for line in new)
