"""Reading a profile's TOML, strictly: an unknown key, a wrong type or a value out of range is an error with its line.

Messages name the file, the line and the key, never a text or a weight that the person wrote.
"""

import contextlib
import math
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import cast

from padlite.errors import ProfileError, UsageError, did_you_mean
from padlite.options import DEVICES, LARGEST_WEIGHT, DecodingOptions, EngineOptions, OverflowPolicy
from padlite.profile.keys import (
    PREFERENCES,
    SECTIONS,
    SENTENCES,
    TEXT,
    TEXT_KEYS,
    TOP_LEVEL,
    WHOLE_NUMBERS,
    Engine,
    KeyPath,
    advice,
    meant_elsewhere,
)
from padlite.profile.lines import line_of_key
from padlite.profile.record import DEFAULT_MODEL, Decoding, Profile, Sentence

LARGEST_FILE = 1 << 20
MOST_SENTENCES = 16  # each costs memory for a context of its own and about one more evaluation a token
LONGEST_SENTENCE = 2000  # characters; of a preference text too
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),  # before int: a bool is one
    (str, "text"),
    (int, "a whole number"),
    (float, "a number with a point"),
    (list, "a list"),
    (dict, "a section"),
)


def parse_profile(text: str, *, source: Path | None = None) -> Profile:
    """Return the profile that the TOML *text* describes; relative paths in it start at the folder of *source*.

    Raises ProfileError, which names *source* and the line.
    """
    return _Reader(text, source).profile()


def read_text(path: Path) -> str:
    """Return the text of the file *path*, or raise ProfileError if it can't be a profile."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ProfileError(f"can't read {path}: {error.strerror}", remedy="padlite profile list") from error
    if len(content) > LARGEST_FILE:
        raise ProfileError(f"{path} is larger than 1 MiB: that is no profile", remedy="padlite profile list")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ProfileError(
            f"{path}, line {line}: this is not UTF-8 text", remedy="save the file as UTF-8 in your editor"
        ) from error


def expanded(text: str) -> Path:
    """Return *text* as a path with ~ resolved, or raise UsageError if it names an unknown user."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"there is no home folder for {text}", remedy="write the path in full") from error


