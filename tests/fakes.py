"""Small stand-ins for the seams: a base model that follows a rule, a tokenizer of letters, rewards from a function."""

from collections.abc import Callable, Sequence

import numpy as np

from padlite.errors import ContextFullError
from padlite.seams import BaseState, Dimension, FloatArray, Message, Step

ALPHABET = "\0abcdefghijklmnopqrstuvwxyz <>|_.\n"
END = 0


class LetterTokenizer:
    """One token a character; `\\0` ends an answer; ``<end>`` is a control text for token 0."""

    control_texts = frozenset({"<end>"})
    beginning: int | None = None

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return an id for each character, and for ``<end>`` as a whole if *special*."""
        if special and "<end>" in text:
            before, after = text.split("<end>", 1)
            return [*self.encode(before, special=False), END, *self.encode(after, special=True)]
        return [max(1, ALPHABET.find(letter.lower())) for letter in text]

    def piece(self, token: int) -> bytes:
        """Return the character."""
        return b"" if token == END else ALPHABET[token].encode()

    def is_end(self, token: int) -> bool:
        """Token 0 ends."""
        return token == END


class TableBase:
    """A base model whose logits are *rule*(tokens so far); counts what it evaluates, keeps one cache a sequence."""

    def __init__(
        self, rule: Callable[[Sequence[int]], FloatArray], *, vocabulary_size: int, context_length: int = 256
    ) -> None:
        self.rule = rule
        self.vocabulary_size = vocabulary_size
        self.hidden_size = 4
        self.context_length = context_length
        self.evaluated_tokens = 0
        self.cached: dict[int, list[int]] = {}
        self.batches: list[tuple[int, ...]] = []  # sequences that were stepped together

    def prefill(
        self, tokens: Sequence[int], *, sequence: int = 0, cancelled: Callable[[], bool] | None = None
    ) -> BaseState:
        """Evaluate what differs from the cache."""
        old = self.cached.get(sequence, [])
        shared = 0
        while shared < min(len(old), len(tokens) - 1) and old[shared] == tokens[shared]:
            shared += 1
        self.evaluated_tokens += len(tokens) - shared
        self.cached[sequence] = list(tokens)
        return self._state(sequence)

    def step(self, token: int, *, sequence: int = 0) -> BaseState:
        """Append *token*."""
        if len(self.cached[sequence]) >= self.context_length:
            raise ContextFullError("full")
        self.cached[sequence].append(token)
        self.evaluated_tokens += 1
        return self._state(sequence)

    def step_together(self, token: int, sequences: Sequence[int]) -> list[BaseState]:
        """Append *token* to each of *sequences*."""
        self.batches.append(tuple(sequences))
        return [self.step(token, sequence=sequence) for sequence in sequences]

    def fork(self, source: int, target: int) -> None:
        """Copy the cache."""
        self.cached[target] = list(self.cached.get(source, []))

    def _state(self, sequence: int) -> BaseState:
        logits = np.asarray(self.rule(self.cached[sequence]), dtype=np.float32)
        return BaseState(logits=logits, hidden=np.zeros(self.hidden_size, dtype=np.float32))


def spelling(text: str, *, length: int = len(ALPHABET), after: int = 0) -> Callable[[Sequence[int]], FloatArray]:
    """Return a rule that spells *text* from position *after* on and then ends; other letters are 2 nats less likely."""

    def rule(tokens: Sequence[int]) -> FloatArray:
        logits = np.asarray(-np.arange(length) / 100 - 2, dtype=np.float32)
        at = len(tokens) - after
        logits[ALPHABET.index(text[at]) if 0 <= at < len(text) else END] = 0.0
        return logits

    return rule


class FunctionReward:
    """Rewards that are *function*(step), (k, m)."""

    def __init__(self, function: Callable[[Step], FloatArray], names: Sequence[str]) -> None:
        self.function = function
        self.dimensions = tuple(Dimension(name=name) for name in names)
        self.calls = 0
        self.begun: list[tuple[list[tuple[str, str]], list[int]]] = []
        self.advanced: list[tuple[list[int], list[float]]] = []
        self.cancelled: Callable[[], bool] = lambda: False

    reserved_tokens = 0

    def begin(self, messages: Sequence[Message], prompt: Sequence[int], cancelled: Callable[[], bool]) -> None:
        """Remember which answer begins."""
        self.begun.append(([(message.role, message.content) for message in messages], list(prompt)))
        self.cancelled = cancelled

    def advance(self, context: Sequence[int], weights: FloatArray) -> None:
        """Remember which token comes."""
        self.advanced.append((list(context), weights.tolist()))

    def features(self, step: Step) -> FloatArray:
        """Return what the function gives."""
        self.calls += 1
        return np.asarray(self.function(step), dtype=np.float32)


def liking(letters: str, *, by: float, names: Sequence[str] = ("style",)) -> FunctionReward:
    """Return a reward of *by* nats in the first dimension for each of *letters*."""
    liked = [ALPHABET.index(letter) for letter in letters]

    def function(step: Step) -> FloatArray:
        features = np.zeros((len(step.candidates), len(names)), dtype=np.float32)
        features[np.isin(step.candidates, liked), 0] = by
        return features

    return FunctionReward(function, names)
