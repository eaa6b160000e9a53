"""How an answer appears while it is decoded: plain text, or markdown that takes shape without flicker.

Finished blocks are printed once for good; only the last, open block is redrawn, and of a block taller than the screen
only its last lines. What has scrolled away is never touched. Text goes in as it is decoded; sessions are unknown here.
"""

import re
import time
from collections.abc import Callable, Sequence
from typing import IO, Protocol

from rich.console import Console
from rich.text import Text

from padlite.cli.live import Line, LiveRegion, Size, terminal_size
from padlite.cli.markdown import grows_sideways, render_markdown, split_blocks

REDRAW_S = 1 / 30
WIDEST = 100  # cells: longer lines are hard to read
_ANCHOR = 24
_UNFINISHED_LINE = re.compile(r"(?:^|\n)[ \t]*(?:[-*+=_#>~`|]{1,6}|\d{1,3}[.)]?)?[ \t]*\Z")
_UNFINISHED_MARK = re.compile(r"[*_~`]+\Z")


class AnswerWriter(Protocol):
    """Takes an answer piece by piece."""

    def write(self, text: str) -> None:
        """Show *text* after what was written before."""
        ...

    def close(self) -> None:
        """Show what is held back and end the last line."""
        ...


class PlainWriter:
    """Writes the text as it is, at once; *visible_only* replaces control characters for terminals."""

    def __init__(self, stream: IO[str], *, visible_only: bool = False) -> None:
        self._stream = stream
        self._visible_only = visible_only
        self._at_line_start = True

    def write(self, text: str) -> None:
        """Show *text* after what was written before."""
        if text:
            self._stream.write(visible(text) if self._visible_only else text)
            self._stream.flush()
            self._at_line_start = text.endswith("\n")

    def close(self) -> None:
        """End the last line unless the answer did."""
        if not self._at_line_start:
            self._stream.write("\n")
            self._stream.flush()
            self._at_line_start = True


