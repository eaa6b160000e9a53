"""Markdown as lines of styled text for a given width.

Pure: source in, `rich.text.Text` lines out, none wider than asked (terminal cells), none padded. HTML is shown as the
text it is, a single line break stays a line break. Knows nothing of terminals, streaming or sessions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, zip_longest

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from rich.cells import cell_len
from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

_HEADING = {"h1": "bold underline", "h2": "bold", "h3": "bold"}
_INLINE = {"strong": "bold", "em": "italic", "s": "strike"}
_CODE = "bold cyan"
_CODE_THEME = "ansi_dark"  # the terminal's own sixteen colours, so it suits light and dark
_INDENT = "  "
_NARROWEST = 8


@cache
def parser() -> MarkdownIt:
    """Return the one dialect padlite reads: CommonMark, tables, strikethrough; no HTML, no underlined headings.

    Underlined headings would turn a sentence into a heading while the list below it is still being written.
    """
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("lheading")


@dataclass(frozen=True, slots=True)
class Split:
    """A source cut where its last block begins: whole *blocks*, and the *open* rest that may still change."""

    blocks: tuple[str, ...]
    open: str


def grows_sideways(source: str) -> bool:
    """Tell whether more text may still move what *source* shows already: a table, whose columns follow its cells."""
    return any(token.type == "table_open" for token in parser().parse(source))


def code_blocks(source: str) -> list[str]:
    """Return the contents of the code blocks in *source*, in order."""
    return [token.content for token in parser().parse(source) if token.type in {"fence", "code_block"}]


def split_blocks(source: str) -> Split:
    """Cut *source* into its top-level blocks; the last one is open."""
    starts = [token.map[0] for token in parser().parse(source) if token.level == 0 and token.map and token.nesting >= 0]
    if len(starts) < 2:
        return Split((), source)
    lines = source.splitlines(keepends=True)
    blocks = tuple("".join(lines[a:b]) for a, b in pairwise(starts))
    return Split(blocks, "".join(lines[starts[-1] :]))


def render_markdown(source: str, width: int, console: Console) -> list[Text]:
    """Return the lines of *source*, each at most *width* cells, with one empty line between blocks."""
    width = max(width, _NARROWEST)
    lines = _stack(SyntaxTreeNode(parser().parse(source)).children, width, console)
    return [part for line in lines for part in _fold(line, width)]


def _stack(nodes: Sequence[SyntaxTreeNode], width: int, console: Console, *, gap: bool = True) -> list[Text]:
    lines: list[Text] = []
    for node in nodes:
        block = _block(node, width, console)
        if block and lines and gap:
            lines.append(Text())
        lines += block
    return lines


def _block(node: SyntaxTreeNode, width: int, console: Console) -> list[Text]:
    match node.type:
        case "heading":
            return _wrap(_inline(node, _HEADING.get(node.tag, "bold italic")), width, console)
        case "fence" | "code_block":
            return _code(node, width, console)
        case "hr":
            return [Text("─" * min(width, 40), style="dim")]
        case "blockquote":
            inner = _stack(node.children, width - 2, console)
            return [Text.assemble(("▌ ", "dim"), line) for line in inner]
        case "bullet_list":
            bullet = "• " if node.level == 0 else "◦ "
            return _list(node, [bullet] * len(node.children), width, console)
        case "ordered_list":
            first = int(node.attrs.get("start", 1))
            markers = [f"{number}. " for number in range(first, first + len(node.children))]
            return _list(node, markers, width, console)
        case "table":
            return _table(node, width, console)
        case _:
            return _wrap(_inline(node, ""), width, console)


def _list(node: SyntaxTreeNode, markers: Sequence[str], width: int, console: Console) -> list[Text]:
    lines: list[Text] = []
    for marker, item in zip(markers, node.children, strict=True):
        size = cell_len(marker)
        inner = _stack(item.children, max(width - size, _NARROWEST), console, gap=False) or [Text()]
        lines += [
            Text.assemble((marker, "cyan") if index == 0 else " " * size, line) for index, line in enumerate(inner)
        ]
    return lines


def _code(node: SyntaxTreeNode, width: int, console: Console) -> list[Text]:
    language = node.info.split(maxsplit=1)[0] if node.info.strip() else "text"
    code = Syntax("", language, theme=_CODE_THEME).highlight(node.content.rstrip("\n"))
    code.no_wrap, code.style = False, ""
    code.rstrip()
    code.expand_tabs(4)
    folded = [part for line in code.split("\n", allow_blank=True) for part in _fold(line, width - len(_INDENT))]
    return [Text.assemble(_INDENT, line) for line in folded]


def _fold(line: Text, width: int) -> list[Text]:
    """Cut *line* every *width* cells, in the middle of words: nothing may move or vanish."""
    if line.cell_len <= width:
        return [line]
    cuts: list[int] = []
    used = 0
    for at, character in enumerate(line.plain):
        size = cell_len(character)
        if used and used + size > width:
            cuts.append(at)
            used = 0
        used += size
    return list(line.divide(cuts)) if cuts else [line]


def _table(node: SyntaxTreeNode, width: int, console: Console) -> list[Text]:
    rows = [
        [_inline(cell, "bold" if section.type == "thead" else "") for cell in row.children]
        for section in node.children
        for row in section.children
    ]
    count = max(len(row) for row in rows)
    widths = _column_widths(rows, count, width - 2 * (count - 1))
    lines: list[Text] = []
    for index, row in enumerate(rows):
        cells = [_wrap(cell, size, console) or [Text()] for cell, size in zip(row, widths, strict=False)]
        lines += [_table_line(level, widths) for level in zip_longest(*cells, fillvalue=Text())]
        if index == 0:
            lines.append(Text("  ".join("─" * size for size in widths), style="dim"))
    return lines


def _table_line(cells: Iterable[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for cell, size in zip(cells, widths, strict=False):
        if line.plain or line.spans:
            line.append("  ")
        line.append_text(cell)
        line.append(" " * (size - cell.cell_len))
    line.rstrip()
    return line


def _column_widths(rows: Sequence[Sequence[Text]], count: int, room: int) -> list[int]:
    """Give each column its widest cell, then take from the widest column until all fit in *room* cells."""
    widths = [max((row[i].cell_len for row in rows if i < len(row)), default=1) or 1 for i in range(count)]
    while sum(widths) > max(room, 3 * count) and max(widths) > 3:
        widths[widths.index(max(widths))] -= 1
    return widths


def _wrap(text: Text, width: int, console: Console) -> list[Text]:
    return list(text.wrap(console, max(width, 1), justify="default", overflow="fold"))


def _inline(node: SyntaxTreeNode, style: str) -> Text:
    text = Text()
    for child in node.children:
        _append(text, child, style)
    text.rstrip()
    return text


def _append(text: Text, node: SyntaxTreeNode, style: str) -> None:
    match node.type:
        case "text" | "text_special":
            text.append(node.content, style)
        case "softbreak" | "hardbreak":
            text.append("\n")
        case "code_inline":
            text.append(node.content, f"{style} {_CODE}".strip())
        case "image":
            text.append(f"{node.content or 'image'} ({node.attrs.get('src', '')})", style)
        case "link":
            before = len(text.plain)
            for child in node.children:
                _append(text, child, f"{style} underline".strip())
            address = str(node.attrs.get("href", ""))
            if text.plain[before:] != address:
                text.append(f" ({address})", f"{style} dim".strip())
        case _:
            for child in node.children:
                _append(text, child, f"{style} {_INLINE.get(node.type, '')}".strip())
