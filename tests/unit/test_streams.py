"""Sequences that accompany a conversation: which way is taken, what is counted, what is left alone."""

from padlite.streams import TRIALS, Pace, Streams
from tests.fakes import ALPHABET, TableBase, spelling


class Clock:
    """A clock that a base moves: what a step costs, alone or in a batch."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Priced(TableBase):
    """A base whose steps take 1 s each, and batches of any size *batch_s*."""

    def __init__(self, clock: Clock, batch_s: float) -> None:
        super().__init__(spelling("yes"), vocabulary_size=len(ALPHABET))
        self.clock, self.batch_s = clock, batch_s

    def step(self, token, *, sequence=0):  # type: ignore[no-untyped-def]
        self.clock.now += 1.0
        return super().step(token, sequence=sequence)

    def step_together(self, token, sequences):  # type: ignore[no-untyped-def]
        before = self.clock.now
        states = super().step_together(token, sequences)
        self.clock.now = before + self.batch_s
        return states


def run(batch_s: float, *, steps: int = 20) -> list[int]:
    """How many batches there were after each of *steps* steps of a leader with one companion."""
    clock = Clock()
    base = Priced(clock, batch_s)
    streams = Streams(base, clock=clock)
    counts = []
    for sequence in (0, 1):
        streams.prefill([1, 2], sequence=sequence)
    for _ in range(steps):
        streams.accompany([1])
        streams.step(3)
        streams.follow(3, 1)
        counts.append(len(base.batches))
    assert base.cached[0] == base.cached[1] == [1, 2, *[3] * steps]
    return counts


def test_a_cheap_batch_is_kept_after_the_trials() -> None:
    counts = run(1.2)
    assert counts[-1] - counts[2 * TRIALS + 1] == 20 - 2 * TRIALS - 2


def test_a_dear_batch_is_dropped_after_the_trials() -> None:
    counts = run(3.3)
    assert counts[-1] == counts[2 * TRIALS] == TRIALS


def test_a_fixed_way_is_not_questioned() -> None:
    pace = Pace(False)
    pace.note(1, together=True, seconds=0.0)
    assert not pace.together(1)


def test_each_number_of_companions_has_trials_of_its_own() -> None:
    pace = Pace()
    for _ in range(TRIALS):
        pace.note(1, together=True, seconds=2.0)
        pace.note(1, together=False, seconds=1.0)
    assert not pace.together(1)
    assert pace.together(2)


def test_a_companion_whose_logits_nobody_took_stays_behind() -> None:
    base = TableBase(spelling("yes"), vocabulary_size=len(ALPHABET))
    streams = Streams(base, together=True)
    for sequence in (0, 1):
        streams.prefill([1, 2], sequence=sequence)
    streams.accompany([1])
    streams.step(3)
    streams.step(4)
    streams.step(5)
    assert (base.cached[0], base.cached[1]) == ([1, 2, 3, 4, 5], [1, 2, 3])


def test_only_the_conversation_itself_is_counted() -> None:
    base = TableBase(spelling("yes"), vocabulary_size=len(ALPHABET))
    streams = Streams(base, together=True)
    for sequence in (0, 1):
        streams.prefill([1, 2, 3], sequence=sequence)
    streams.accompany([1])
    streams.step(4)
    assert (streams.evaluated_tokens, base.evaluated_tokens) == (4, 8)