class MarkdownWriter:
    """Renders markdown on a terminal while it grows.

    *size* and *clock* are asked at every redraw, so that tests can turn them.
    """

    def __init__(
        self,
        console: Console,
        *,
        size: Callable[[], Size] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._size = size or terminal_size(console.file)
        self._clock = clock
        self._region = LiveRegion(console.file)
        self._source = ""
        self._open_lines: list[Text] = []
        self._printed = _Printed()
        self._first_block = True
        self._columns = 0
        self._drawn_at = -1.0

    def write(self, text: str) -> None:
        """Show *text* after what was written before, at most thirty times a second."""
        self._source += visible(text)
        now = self._clock()
        if now - self._drawn_at >= REDRAW_S:
            self._draw(final=False)
            self._drawn_at = now

    def close(self) -> None:
        """Show everything and end the last line."""
        self._draw(final=True)
        self._region.close()
        self._source, self._open_lines, self._printed = "", [], _Printed()

    def _draw(self, *, final: bool) -> None:
        size = self._size()
        if self._columns not in (0, size.columns):
            self._abandon()
        self._columns = size.columns
        width = min(size.columns - 1, WIDEST)
        source = self._source if final else settled_part(self._source)
        parts = split_blocks(source)
        for block in parts.blocks:
            self._show(self._lines(block, width), final=True, rows=size.rows)
        self._source = self._source[sum(map(len, parts.blocks)) + _skipped(source, parts.blocks, parts.open) :]
        rest = self._source if final else close_marks(settled_part(self._source))
        lines = self._lines(rest, width)
        if not final and len(lines) > size.rows - 2 and grows_sideways(rest):
            lines = [*lines[: max(size.rows - 3, 1)], Text("…", style="dim")]
        self._show(lines, final=final, rows=size.rows)

    def _lines(self, source: str, width: int) -> list[Text]:
        lines = render_markdown(source, width, self._console) if source.strip() else []
        if lines and not self._first_block:
            lines.insert(0, Text())
        return lines

    def _show(self, lines: list[Text], *, final: bool, rows: int) -> None:
        if not lines:
            return
        remaining = self._printed.rest(lines)
        keep = 0 if final else max(rows - 2, 1)
        over = max(len(remaining) - keep, 0)
        self._region.update([self._encode(line) for line in remaining], settled=over)
        self._printed.add(remaining[:over])
        self._open_lines = remaining[over:]
        if final:
            self._printed, self._first_block, self._open_lines = _Printed(), False, []

    def _abandon(self) -> None:
        """After a change of width nobody knows where the old lines are: leave them and go on below."""
        if self._open_lines:
            self._printed.add(self._open_lines)
            self._open_lines = []
            self._region.close()

    def _encode(self, line: Text) -> Line:
        with self._console.capture() as capture:
            self._console.print(line, end="", soft_wrap=True, highlight=False)
        return Line(capture.get(), line.cell_len)


class _Printed:
    """What of the open block is printed for good, so that a new rendering goes on right behind it.

    Counts characters, not lines: a mark that closes late (``**``) or a new width moves the line ends.
    """

    def __init__(self) -> None:
        self._text = ""  # without whitespace
        self._blank = 0  # empty lines printed after it

    def add(self, lines: Sequence[Text]) -> None:
        for line in lines:
            solid = _solid(line.plain)
            self._text += solid
            self._blank = 0 if solid else self._blank + 1

    def rest(self, lines: Sequence[Text]) -> list[Text]:
        """Return the part of *lines* that isn't printed yet."""
        left = self._position("".join(_solid(line.plain) for line in lines))
        at = 0
        while at < len(lines) and left > 0:
            solid = _solid(lines[at].plain)
            if len(solid) > left:
                return [_tail(lines[at], left), *lines[at + 1 :]]
            left -= len(solid)
            at += 1
        blank = self._blank
        while blank and at < len(lines) and not _solid(lines[at].plain):
            blank -= 1
            at += 1
        return list(lines[at:])

    def _position(self, text: str) -> int:
        """Return how many solid characters of *text* are printed."""
        printed = self._text
        if text.startswith(printed):
            return len(printed)
        anchor = printed[-_ANCHOR:]
        near = text.rfind(anchor, 0, len(printed) + 2 * _ANCHOR)
        return near + len(anchor) if near >= 0 else min(len(printed), len(text))


def answer_writer(console: Console) -> AnswerWriter:
    """Return the writer that fits where *console* writes to."""
    if not console.is_terminal:
        return PlainWriter(console.file)
    return PlainWriter(console.file, visible_only=True) if console.is_dumb_terminal else MarkdownWriter(console)


def visible(text: str) -> str:
    """Return *text* with control characters made visible: an answer must not be able to steer the terminal."""
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def settled_part(source: str) -> str:
    """Return *source* without an end that isn't decided yet: a lone list marker, half a fence, a first asterisk."""
    unfinished = _UNFINISHED_LINE.search(source)
    kept = source[: unfinished.start()] if unfinished else source
    return _UNFINISHED_MARK.sub("", kept)


def close_marks(source: str) -> str:
    """Return *source* with emphasis and code that are still open closed, so that they show before they end."""
    if len(re.findall(r"^[ \t]*(?:```|~~~)", source, re.MULTILINE)) % 2:
        return source
    start = max(source.rfind("\n\n"), 0)
    line = source[start:].rstrip()
    gap = source[start + len(line) :]
    if line.count("`") % 2:
        return source[:start] + line + "`" + gap
    for mark in ("**", "~~"):
        opened = re.search(rf"{re.escape(mark)}(?=\S)", line[line.rfind(mark) :]) if line.count(mark) % 2 else None
        if opened:
            line += mark
    return source[:start] + line + gap


def _skipped(source: str, blocks: Sequence[str], rest: str) -> int:
    """Return the length of what stands before the first block (empty lines)."""
    return len(source) - len(rest) - sum(map(len, blocks)) if blocks else 0


def _solid(text: str) -> str:
    return "".join(text.split())


def _tail(line: Text, count: int) -> Text:
    """Return *line* from behind its first *count* solid characters."""
    at = 0
    while count:
        count -= not line.plain[at].isspace()
        at += 1
    rest = line[at:]
    indent = len(rest.plain) - len(rest.plain.lstrip())
    return rest[indent:]


_VISIBLE = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
    | {0x7F: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
    | dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)
)
