"""Which of a base model's sequences works for which conversation, so that many conversations need no more memory.

A conversation takes a sequence when its answer begins and gives it back when that ends; what the sequence holds stays
in the cache until the room is needed. It gets the one that holds most of its prompt, or a copy of that (which costs
nothing). Belongs to the thread that steps the model. Knows token ids; knows no text and no queue.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from padlite.errors import ContextFullError, DecodingCancelled, PadliteError
from padlite.seams import BaseState
from padlite.streams import ManySequences

_SAME_CONVERSATION = 0.5  # of a sequence's tokens: if it shares fewer, it is another conversation's and is kept


class SequencedBase(ManySequences, Protocol):
    """A base model whose sequences can be looked at and emptied."""

    def shared_tokens(self, tokens: Sequence[int], sequence: int = 0) -> int:
        """Return how many of the first *tokens* are those that *sequence* begins with."""
        ...

    def cached_tokens(self, sequence: int = 0) -> int:
        """Return how many tokens *sequence* holds."""
        ...

    def forget(self, sequence: int) -> None:
        """Empty *sequence*."""
        ...


class Sequences:
    """The sequences *ids* of *base*, lent to conversations while they answer."""

    def __init__(self, base: SequencedBase, ids: Sequence[int]) -> None:
        self.base = base
        self._idle = list(ids)  # unused for longest first
        self._taken: list[int] = []

    def take(self, tokens: Sequence[int]) -> int:
        """Return a sequence for the prompt *tokens* that holds as much of it as any does."""
        if not self._idle:
            raise PadliteError("more answers than sequences are being decoded", remedy="open with a smaller parallel")
        shared, nearest = max((self.base.shared_tokens(tokens, each), each) for each in (*self._taken, *self._idle))
        own = nearest in self._idle and shared >= _SAME_CONVERSATION * self.base.cached_tokens(nearest)
        empty = (each for each in self._idle if not self.base.cached_tokens(each))
        chosen = nearest if own else next(empty, self._idle[0])
        if shared and chosen != nearest:
            self.base.fork(nearest, chosen)
        self._idle.remove(chosen)
        self._taken.append(chosen)
        return chosen

    def give_back(self, sequence: int) -> None:
        """Take note that nobody uses *sequence* now."""
        self._taken.remove(sequence)
        self._idle.append(sequence)

    def make_room(self) -> bool:
        """Empty the unused sequence that was unused for longest; false if all are empty already."""
        for sequence in self._idle:
            if self.base.cached_tokens(sequence):
                self.base.forget(sequence)
                return True
        return False


class Seat:
    """A base model as one conversation sees it (`ManySequences`): its own sequence is 0, its sentences have 1, 2 …

    Which they really are is decided when an answer begins. *stopped* tells whether that was cancelled, also before it
    began.
    """

    def __init__(self, sequences: Sequences) -> None:
        self._sequences = sequences
        self._base = sequences.base
        self._real: dict[int, int] = {}
        self.stopped: Callable[[], bool] = _never
        self.vocabulary_size: int = self._base.vocabulary_size
        self.hidden_size: int = self._base.hidden_size
        self.context_length: int = self._base.context_length

    @property
    def evaluated_tokens(self) -> int:
        """Tokens that the base model evaluated for anybody."""
        return self._base.evaluated_tokens

    def prefill(
        self, tokens: Sequence[int], *, sequence: int = 0, cancelled: Callable[[], bool] | None = None
    ) -> BaseState:
        """Make *sequence* hold exactly *tokens*; unused sequences make room where there is none."""
        stopped = self.stopped

        def either() -> bool:
            return stopped() or (cancelled is not None and cancelled())

        if either():
            raise DecodingCancelled("stopped", remedy="")
        if sequence not in self._real:
            self._real[sequence] = self._sequences.take(tokens)
        real = self._real[sequence]
        while True:
            try:
                return self._base.prefill(tokens, sequence=real, cancelled=either)
            except ContextFullError:
                if len(tokens) > self.context_length or not self._sequences.make_room():
                    raise

    def step(self, token: int, *, sequence: int = 0) -> BaseState:
        """Append one token and return the state after it; unused sequences make room where there is none."""
        while True:
            try:
                return self._base.step(token, sequence=self._real[sequence])
            except ContextFullError:
                if not self._sequences.make_room():
                    raise

    def step_together(self, token: int, sequences: Sequence[int]) -> list[BaseState]:
        """Append *token* to each of *sequences* in one evaluation; unused sequences make room where there is none."""
        while True:
            try:
                return self._base.step_together(token, [self._real[each] for each in sequences])
            except ContextFullError:
                if not self._sequences.make_room():
                    raise

    def fork(self, source: int, target: int) -> None:
        """Make *target* a copy of *source*: nothing is evaluated."""
        if target not in self._real:
            self._real[target] = self._sequences.take(())
        self._base.fork(self._real[source], self._real[target])

    def release(self) -> None:
        """Give all sequences back; what they hold is found again by its tokens."""
        for real in self._real.values():
            self._sequences.give_back(real)
        self._real.clear()


def _never() -> bool:
    return False
