"""Reading the public text that the bundled model is trained on, and saying where it can be had when it is absent.

Each source is a folder with `rows.jsonl.gz`, one JSON object a line. The text itself is never copied into this
repository; only the small talk in `data/`, which was written for padlite, is part of it.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from padlite.errors import NotFoundError

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One folder of text: its licence, where it can be had, and what it is used for."""

    name: str
    licence: str
    origin: str
    use: str


SOURCES = (
    Source(
        name="ms_personality_chat",
        licence="MIT",
        origin="Microsoft Personality Chat (QnA Maker chit-chat): github.com/microsoft/BotBuilder-PersonalityChat",
        use="small talk in five styles: base model and reward head",
    ),
    Source(
        name="self_dialogue_corpus",
        licence="BSD-3-Clause",
        origin="github.com/jfainberg/self_dialogue_corpus",
        use="chats about films, music and sport: base model",
    ),
    Source(
        name="synthetic_persona_chat",
        licence="CC-BY-4.0",
        origin="github.com/google-research-datasets/Synthetic-Persona-Chat",
        use="chats between two people: base model",
    ),
    Source(
        name="african_storybook",
        licence="CC-BY-4.0",
        origin="github.com/global-asp/asp-source",
        use="children's stories: base model",
    ),
    Source(
        name="pratham_storyweaver",
        licence="CC-BY-4.0",
        origin="github.com/global-asp/pb-source",
        use="children's stories: base model",
    ),
    Source(
        name="fairytaleqa",
        licence="Apache-2.0",
        origin="github.com/uci-soe/FairytaleQAData",
        use="fairy tales: base model",
    ),
    Source(
        name="open_english_wordnet",
        licence="CC-BY-4.0",
        origin="github.com/globalwordnet/english-wordnet",
        use="'What is ...?' turns: base model",
    ),
)

OWN_SMALL_TALK = Source(
    name="padlite small talk",
    licence="the licence of padlite",
    origin="training/padlite_training/data/, written for padlite",
    use="small talk in eight styles: base model and reward head; conversations of several turns: base model",
)


def read_rows(data: Path, name: str) -> Iterator[dict[str, Json]]:
    """Yield the rows of the source *name* under the folder *data*.

    Raises NotFoundError naming the public origin when the source is absent.
    """
    path = data / name / "rows.jsonl.gz"
    if not path.is_file():
        origin = next(source.origin for source in SOURCES if source.name == name)
        raise NotFoundError(
            f"training text {name!r} is not there: {path}",
            remedy=f"get it from {origin}, write it as one JSON object a line to {path} (see training/README.md)",
        )
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def own_small_talk() -> list[dict[str, Json]]:
    """Return padlite's own small talk: rows with `questions` and `answers` by style."""
    return _own_rows("smalltalk.jsonl")


def own_chats() -> list[dict[str, Json]]:
    """Return padlite's own conversations, which go on from turn to turn: rows with `turns`."""
    return _own_rows("chats.jsonl")


def own_answers() -> dict[int, dict[str, str]]:
    """Return answers written for padlite in the styles that ms_personality_chat lacks, by its scenario's number."""
    rows = _own_rows("more_answers.jsonl")
    return {int(str(row.pop("scenario"))): {style: str(text) for style, text in row.items()} for row in rows}


def _own_rows(name: str) -> list[dict[str, Json]]:
    text = resources.files("padlite_training").joinpath("data", name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]
