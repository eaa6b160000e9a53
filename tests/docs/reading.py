"""Reads the project's documents for the tests: marked code blocks, links, rows of a table."""

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>[^>]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced code block, and what the HTML comment right above it says (empty if there is none)."""

    marker: str
    language: str
    text: str


def blocks(document: str) -> list[Block]:
    """Return the fenced code blocks of *document*, a path inside the repository."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    return [
        Block(marker=found["marker"] or "", language=found["language"], text=found["text"])
        for found in _BLOCK.finditer(text)
    ]


def marked(document: str, marker: str) -> Block:
    """Return the one block of *document* marked with *marker*."""
    (block,) = [block for block in blocks(document) if block.marker == marker]
    return block


def commands(document: str) -> list[str]:
    """Return the lines of the blocks marked ``run``."""
    found = [block for block in blocks(document) if block.marker == "run"]
    return [line for block in found for line in block.text.splitlines() if line and not line.startswith("#")]


def transcript(document: str) -> list[tuple[str, str]]:
    """Return the commands of the blocks marked ``run: output``, each with what the document says it prints."""
    turns: list[tuple[str, str]] = []
    for block in blocks(document):
        if block.marker == "run: output":
            command, *others = block.text.removeprefix("$ ").split("\n$ ")
            turns += [(turn.partition("\n")[0], turn.partition("\n")[2].strip()) for turn in (command, *others)]
    return turns
