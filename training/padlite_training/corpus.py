"""The corpus stage: public text in, three JSON files in the work folder out.

`small_talk.json` holds the split of the styled small talk, `dialogues.json` plain chats (training and held out),
`texts.json` stories. Turns alternate user, assistant, user, ...; an optional system sentence stands apart.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from padlite.whole_files import write_whole
from padlite_training import sources
from padlite_training.recipe import HELD_OUT_DIALOGUES, SPLIT_SEED
from padlite_training.split import Scenario, SmallTalkSplit, fingerprint, scenarios_from, split_small_talk, tidy
from padlite_training.styles import PEOPLE_SENTENCE

PLACEHOLDER = re.compile(r"[\[\]<>{}]|\buser ?\d|\(name\)|\bpersonas?\b", re.IGNORECASE)
STORY_WORDS = 600
DEFINITIONS = 6000


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """A plain chat of one *kind*; *system* is empty or a sentence about the assistant."""

    kind: str
    turns: tuple[str, ...]
    system: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Everything that the base model is trained on or judged by."""

    small_talk: SmallTalkSplit
    dialogues: tuple[Dialogue, ...]
    held_out_dialogues: tuple[Dialogue, ...]
    texts: tuple[str, ...] = field(default=())


def build_corpus(data: Path) -> Corpus:
    """Read every source under *data* and return the corpus. Raises NotFoundError when a source is absent."""
    self_dialogues = list(_self_dialogues(data))
    random.Random(SPLIT_SEED).shuffle(self_dialogues)
    texts = [*_stories(data), *_tales(data)]
    kept = self_dialogues[HELD_OUT_DIALOGUES:]
    words = Counter(word for dialogue in kept for turn in dialogue.turns for word in turn.lower().split())
    small_talk = read_small_talk(data)
    return Corpus(
        small_talk=small_talk,
        dialogues=(
            *kept,
            *own_chats(small_talk),
            *_persona_chats(data),
            *_definitions(data, words),
            *_story_requests(texts),
        ),
        held_out_dialogues=tuple(self_dialogues[:HELD_OUT_DIALOGUES]),
        texts=tuple(text for _, text in texts),
    )


def read_small_talk(data: Path | None, *, situations: int | None = None) -> SmallTalkSplit:
    """Return the styled small talk, divided; without *data* only padlite's own, of that the first *situations*."""
    public = scenarios_from(_with_more_answers(data), prefix="ms-", key="scenario") if data else []
    own = scenarios_from(_with_number(sources.own_small_talk()[:situations]), prefix="own-", key="number")
    return split_small_talk(public, own)


