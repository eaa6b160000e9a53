"""Reads preference pairs from JSON lines, strictly: every problem of the file is found and named with its line.

    {"prompt": "…" | "messages": [{"role", "content"}, …], "chosen": "…", "rejected": "…",
     "dimension": "witty" | "preference": "Be witty.", "weight": 1.0, "group": "…"}

*dimension* names what the chosen answer has more of, *preference* says it in words. *weight* (1 unless given, negative:
less of it) is the preference weight w under which the answer was chosen. Pairs of one *group* are never divided between
what is trained on and what is judged; without one, pairs with the same prompt are a group. Knows no model.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

from padlite.errors import NotFoundError, UsageError, did_you_mean
from padlite.naming import check_name
from padlite.options import LARGEST_WEIGHT
from padlite.seams import Message

KEYS = ("prompt", "messages", "chosen", "rejected", "dimension", "preference", "weight", "group")
ROLES = ("system", "user", "assistant")
REMEDY = "correct these lines; docs/training.md describes the file"
_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One comparison: in the conversation *messages*, *chosen* was preferred to *rejected*.

    Exactly one of *dimension* and *preference* is given. *line* is its line in the file, from 1.
    """

    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    dimension: str | None
    preference: str | None
    weight: float
    group: str
    line: int

    @property
    def more_and_less(self) -> tuple[str, str]:
        """The two answers: first the one that has more of what the pair is about, *rejected* at a negative weight."""
        return (self.chosen, self.rejected) if self.weight > 0 else (self.rejected, self.chosen)


class PairsError(UsageError):
    """A file of pairs that can't be used; *problems* holds a line of text for each thing that is wrong with it."""

    def __init__(self, path: Path, problems: Sequence[str], *, remedy: str = REMEDY) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        super().__init__(f"{path} has {count}: {'; '.join(problems[:_SHOWN])}{more}", remedy=remedy)
        self.problems = tuple(problems)


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs in the file *path*, in its order; blank lines are skipped.

    Raises NotFoundError, or PairsError with all problems of the file at once.
    """
    pairs: list[Pair] = []
    problems: list[str] = []
    for number, record, problem in records_of(lines_of(path, option="--pairs")):
        found = [problem] if problem else list(_problems(record))
        problems += [f"line {number}: {problem}" for problem in found]
        if not found:
            pairs.append(_pair(record, number))
    if problems:
        raise PairsError(path, problems)
    if not pairs:
        raise PairsError(path, ["it holds no pairs"], remedy="write one JSON object a line; see docs/training.md")
    return pairs


def require_known_dimensions(path: Path, pairs: Sequence[Pair], known: Collection[str]) -> None:
    """Raise PairsError that names every line whose dimension isn't among *known*."""
    problems = [
        f"line {pair.line}: the reward model has no dimension {pair.dimension!r}{did_you_mean(pair.dimension, known)}"
        for pair in pairs
        if pair.dimension is not None and pair.dimension not in known
    ]
    if problems:
        raise PairsError(path, problems, remedy=f"use one of: {', '.join(known)}")


class _Problem(Exception):
    """A line that is no JSON object."""


def lines_of(path: Path, *, option: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of the file *path* that aren't blank, with their numbers; *option* is where it was named."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if content.strip():
                    yield number, content
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}", remedy=f"check the path given to {option}") from error
    except OSError as error:
        remedy = f"check the path given to {option}"
        raise UsageError(f"{path} can't be read: {error.strerror}", remedy=remedy) from error


def records_of(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, Mapping[str, object], str]]:
    """Yield the number of each line with the JSON object that it holds and '', or with nothing and the problem."""
    for number, content in lines:
        try:
            yield number, _record(content), ""
        except _Problem as problem:
            yield number, {}, str(problem)


