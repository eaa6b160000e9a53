"""One conversation in several contexts at once: a base model whose leading sequence takes companions along.

A step of the leader evaluates its companions too, in one batch or each by itself: which is faster depends on model,
threads and machine (one batch of two costs 1.2 to 3.3 times a single step), so both are tried on the first tokens and
the faster one is kept. Knows neither what the contexts hold nor what the logits are for.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from padlite.seams import BaseModel, BaseState, FloatArray

TRIALS = 4  # of each way; the fastest counts, as anything else on the machine only slows down


class ManySequences(BaseModel, Protocol):
    """A base model that can step several of its sequences in one evaluation."""

    def step_together(self, token: int, sequences: Sequence[int]) -> list[BaseState]:
        """Append *token* to each of *sequences* in one evaluation and return the states after it, in that order."""
        ...


class Streams:
    """*base* for a session on the sequence *leader* (`BaseModel` in `padlite.seams`), and for those who accompany it.

    *together* says whether companions are evaluated in the leader's batch; None finds out which way is faster.
    """

    def __init__(
        self,
        base: ManySequences,
        *,
        leader: int = 0,
        together: bool | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._base, self._leader, self._clock = base, leader, clock
        self._pace = Pace(together)
        self._companions: tuple[int, ...] = ()
        self._waiting: dict[int, FloatArray] = {}
        self._spent, self._apart = 0.0, 0
        self.evaluated_tokens: int = 0  # of the conversation itself: what its companions cost doesn't count

    @property
    def vocabulary_size(self) -> int:
        """The base's."""
        return self._base.vocabulary_size

    @property
    def hidden_size(self) -> int:
        """The base's."""
        return self._base.hidden_size

    @property
    def context_length(self) -> int:
        """The base's."""
        return self._base.context_length

    def prefill(
        self, tokens: Sequence[int], *, sequence: int = 0, cancelled: Callable[[], bool] | None = None
    ) -> BaseState:
        """Prefill one sequence as the base does; logits of companions that nobody took are gone.

        With the leader's prompt an answer begins, in which nobody accompanies it yet.
        """
        self._waiting.clear()
        if sequence == self._leader:
            self._companions = ()
        before = self._base.evaluated_tokens
        try:
            return self._base.prefill(tokens, sequence=sequence, cancelled=cancelled)
        finally:
            if sequence == self._leader:
                self.evaluated_tokens += self._base.evaluated_tokens - before

    def fork(self, source: int, target: int) -> None:
        """Make sequence *target* a copy of *source*."""
        self._base.fork(source, target)

    def step(self, token: int, *, sequence: int = 0) -> BaseState:
        """Append one token to *sequence*, and if that is the leader to its companions as well."""
        if sequence != self._leader:
            self._waiting.clear()
            return self._base.step(token, sequence=sequence)
        self.evaluated_tokens += 1
        self._note_apart()
        # Whoever didn't want its logits of the last step won't want the next ones.
        companions = self._companions = tuple(each for each in self._companions if each not in self._waiting)
        self._waiting.clear()
        began = self._clock()
        if companions and self._pace.together(len(companions)):
            leading, *states = self._base.step_together(token, [sequence, *companions])
            self._waiting = {each: state.logits for each, state in zip(companions, states, strict=True)}
            self._pace.note(len(companions), together=True, seconds=self._clock() - began)
            return leading
        state = self._base.step(token, sequence=sequence)
        self._spent, self._apart = self._clock() - began, 0
        return state

    def accompany(self, sequences: Sequence[int]) -> None:
        """Let *sequences*, which hold what the leader said last, take the leader's next token as well."""
        self._companions = tuple(sequences)

    def arrived(self, sequence: int) -> bool:
        """Tell whether *sequence* took the leader's last token in its batch, so that `follow` costs nothing."""
        return sequence in self._waiting

    def follow(self, token: int, sequence: int) -> FloatArray:
        """Return the logits (V,) of *sequence* after the leader's last token, evaluated now unless it has arrived.

        A view into the engine's memory. First take those that have arrived: another evaluation loses them.
        """
        logits = self._waiting.pop(sequence, None)
        if logits is None:
            began = self._clock()
            logits = self._base.step(token, sequence=sequence).logits
            self._spent, self._apart = self._spent + self._clock() - began, self._apart + 1
        return logits

    def _note_apart(self) -> None:
        """Book what the leader and its companions took one by one, if they went that way."""
        if self._apart and self._apart == len(self._companions):
            self._pace.note(self._apart, together=False, seconds=self._spent)
        self._apart = 0


class Pace:
    """Which way is faster for so many companions; tries both in turns on real steps, so nothing is evaluated twice."""

    def __init__(self, fixed: bool | None = None) -> None:
        self._fixed = fixed
        self._seconds: dict[tuple[int, bool], list[float]] = {}

    def together(self, companions: int) -> bool:
        """Tell whether to step in one batch next."""
        if self._fixed is not None:
            return self._fixed
        batch, apart = (self._seconds.get((companions, way), []) for way in (True, False))
        if len(batch) < TRIALS or len(apart) < TRIALS:
            return len(batch) <= len(apart)
        return min(batch) <= min(apart)

    def note(self, companions: int, *, together: bool, seconds: float) -> None:
        """Remember what a step took; after the trials nothing is remembered any more."""
        seen = self._seconds.setdefault((companions, together), [])
        if len(seen) < TRIALS:
            seen.append(seconds)
