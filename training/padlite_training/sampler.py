"""Draws dialogues for the base model and packs them into rows.

A document is a list of token ids with a weight for each (how much the loss counts there). Styled small talk is
composed afresh each time: questions, style and sentence are drawn. Documents in a row don't see each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from padlite_training.chat_format import CONTROL_TOKENS
from padlite_training.corpus import Corpus, Dialogue
from padlite_training.split import Scenario, drawing_chances
from padlite_training.styles import NEUTRAL_SENTENCES, PLAIN_STYLE, SENTENCES, STYLES

SHARES = {"self": 0.22, "persona": 0.14, "chat": 0.16, "story": 0.04, "text": 0.07, "definition": 0.03}
"""In which proportions the kinds of text that are there divide the tokens that small talk leaves."""

SIZE_POWER = 0.85
"""A scenario is drawn in proportion to the number of its questions to this power."""

PUBLIC_SHARE = 0.3
"""How much of the small talk is public. The 58 public scenarios, in a hundred wordings each, are learned soon."""

PLAIN_STYLE_SHARE = 0.5
"""How often the answer is in `PLAIN_STYLE` where no style is asked for; the other styles share the rest."""

STYLED_DRAWS = 1 / 6
"""How often all styles of a question are drawn instead of one dialogue without a style: three fifths of all dialogues.

With a third of them a base forgot in two hours a part of how each style sounds.
"""

OPENING_TOKENS, OPENING_WEIGHT = 4, 3.0
"""How many tokens open an answer of small talk, and how many times as much as the others each of them counts."""

EXCHANGES = (0.5, 0.2, 0.12, 0.1, 0.08)
"""The chance of 1, 2, ... exchanges in a dialogue of small talk."""

NO_TOPIC = -1


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids, their weights in the loss (the first token is never predicted), and topics.

    The topic of a token before which a question of small talk ends and after which its answer begins is the number of
    its scenario; every other token's is `NO_TOPIC`.
    """

    tokens: list[int]
    weights: list[float]
    topics: list[int]

    def part(self, begin: int, end: int) -> "Document":
        """Return the tokens from *begin* to before *end* as a document."""
        return Document(self.tokens[begin:end], self.weights[begin:end], self.topics[begin:end])


