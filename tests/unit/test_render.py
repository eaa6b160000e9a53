"""Streamed markdown on an emulated terminal: nothing twice, nothing lost, at any width, wherever the tokens cut."""

import io
import random

import pyte
import pytest
from rich.console import Console

from padlite.cli.live import Line, LiveRegion, Size
from padlite.cli.markdown import render_markdown, split_blocks
from padlite.cli.render import (
    WIDEST,
    MarkdownWriter,
    PlainWriter,
    answer_writer,
    close_marks,
    settled_part,
    visible,
)

ANSWER = (
    """# A title

Hello **world, this is a bold phrase that is rather long** and `code span` and *emphasis that goes on* — with \
漢字の長い文章がここにありますからよく見てください and emoji 🎉🎉 in it. <script>alert(1)</script> and List<int> a_b_c.

Options:
- first item is long enough that it has to be wrapped at least on narrow terminals
- second **bold** item
  - nested item one

  still second
- third

"""
    + "".join(f"{n}. number {n}\n" for n in range(1, 13))
    + """
```python
def f(x: int) -> int:
    \"\"\"Documentation that is very long so that it has to be folded on narrow screens, you see.\"\"\"
    if x:

        return x * 2   # twice
```

> A quote with **bold** text
> in two lines that is long enough to wrap around in narrow terminals.

| Name | What it does | Count |
|------|:-------------|------:|
| alpha | the first of all letters in a long cell | 1 |
| beta | second | 22 |

A line
followed by another ~~gone~~ and [a link](https://example.org/a) end.

---

A ** lonely star and a * another, and an unclosed **bold that never ends in this paragraph and goes on for some lines.
"""
)


class Terminal:
    """An emulated terminal with everything that scrolled away."""

    def __init__(self, columns: int, rows: int) -> None:
        self.size = Size(columns, rows)
        self.screen = pyte.HistoryScreen(columns, rows, history=5000, ratio=1)
        self._stream = pyte.Stream(self.screen)
        self.out = io.StringIO()
        self.console = Console(file=self.out, force_terminal=True, width=columns, color_system="standard")
        self._now = 0.0

    def writer(self) -> MarkdownWriter:
        return MarkdownWriter(self.console, size=lambda: self.size, clock=self._tick)

    def _tick(self) -> float:
        self._now += 1.0  # so that every piece is drawn
        return self._now

    def feed(self) -> str:
        written = self.out.getvalue()
        self.out.seek(0)
        self.out.truncate()
        self._stream.feed(written.replace("\x1b[?2026h", "").replace("\x1b[?2026l", ""))
        return written

    def lines(self) -> list[str]:
        columns = range(self.screen.columns)
        gone = ["".join(line[x].data for x in columns).rstrip() for line in self.screen.history.top]
        shown = [line.rstrip() for line in self.screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return gone + shown


def pieces(text: str, seed: int) -> list[str]:
    rng = random.Random(seed)
    found: list[str] = []
    while text:
        size = rng.randint(1, 9)
        found.append(text[:size])
        text = text[size:]
    return found


def whole(text: str, columns: int) -> list[str]:
    return [line.plain.rstrip() for line in render_markdown(text, min(columns - 1, WIDEST), Console(width=columns))]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("columns", "rows"), [(20, 6), (20, 24), (40, 10), (80, 6), (80, 24), (132, 50)])
def test_streamed_markdown_ends_up_as_if_it_had_been_printed_whole(columns: int, rows: int, seed: int) -> None:
    terminal = Terminal(columns, rows)
    writer = terminal.writer()
    for piece in pieces(ANSWER, seed):
        writer.write(piece)
        terminal.feed()
    writer.close()
    terminal.feed()
    assert terminal.lines() == whole(ANSWER, columns)


def test_what_has_scrolled_away_is_never_touched() -> None:
    terminal = Terminal(30, 8)
    writer = terminal.writer()
    gone: list[str] = []
    for piece in pieces(ANSWER, 4):
        writer.write(piece)
        terminal.feed()
        now = terminal.lines()[: len(terminal.screen.history.top)]
        assert now[: len(gone)] == gone
        gone = now


def test_words_appear_with_the_piece_that_brings_them() -> None:
    terminal = Terminal(40, 10)
    writer = terminal.writer()
    for piece, shown in [("Hello", "Hello"), (" wor", "Hello wor"), ("ld", "Hello world")]:
        writer.write(piece)
        terminal.feed()
        assert terminal.lines() == [shown]


def test_growing_a_plain_line_writes_only_what_is_new() -> None:
    terminal = Terminal(40, 10)
    writer = terminal.writer()
    writer.write("Hello")
    terminal.feed()
    writer.write(" world")
    assert terminal.feed() == "\x1b[?2026h world\x1b[?2026l"