def _record(content: bytes) -> Mapping[str, object]:
    try:
        value: object = json.loads(content, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _Problem("this is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise _Problem(f"this is no valid JSON ({error.msg}, column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise _Problem("this is no valid JSON") from error
    if not isinstance(value, dict):
        raise _Problem("this is no JSON object")
    return value


def _unique(items: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _Problem(f"the key {twice[0]!r} is there twice")
    return dict(items)


def _refuse_constant(name: str) -> NoReturn:
    raise _Problem(f"{name} is no number")


def _problems(record: Mapping[str, object]) -> Iterator[str]:
    """Yield what is wrong with one record; nothing if a `Pair` can be made of it."""
    for key in record:
        if key not in KEYS:
            yield f"unknown key {key!r}{did_you_mean(key, KEYS)}"
    yield from _one_of(record, "prompt", "messages")
    yield from _one_of(record, "dimension", "preference")
    for key in ("chosen", "rejected"):
        if key not in record:
            yield f"{key!r} is missing"
    for key in ("prompt", "chosen", "rejected", "dimension", "preference"):
        if key in record and (reason := wrong_text(record[key])):
            yield f"{key!r} {reason}"
    if "messages" in record:
        yield from _wrong_messages(record["messages"])
    yield from _wrong_dimension(record.get("dimension"))
    chosen, rejected = record.get("chosen"), record.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str) and chosen.strip() and chosen.strip() == rejected.strip():
        yield "'chosen' and 'rejected' are the same"
    yield from _wrong_weight(record.get("weight", 1.0))
    if "group" in record and not _is_group(record["group"]):
        yield "'group' must be text or a whole number"


def _one_of(record: Mapping[str, object], one: str, other: str) -> Iterator[str]:
    if one not in record and other not in record:
        yield f"{one!r} is missing (or {other!r})"
    if one in record and other in record:
        yield f"both {one!r} and {other!r} are given"


def wrong_text(value: object) -> str:
    """Return why *value* can't be somebody's words, or an empty string."""
    if not isinstance(value, str):
        return "must be text"
    if not value.strip():
        return "is empty"
    if "\0" in value:
        return "holds a NUL character"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "holds half a character (a lone surrogate)"
    return ""


def _wrong_messages(value: object) -> Iterator[str]:
    if not isinstance(value, list) or not value:
        yield "'messages' must be a list of {role, content}"
        return
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, dict) or set(turn) != {"role", "content"}:
            yield f"message {number} isn't {{role, content}}"
        elif turn["role"] not in ROLES:
            yield f"message {number} has a role that isn't one of {', '.join(ROLES)}"
        elif reason := wrong_text(turn["content"]):
            yield f"the content of message {number} {reason}"
    if not (isinstance(value[-1], dict) and value[-1].get("role") == "user"):
        yield "the last message isn't the user's"


def _wrong_dimension(value: object) -> Iterator[str]:
    if isinstance(value, str) and value.strip():
        try:
            check_name(value, kind="dimension")
        except UsageError as error:
            yield error.message


def _wrong_weight(value: object) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield "'weight' must be a number"
    elif value == 0 or not abs(value) <= LARGEST_WEIGHT:  # also what is infinite
        yield f"'weight' must be from -{LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g} and not 0"


def _is_group(value: object) -> bool:
    return (isinstance(value, str) and bool(value.strip())) or (isinstance(value, int) and not isinstance(value, bool))


def _pair(record: Mapping[str, object], line: int) -> Pair:
    """Return the pair that a record without problems describes."""
    turns = record.get("messages") or [{"role": "user", "content": record["prompt"]}]
    messages = tuple(
        Message(role=str(turn["role"]), content=str(turn["content"])) for turn in cast("list[dict[str, object]]", turns)
    )
    weight = record.get("weight", 1.0)
    group = record.get("group")
    return Pair(
        messages=messages,
        chosen=str(record["chosen"]).strip(),
        rejected=str(record["rejected"]).strip(),
        dimension=_text_or_none(record.get("dimension")),
        preference=_text_or_none(record.get("preference")),
        weight=float(weight) if isinstance(weight, int | float) else 1.0,
        group=str(group).strip() if group is not None else _group_of(messages),
        line=line,
    )


def _group_of(messages: Sequence[Message]) -> str:
    """Return the group of pairs that name none: that of their prompt, in whatever case and with whatever around it."""
    return "prompt " + "\n".join(turn.content.strip() for turn in messages).casefold()


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value).strip()