def joined(parts: Sequence[Document]) -> Document:
    """Return *parts*, one after the other, as one document."""
    return Document(
        [token for part in parts for token in part.tokens],
        [weight for part in parts for weight in part.weights],
        [topic for part in parts for topic in part.topics],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A batch: tokens, targets and topics (B, T) int64, weights (B, T), document number of each position (B, T)."""

    tokens: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    documents: npt.NDArray[np.int32]
    topics: npt.NDArray[np.int64]


class ChatWriter:
    """Turns messages into documents of token ids, in the model's chat format."""

    def __init__(self, tokenizer: Tokenizer, *, user_weight: float) -> None:
        self.tokenizer, self.user_weight = tokenizer, user_weight
        self.end_of_text, self.start, self.end = range(len(CONTROL_TOKENS))
        self.newline = self.encode("\n")
        self.roles = {role: self.encode(role) for role in ("system", "user", "assistant")}

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain *text*."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def turn(self, role: str, content: list[int], weight: float, topic: int = NO_TOPIC) -> Document:
        """Return one message as a document; the header counts nothing, the newline after the turn very little.

        In an answer to a *topic* the first tokens count more: they decide what it will be about.
        """
        head = [self.start, *self.roles[role], *self.newline]
        tail = [self.end, *self.newline]
        weights = [0.0] * len(head) + [weight] * (len(content) + 1) + [0.05 * weight] * len(self.newline)
        if topic != NO_TOPIC:
            for place in range(len(head), len(head) + min(OPENING_TOKENS, len(content))):
                weights[place] *= OPENING_WEIGHT
        topics = [NO_TOPIC] * len(weights)
        topics[len(head) - 1] = topic
        return Document(head + content + tail, weights, topics)

    def chat(
        self, system: list[int], turns: Sequence[list[int]], *, user_weight: float, topics: Sequence[int] = ()
    ) -> Document:
        """Return a dialogue: an optional *system* message, then user and assistant in turn, each pair on its topic."""
        parts = [self.turn("system", system, 0.0)] if system else []
        for number, content in enumerate(turns):
            role, weight = ("assistant", 1.0) if number % 2 else ("user", user_weight)
            topic = topics[number // 2] if number % 2 and topics else NO_TOPIC
            parts.append(self.turn(role, content, weight, topic))
        return joined(parts)

    def text(self, content: list[int]) -> Document:
        """Return plain text between end-of-text tokens."""
        tokens = [self.end_of_text, *content, self.end_of_text]
        return Document(tokens, [0.0] + [1.0] * (len(content) + 1), [NO_TOPIC] * len(tokens))


class SmallTalk:
    """Composes dialogues of styled small talk."""

    def __init__(self, scenarios: Sequence[Scenario], writer: ChatWriter, *, plain_sentence: float) -> None:
        self.writer, self.plain_sentence = writer, plain_sentence
        self.questions = [[self._wordings(question) for question in scenario.questions] for scenario in scenarios]
        self.answers = [{s: writer.encode(scenario.answers[s]) for s in STYLES} for scenario in scenarios]
        self.waiting: list[Document] = []
        self.sentences = {style: [writer.encode(text) for text in SENTENCES[style]] for style in STYLES}
        self.neutral = [writer.encode(text) for text in NEUTRAL_SENTENCES]
        self.chances = drawing_chances(scenarios, power=SIZE_POWER, public_share=PUBLIC_SHARE)
        others = (1.0 - PLAIN_STYLE_SHARE) / (len(STYLES) - 1)
        self.voices = np.array([PLAIN_STYLE_SHARE if style == PLAIN_STYLE else others for style in STYLES])

    def _wordings(self, question: str) -> list[list[int]]:
        bare = question.rstrip("?!.")
        return [self.writer.encode(text) for text in (question, question, question.lower(), bare, bare.lower()) if text]

    def question(self, rng: np.random.Generator) -> Document:
        """Return one question without its answer, for its topic alone."""
        number = int(rng.choice(len(self.answers), p=self.chances))
        asked = self.writer.turn("user", self._worded(number, rng), 0.0)
        answer = self.writer.turn("assistant", [], 0.0, number)
        return joined([asked, answer.part(0, answer.topics.index(number) + 1)])

    def draw(self, rng: np.random.Generator) -> Document:
        """Return one dialogue. Some ask for a style; these come together, the same questions in each style.

        All answers to one question side by side teach what the sentence changes faster than unrelated ones.
        """
        if not self.waiting:
            self.waiting = self._styled(rng) if rng.random() < STYLED_DRAWS else [self._unstyled(rng)]
        return self.waiting.pop()

    def _styled(self, rng: np.random.Generator) -> list[Document]:
        asked = self._asked(rng)
        sentence = 0 if rng.random() < self.plain_sentence else int(rng.integers(len(self.sentences[STYLES[0]])))
        return [
            self._chat(self.sentences[style][sentence], asked, [style] * len(asked))
            for style in rng.permutation(STYLES)
        ]

    def _unstyled(self, rng: np.random.Generator) -> Document:
        system = self.neutral[rng.integers(len(self.neutral))] if rng.random() < 0.1 else []
        asked = self._asked(rng)
        voices = rng.choice(len(STYLES), len(asked), p=self.voices)
        return self._chat(system, asked, [STYLES[voice] for voice in voices])

    def _asked(self, rng: np.random.Generator) -> list[tuple[int, list[int]]]:
        """Return the scenarios of one dialogue, each with a question."""
        numbers = rng.choice(len(self.answers), 1 + rng.choice(len(EXCHANGES), p=EXCHANGES), p=self.chances)
        return [(int(number), self._worded(number, rng)) for number in numbers]

    def _worded(self, number: int, rng: np.random.Generator) -> list[int]:
        """Return a question of scenario *number* in one of its wordings."""
        wordings = self.questions[number][rng.integers(len(self.questions[number]))]
        return wordings[rng.integers(len(wordings))]

    def _chat(self, system: list[int], asked: Sequence[tuple[int, list[int]]], styles: Sequence[str]) -> Document:
        """Return a dialogue of the questions *asked*, each answered in its style of *styles*."""
        turns = [
            turn
            for (number, words), style in zip(asked, styles, strict=True)
            for turn in (words, self.answers[number][style])
        ]
        topics = [number for number, _ in asked]
        return self.writer.chat(system, turns, user_weight=self.writer.user_weight, topics=topics)


class Sampler:
    """Draws documents so that each kind gets its share of the tokens, and packs them."""

    def __init__(
        self, corpus: Corpus, writer: ChatWriter, *, seed: int, small_talk: float = 0.5, plain_sentence: float = 0.4
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.writer = writer
        self.small_talk = SmallTalk(corpus.small_talk.training, writer, plain_sentence=plain_sentence)
        self.pools: dict[str, list[Document]] = {kind: [] for kind in SHARES}
        for dialogue in corpus.dialogues:
            self.pools[dialogue.kind].append(self.plain(dialogue))
        self.pools["text"] = [writer.text(writer.encode(text)) for text in corpus.texts]
        there = {kind: share for kind, share in SHARES.items() if self.pools[kind]}
        self.shares = {kind: (1.0 - small_talk) * share / sum(there.values()) for kind, share in there.items()}
        self.shares["small_talk"] = small_talk if there else 1.0
        self.drawn = dict.fromkeys(self.shares, 0)

    def plain(self, dialogue: Dialogue) -> Document:
        """Return a plain chat as a document; chats between people count in full on both sides."""
        both = dialogue.kind in ("self", "persona")
        turns = [self.writer.encode(turn) for turn in dialogue.turns]
        return self.writer.chat(self.writer.encode(dialogue.system), turns, user_weight=1.0 if both else 0.1)

    def rows(self, count: int, length: int) -> Rows:
        """Return *count* packed rows of *length* positions."""
        return pack(self._piece, count, length, self.writer.end_of_text)

    def questions(self, count: int, length: int) -> Rows:
        """Return *count* rows of *length* positions with questions alone."""
        return pack(self._question, count, length, self.writer.end_of_text)

    def _question(self, room: int) -> Document:
        return self.small_talk.question(self.rng).part(0, room)

    def _piece(self, room: int) -> Document:
        """Return a document of the kind furthest behind its share, cut to *room*; a long text begins anywhere."""
        kind = min(self.shares, key=lambda name: self.drawn[name] / self.shares[name])
        pool = self.pools.get(kind)
        document = pool[self.rng.integers(len(pool))] if pool else self.small_talk.draw(self.rng)
        spare = len(document.tokens) - room
        begin = int(self.rng.integers(spare + 1)) if spare > 0 and kind == "text" else 0
        document = document.part(begin, begin + room)
        self.drawn[kind] += len(document.tokens)
        return document


def pack(piece: Callable[[int], Document], count: int, length: int, filler: int) -> Rows:
    """Return rows filled with pieces one after the other; the last piece of a row is cut where the row ends."""
    tokens = np.full((count, length + 1), filler, dtype=np.int64)
    weights = np.zeros((count, length + 1), dtype=np.float32)
    documents = np.zeros((count, length + 1), dtype=np.int32)
    topics = np.full((count, length + 1), NO_TOPIC, dtype=np.int64)
    for row in range(count):
        position, number = 0, 0
        while position < length + 1:
            document = piece(length + 1 - position)
            end = position + len(document.tokens)
            tokens[row, position:end], weights[row, position:end] = document.tokens, document.weights
            weights[row, position] = 0.0
            documents[row, position:end] = number
            topics[row, position:end] = document.topics
            position, number = end, number + 1
    return Rows(
        tokens=tokens[:, :-1], targets=tokens[:, 1:], weights=weights[:, 1:], documents=documents[:, :-1],
        topics=topics[:, :-1],
    )  # fmt: skip