def save_corpus(corpus: Corpus, folder: Path) -> None:
    """Write *corpus* to the three files in *folder*; the last one, texts.json, says that all are there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "small_talk.json", json.dumps(asdict(corpus.small_talk)).encode())
    chats = {
        "training": [asdict(dialogue) for dialogue in corpus.dialogues],
        "held_out": [asdict(dialogue) for dialogue in corpus.held_out_dialogues],
    }
    write_whole(folder / "dialogues.json", json.dumps(chats).encode())
    write_whole(folder / "texts.json", json.dumps(corpus.texts).encode())


def load_small_talk(folder: Path) -> SmallTalkSplit:
    """Return the split of the small talk that `save_corpus` wrote to *folder*."""
    raw = json.loads((folder / "small_talk.json").read_text(encoding="utf-8"))

    def part(name: str) -> tuple[Scenario, ...]:
        return tuple(
            Scenario(name=row["name"], questions=tuple(row["questions"]), answers=row["answers"]) for row in raw[name]
        )

    return SmallTalkSplit(
        training=part("training"),
        wordings=part("wordings"),
        scenarios=part("scenarios"),
        own=part("own"),
        dropped=raw["dropped"],
    )


def load_corpus(folder: Path) -> Corpus:
    """Return the corpus that `save_corpus` wrote to *folder*."""
    chats = json.loads((folder / "dialogues.json").read_text(encoding="utf-8"))

    def part(name: str) -> tuple[Dialogue, ...]:
        return tuple(Dialogue(kind=row["kind"], turns=tuple(row["turns"]), system=row["system"]) for row in chats[name])

    return Corpus(
        small_talk=load_small_talk(folder),
        dialogues=part("training"),
        held_out_dialogues=part("held_out"),
        texts=tuple(json.loads((folder / "texts.json").read_text(encoding="utf-8"))),
    )


def corpus_texts(corpus: Corpus) -> Iterator[str]:
    """Yield every text that may be trained on, for the tokenizer."""
    for scenario in corpus.small_talk.training:
        yield from scenario.questions
        yield from scenario.answers.values()
        yield from scenario.answers.values()
    for dialogue in corpus.dialogues:
        yield dialogue.system
        yield from dialogue.turns
    yield from corpus.texts


def _with_more_answers(data: Path) -> Iterator[dict[str, sources.Json]]:
    """Yield the public scenarios, those that are trained on with the answers in further styles written for padlite."""
    more = sources.own_answers()
    for row in sources.read_rows(data, "ms_personality_chat"):
        number, answers = int(str(row["scenario"])), row["answers"]
        if not isinstance(answers, dict):
            raise TypeError(f"scenario {number}: answers must be a table")
        yield {**row, "answers": {**answers, **more.get(number, {})}}


def _with_number(rows: Sequence[dict[str, sources.Json]]) -> list[dict[str, sources.Json]]:
    return [{**row, "number": number} for number, row in enumerate(rows)]


def _texts(value: sources.Json) -> list[str]:
    return [tidy(str(item)) for item in value] if isinstance(value, list) else []


def _self_dialogues(data: Path) -> Iterator[Dialogue]:
    """Yield the neatly written dialogues: at least four in five turns begin with a capital and end with a mark."""
    for row in sources.read_rows(data, "self_dialogue_corpus"):
        turns = [turn[:1].upper() + turn[1:] for turn in _texts(row["turns"]) if turn]
        neat = sum(turn[-1] in ".?!" for turn in turns) / max(1, len(turns))
        lonely = sum(len(re.findall(r"\bi\b", turn)) for turn in turns)
        if len(turns) >= 4 and neat >= 0.8 and lonely == 0:
            yield Dialogue(kind="self", turns=tuple(turns), system=PEOPLE_SENTENCE)


def _persona_chats(data: Path) -> Iterator[Dialogue]:
    """Yield the generated chats; a third of them open with placeholders instead of names, which are cut off."""
    for number, row in enumerate(sources.read_rows(data, "synthetic_persona_chat")):
        turns, persona = _texts(row["turns"]), " ".join(_texts(row["persona2"]))
        while any(PLACEHOLDER.search(turn) for turn in turns[:2]):
            turns = turns[2:]
        if len(turns) >= 4 and all(turns) and not any(PLACEHOLDER.search(turn) for turn in turns):
            yield Dialogue(kind="persona", turns=tuple(turns), system=persona if number % 2 else PEOPLE_SENTENCE)


def own_chats(small_talk: SmallTalkSplit) -> Iterator[Dialogue]:
    """Yield padlite's own conversations but those in which the person says what is kept to judge by."""
    held = (*small_talk.wordings, *small_talk.scenarios, *small_talk.own)
    forbidden = {fingerprint(question) for scenario in held for question in scenario.questions}
    for row in sources.own_chats():
        turns = _texts(row["turns"])
        if not forbidden & {fingerprint(turn) for turn in turns[::2]}:
            yield Dialogue(kind="chat", turns=tuple(turns))


def _stories(data: Path) -> Iterator[tuple[str, str]]:
    for name in ("african_storybook", "pratham_storyweaver"):
        for row in sources.read_rows(data, name):
            yield tidy(str(row["title"])), "\n\n".join(_texts(row["pages"]))


def _tales(data: Path) -> Iterator[tuple[str, str]]:
    for row in sources.read_rows(data, "fairytaleqa"):
        if row["kind"] == "story":
            yield str(row["story"]).replace("-", " "), "\n\n".join(_texts(row["sections"]))


def _story_requests(texts: Sequence[tuple[str, str]]) -> Iterator[Dialogue]:
    """Yield the short stories once more as answers to a request."""
    requests = ("Tell me a story.", "Can you tell me a story?", "Tell me the story of {}.", "Do you know a story?")
    for number, (title, text) in enumerate(texts):
        if len(text.split()) <= STORY_WORDS // 3:
            yield Dialogue(kind="story", turns=(requests[number % len(requests)].format(title), text))


def _definitions(data: Path, words: Counter[str]) -> Iterator[Dialogue]:
    """Yield 'What is X?' turns for nouns that occur in the chats, so that the answers are about known things."""
    forms = ("What is {}?", "What does {} mean?", "What's {}?")
    count = 0
    for row in sources.read_rows(data, "open_english_wordnet"):
        lemmas, definition = _texts(row["lemmas"]), tidy(str(row["definition"]))
        if row["pos"] != "n" or not lemmas or not lemmas[0].isalpha() or not lemmas[0].islower() or "(" in definition:
            continue
        if words[lemmas[0]] < 10 or len(definition.split()) > 20 or count >= DEFINITIONS:
            continue
        article = "an" if lemmas[0][0] in "aeiou" else "a"
        answer = f"{article.capitalize()} {lemmas[0]} is {definition}."
        yield Dialogue(kind="definition", turns=(forms[count % 3].format(f"{article} {lemmas[0]}"), answer))
        count += 1
