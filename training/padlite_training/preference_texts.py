"""What people may say of themselves, for the second stage of PAD's training, with the dimension that each asks for.

A file of texts holds one JSON object a line, {"dimension": "witty" | null, "text": "…"}; null: the text asks for
nothing in particular. Read strictly, all problems at once.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from padlite_training.pairs.reading import PairsError, lines_of, records_of, wrong_text
from padlite_training.styles import SENTENCES

EVERYDAY = Path(__file__).parent / "data" / "preference_texts.jsonl"
"""Some seventy texts for each style of the small talk and 55 that ask for nothing, written for padlite."""

REMEDY = 'write {"dimension": "witty", "text": "I love jokes."} on each line; null asks for nothing'

Texts = Mapping[str | None, tuple[str, ...]]


def read_texts(path: Path) -> Texts:
    """Return the texts in the file *path* by their dimension. Raises NotFoundError, or PairsError with all problems."""
    found: dict[str | None, list[str]] = {}
    problems: list[str] = []
    for number, record, problem in records_of(lines_of(path, option="--texts")):
        wrong = [problem] if problem else list(_problems(record))
        problems += [f"line {number}: {each}" for each in wrong]
        if not wrong:
            dimension = record["dimension"]
            found.setdefault(None if dimension is None else str(dimension), []).append(str(record["text"]).strip())
    if problems or not found:
        raise PairsError(path, problems or ["it holds no texts"], remedy=REMEDY)
    return {name: tuple(texts) for name, texts in found.items()}


def instructions() -> Texts:
    """Return the sentences with which the bundled base model was taught the styles."""
    return dict[str | None, tuple[str, ...]](SENTENCES.items())


def merged(several: Sequence[Texts]) -> Texts:
    """Return all texts of *several* by their dimension."""
    names = dict.fromkeys(name for texts in several for name in texts)
    return {name: tuple(text for texts in several for text in texts.get(name, ())) for name in names}


def write_texts(path: Path, texts: Texts) -> None:
    """Write *texts* to the file *path*."""
    rows = [{"dimension": name, "text": text} for name, each in texts.items() for text in each]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _problems(record: Mapping[str, object]) -> Iterator[str]:
    if set(record) != {"dimension", "text"}:
        yield "this isn't {dimension, text}"
        return
    if record["dimension"] is not None and (reason := wrong_text(record["dimension"])):
        yield f"'dimension' {reason}"
    if reason := wrong_text(record["text"]):
        yield f"'text' {reason}"