@pytest.mark.parametrize("widths", [(80, 40), (40, 80), (60, 20)])
def test_a_change_of_width_in_the_middle_loses_and_repeats_nothing(widths: tuple[int, int]) -> None:
    terminal = Terminal(widths[0], 12)
    writer = terminal.writer()
    text = " ".join(f"word{number}" for number in range(200))
    for at, piece in enumerate(pieces(text, 5)):
        if at == 60:
            terminal.size = Size(widths[1], 12)
        writer.write(piece)
    writer.close()
    written = io.StringIO(terminal.out.getvalue())
    wide = Terminal(200, 300)  # wide enough not to wrap what either width printed
    wide.out.write(written.getvalue())
    wide.feed()
    assert "".join("".join(wide.lines()).split()) == "".join(text.split())


@pytest.mark.parametrize("text", ["a **bo", "say `co", "- one\n-", "text\n``", "1. a\n2", "so **", "~~ol"])
def test_half_a_mark_is_not_shown_as_text(text: str) -> None:
    terminal = Terminal(40, 10)
    writer = terminal.writer()
    for letter in text:
        writer.write(letter)
        terminal.feed()
    assert not set("*`~") & set("".join(terminal.lines()))
    assert not any(line.strip() in {"-", "2"} for line in terminal.lines())


def test_a_mark_that_never_closes_is_shown_at_the_end() -> None:
    terminal = Terminal(40, 10)
    writer = terminal.writer()
    writer.write("2 ** 3 and **so")
    writer.close()
    terminal.feed()
    assert terminal.lines() == ["2 ** 3 and **so"]


def test_an_answer_can_not_steer_the_terminal() -> None:
    evil = "a\x1b[2Jb\x1b]52;c;eA==\x07c\rd\x9b31me\x08"
    assert visible(evil) == "a␛[2Jb␛]52;c;eA==␇c␍d\ufffd31me␈"
    terminal = Terminal(40, 10)
    writer = terminal.writer()
    writer.write(evil)
    writer.close()
    assert "\x1b[2J" not in terminal.out.getvalue()
    assert "\x1b]52" not in terminal.out.getvalue()


def test_html_is_shown_as_the_text_it_is() -> None:
    assert whole("<b>x</b> and Vec<u8>\n\n<div>\ny", 40) == ["<b>x</b> and Vec<u8>", "", "<div>", "y"]


def test_no_line_is_wider_than_asked() -> None:
    for width in range(8, 100, 7):
        assert max(line.cell_len for line in render_markdown(ANSWER, width, Console(width=width))) <= width


def test_code_keeps_its_indentation_and_is_folded_not_reflowed() -> None:
    lines = whole("```\nab cdefghijklm\n```", 11)
    assert lines == ["  ab cdefg", "  hijklm"]


def test_only_the_last_block_is_open() -> None:
    parts = split_blocks("one\n\ntwo\nlines\n\n- a\n- b")
    assert parts.blocks == ("one\n\n", "two\nlines\n\n")
    assert parts.open == "- a\n- b"


def test_open_marks_are_closed_for_the_moment() -> None:
    assert close_marks("a **b") == "a **b**"
    assert close_marks("a `b") == "a `b`"
    assert close_marks("```\na **b") == "```\na **b"
    assert settled_part("text\n\n-") == "text\n"


def test_a_pipe_gets_the_text_as_it_is_and_one_line_end() -> None:
    stream = io.StringIO()
    writer = PlainWriter(stream)
    for piece in ("a **b**", "\n", "c\x1b"):
        writer.write(piece)
    writer.close()
    writer.close()
    assert stream.getvalue() == "a **b**\nc\x1b\n"


def test_the_writer_fits_where_it_writes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(answer_writer(Console(file=io.StringIO())), PlainWriter)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(answer_writer(Console(file=io.StringIO(), force_terminal=True)), PlainWriter)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(answer_writer(Console(file=io.StringIO(), force_terminal=True)), MarkdownWriter)


def test_no_colour_means_no_colour() -> None:
    out = io.StringIO()
    writer = MarkdownWriter(
        Console(file=out, force_terminal=True, no_color=True, color_system="truecolor"), size=lambda: Size(80, 24)
    )
    writer.write("- `code`\n\n```python\nimport os\n```\n")
    writer.close()
    assert "\x1b[3" not in out.getvalue().replace("\x1b[3m", "")


def test_the_region_rewrites_from_the_first_line_that_differs() -> None:
    out = io.StringIO()
    region = LiveRegion(out)
    region.update([Line("a", 1), Line("b", 1), Line("c", 1)])
    out.seek(0)
    out.truncate()
    region.update([Line("a", 1), Line("x", 1), Line("c", 1)])
    assert out.getvalue() == "\x1b[?2026h\x1b[1A\r\x1b[Jx\r\nc\x1b[?2026l"