class _Reader:
    """Reads one profile; knows where in it each message has to point."""

    def __init__(self, text: str, source: Path | None) -> None:
        self.text = text
        self.source = source

    def profile(self) -> Profile:
        data = self._parsed()
        self._refuse_unknown("", data, (*TOP_LEVEL, *SECTIONS))
        sections = {name: self._section(data, name) for name in SECTIONS}
        for name in ("decoding", "engine", "context"):
            self._refuse_unknown(name, sections[name], SECTIONS[name])
        self._refuse_contradictions(data)
        weights = {name: value for name, value in sections[PREFERENCES].items() if name not in {SENTENCES, TEXT}}
        sentences = self._sentences(sections[PREFERENCES].get(SENTENCES, {}), weights)
        engine = self._engine(sections["engine"])
        return Profile(
            name=self._text(data, "name") or (self.source.stem if self.source else ""),
            model=self._text(data, "model") or DEFAULT_MODEL,
            base=self._path(data, "base"),
            reward=self._path(data, "reward"),
            reward_text=self._text(data, "reward_text") or "",
            about=self._text(data, "about") or "",
            system=self._text(data, "system") or "",
            preferences=MappingProxyType(
                {name: self._weight(name, value, (PREFERENCES, name)) for name, value in weights.items()}
            ),
            sentences=MappingProxyType(sentences),
            preference_text=self._preference_text(sections[PREFERENCES]),
            decoding=self._decoding(sections["decoding"]),
            context_length=engine.context_length,
            threads=engine.threads,
            gpu_layers=engine.gpu_layers,
            device=engine.device,
            overflow=self._overflow(sections["context"]),
            source=self.source,
            lines=MappingProxyType(self._lines_of(weights, sentences)),
        )

    def _parsed(self) -> Mapping[str, object]:
        try:
            data: Mapping[str, object] = tomllib.loads(self.text)
        except RecursionError as error:
            raise self._error(None, "brackets are nested too deeply", self._edit()) from error
        except ValueError as error:  # TOMLDecodeError is one, and so is a number with thousands of digits
            raise self._syntax_error(error) from error
        if not data:
            target = shlex.quote(str(self.source)) if self.source else ""
            raise self._error(None, "the profile is empty", f"padlite profile new --force {target}".rstrip())
        return data

    def _syntax_error(self, error: ValueError) -> ProfileError:
        if not isinstance(error, tomllib.TOMLDecodeError):
            return self._error(None, "a number in it is too long", self._edit())
        reason, _, place = str(error).rpartition(" (at ")
        found = re.match(r"line (\d+)", place)
        line = int(found[1]) if found else self.text.rstrip().count("\n") + 1
        return self._error(line, f"this is not valid TOML: {reason[:1].lower()}{reason[1:]}", self._edit())

    # messages

    def _error(self, line: int | None, problem: str, remedy: str) -> ProfileError:
        where = f"{self.source}{f', line {line}' if line else ''}: " if self.source else ""
        return ProfileError(where + problem, remedy=remedy)

    def _error_at(self, path: KeyPath, problem: str, remedy: str) -> ProfileError:
        return self._error(line_of_key(self.text, path), problem, remedy)

    def _edit(self) -> str:
        return f"padlite profile edit {shlex.quote(str(self.source))}" if self.source else "correct it in your editor"

    def _refuse_unknown(self, section: str, data: Mapping[str, object], known: Iterable[str]) -> None:
        known = tuple(known)
        for key in data:
            if key not in known:
                path = (section, key) if section else (key,)
                where = f" in [{section}]" if section else ""
                problem = f"unknown key {key!r}{where}{did_you_mean(key, known) or meant_elsewhere(key)}"
                raise self._error_at(path, problem, advice(key, section, known))

    def _refuse_contradictions(self, data: Mapping[str, object]) -> None:
        if "model" in data and "base" in data:
            problem = "both 'model' and 'base' are given, and only one can be the model"
            raise self._error_at(("base",), problem, "keep model (the name of a bundle) or base (a GGUF file)")

    # values

    def _section(self, data: Mapping[str, object], name: str) -> Mapping[str, object]:
        value = data.get(name, {})
        if not isinstance(value, dict):
            problem = f"{name} must be a section, not {kind_of(value)}"
            raise self._error_at((name,), problem, f"write [{name}] on a line of its own")
        return cast("dict[str, object]", value)

    def _text(self, data: Mapping[str, object], key: str) -> str | None:
        value = data.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self._error_at((key,), f"{key} must be text, not {kind_of(value)}", f'put it in quotes: {key} = "…"')
        if not value.strip() and key not in {"about", "system"}:
            raise self._error_at((key,), f"{key} is empty", f"give {key} a value, or remove the line")
        if "\0" in value:
            raise self._error_at((key,), f"{key} holds a NUL character", "remove it")
        return value

    def _path(self, data: Mapping[str, object], key: str) -> Path | None:
        text = self._text(data, key)
        folder = self.source.parent if self.source else Path()
        if text is None:
            return None
        with self._judged((key,)):
            return (folder / expanded(text)).absolute()

    def _weight(self, name: str, value: object, path: KeyPath) -> float:
        remedy = f"set {name} to a number from -1 (less of it) to 1 (more of it)"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._error_at(path, f"the weight of {name!r} must be a number, not {kind_of(value)}", remedy)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error_at(path, f"the weight of {name!r} is not a finite number", remedy)
        if abs(value) > LARGEST_WEIGHT:
            raise self._error_at(path, f"the weight of {name!r} is out of range (-10 to 10)", remedy)
        return float(value)

    def _number(self, path: KeyPath, value: object) -> int | float:
        key = path[-1]
        wanted = "a whole number" if key in WHOLE_NUMBERS else "a number"
        fits = isinstance(value, int if key in WHOLE_NUMBERS else int | float) and not isinstance(value, bool)
        if not fits:
            raise self._error_at(path, f"{key} must be {wanted}, not {kind_of(value)}", f"set {key} to {wanted}")
        return cast("int | float", value)

    def _device(self, path: KeyPath, value: object) -> str:
        if not isinstance(value, str):
            raise self._error_at(path, f"device must be text, not {kind_of(value)}", f'write device = "{DEVICES[0]}"')
        return value

    def _decoding(self, data: Mapping[str, object]) -> Decoding:
        found: dict[str, object] = {}
        for key, value in data.items():
            found[key] = self._stop(value) if key == "stop" else self._number(("decoding", key), value)
            with self._judged(("decoding", key)):
                DecodingOptions(**cast("Decoding", {key: found[key]}))
        return cast("Decoding", found)

    def _engine(self, data: Mapping[str, object]) -> EngineOptions:
        options = EngineOptions()
        for key, value in data.items():
            path = ("engine", key)
            one = cast("Engine", {key: self._device(path, value) if key == "device" else self._number(path, value)})
            with self._judged(path):
                options = replace(options, **one)
        return options

    @contextlib.contextmanager
    def _judged(self, path: KeyPath) -> Iterator[None]:
        """Give the file and the line to the message with which the options refuse a value."""
        try:
            yield
        except UsageError as error:
            raise self._error_at(path, error.message, error.remedy) from error
        except OverflowError as error:  # an integer with hundreds of digits
            raise self._error_at(path, f"{path[-1]} is out of range", f"set {path[-1]} to a smaller number") from error

    def _stop(self, value: object) -> tuple[str, ...]:
        texts: list[object] = cast("list[object]", value) if isinstance(value, list) else [value]
        if not all(isinstance(text, str) for text in texts):
            problem = "stop must be a list of texts"
            raise self._error_at(("decoding", "stop"), problem, 'write it like this: stop = ["END"]')
        return tuple(cast("list[str]", texts))

    def _overflow(self, data: Mapping[str, object]) -> OverflowPolicy:
        value = data.get("overflow", OverflowPolicy.STOP.value)
        known = [policy.value for policy in OverflowPolicy]
        if not isinstance(value, str) or value not in known:
            meant = did_you_mean(value, known) if isinstance(value, str) else ""
            problem = f"overflow must be {' or '.join(repr(name) for name in known)}{meant}"
            raise self._error_at(("context", "overflow"), problem, f'write overflow = "{known[0]}"')
        return OverflowPolicy(value)

    def _sentences(self, value: object, weights: Mapping[str, object]) -> dict[str, Sentence]:
        path = (PREFERENCES, SENTENCES)
        example = (
            f'[{PREFERENCES}.{SENTENCES}], and below it: pirate = {{ text = "Answer like a pirate.", weight = 0.8 }}'
        )
        if not isinstance(value, dict):
            raise self._error_at(path, f"{SENTENCES} must be a section, not {kind_of(value)}", f"write {example}")
        entries = cast("dict[str, object]", value)
        if len(entries) > MOST_SENTENCES:
            problem = f"there are {len(entries)} sentences; {MOST_SENTENCES} are the most"
            raise self._error_at(path, problem, "make dimensions of them: padlite dimension add --help")
        for name, entry in entries.items():
            if not isinstance(entry, dict):
                problem = f"the sentence {name!r} must be {{ text, weight }}, not {kind_of(entry)}"
                raise self._error_at((*path, name), problem, f"write {example}")
            if name in weights:
                problem = f"{name!r} is both a sentence and a weight"
                raise self._error_at(
                    (*path, name), problem, f"keep one of them; a sentence's weight stands beside it: {example}"
                )
        return {name: self._sentence(name, cast("dict[str, object]", entry)) for name, entry in entries.items()}

    def _preference_text(self, section: Mapping[str, object]) -> str:
        path, value = (PREFERENCES, TEXT), section.get(TEXT)
        remedy = f'write [{PREFERENCES}.{TEXT}], and below it: about = "I love jokes."'
        if value is None:
            return ""
        if not isinstance(value, dict):
            raise self._error_at(path, f"{TEXT} must be a section, not {kind_of(value)}", remedy)
        entries = cast("dict[str, object]", value)
        for key in entries:
            if key not in TEXT_KEYS:
                meant = did_you_mean(key, TEXT_KEYS)
                raise self._error_at((*path, key), f"unknown key {key!r} under [{PREFERENCES}.{TEXT}]{meant}", remedy)
        about = entries.get("about")
        if not isinstance(about, str) or not about.strip():
            raise self._error_at(path, f"[{PREFERENCES}.{TEXT}] has no text in about", remedy)
        if "\0" in about or len(about) > LONGEST_SENTENCE:
            problem = f"about holds a NUL character or more than {LONGEST_SENTENCE:,} others"
            raise self._error_at((*path, "about"), problem, "shorten it to what matters for how you are answered")
        return about.strip()

    def _sentence(self, name: str, entry: Mapping[str, object]) -> Sentence:
        path = (PREFERENCES, SENTENCES, name)
        remedy = f'write it like this: {name} = {{ text = "Answer like a pirate.", weight = 0.8 }}'
        for key in entry:
            if key not in {"text", "weight"}:
                meant = did_you_mean(key, ("text", "weight"))
                raise self._error_at((*path, key), f"unknown key {key!r} in the sentence {name!r}{meant}", remedy)
        text = entry.get("text")
        if not isinstance(text, str) or not text.strip():
            raise self._error_at(path, f"the sentence {name!r} has no text", remedy)
        if "\0" in text or len(text) > LONGEST_SENTENCE:
            problem = (
                f"the text of the sentence {name!r} holds a NUL character or more than {LONGEST_SENTENCE:,} others"
            )
            raise self._error_at(path, problem, "shorten it: a sentence says how to answer, not what about")
        return Sentence(text=text.strip(), weight=self._weight(name, entry.get("weight", 1.0), (*path, "weight")))

    def _lines_of(self, weights: Iterable[str], sentences: Iterable[str]) -> dict[str, int]:
        paths: dict[str, KeyPath] = {name: (PREFERENCES, name) for name in weights}
        paths |= {name: (PREFERENCES, SENTENCES, name) for name in sentences}
        return {name: line for name, path in paths.items() if (line := line_of_key(self.text, path))}


def kind_of(value: object) -> str:
    """Return what *value* is, in a person's words."""
    return next((words for kind, words in _KINDS if isinstance(value, kind)), "a date or a time")
