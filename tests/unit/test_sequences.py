"""Which sequence a conversation gets, and how room is made, on a base model that counts what it evaluates."""

from collections.abc import Callable, Sequence

import pytest

from padlite.errors import ContextFullError, DecodingCancelled, PadliteError
from padlite.seams import BaseState
from padlite.sequences import Seat, Sequences
from padlite.streams import Streams
from tests.fakes import ALPHABET, TableBase, spelling


class SharedBase(TableBase):
    """A base model whose sequences share *cells*."""

    def __init__(self, *, context_length: int = 100, cells: int = 100) -> None:
        super().__init__(spelling("yes"), vocabulary_size=len(ALPHABET), context_length=context_length)
        self.cells = cells
        self.forks: list[tuple[int, int]] = []

    def shared_tokens(self, tokens: Sequence[int], sequence: int = 0) -> int:
        shared = 0
        for a, b in zip(self.cached.get(sequence, []), tokens, strict=False):
            if a != b:
                break
            shared += 1
        return shared

    def cached_tokens(self, sequence: int = 0) -> int:
        return len(self.cached.get(sequence, []))

    def forget(self, sequence: int) -> None:
        self.cached[sequence] = []

    def fork(self, source: int, target: int) -> None:
        self.forks.append((source, target))
        self.cached[target] = list(self.cached[source])

    def prefill(
        self, tokens: Sequence[int], *, sequence: int = 0, cancelled: Callable[[], bool] | None = None
    ) -> BaseState:
        others = sum(len(held) for other, held in self.cached.items() if other != sequence)
        if others + len(tokens) > self.cells:
            raise ContextFullError("full")
        return super().prefill(tokens, sequence=sequence, cancelled=cancelled)

    def step(self, token: int, *, sequence: int = 0) -> BaseState:
        if sum(map(len, self.cached.values())) >= self.cells:
            raise ContextFullError("full")
        return super().step(token, sequence=sequence)


def test_the_sequences_of_a_conversation_are_numbered_for_itself_and_step_together() -> None:
    base = SharedBase()
    sequences = Sequences(base, range(5))
    a, b = Seat(sequences), Seat(sequences)
    for seat, first in ((a, 1), (b, 10)):
        seat.prefill([first, 2, 3])
        seat.fork(0, 1)
        seat.prefill([first, 2, 4, 5], sequence=1)
    states = b.step_together(6, [0, 1])
    assert len(states) == 2
    assert a.step(7, sequence=1).logits.shape == (len(ALPHABET),)
    held = sorted(held for held in base.cached.values() if held)
    assert held == [[1, 2, 3], [1, 2, 4, 5, 7], [10, 2, 3, 6], [10, 2, 4, 5, 6]]
    a.release()
    b.release()
    c = Seat(sequences)
    for number in range(5):
        c.prefill([20 + number], sequence=number)


def test_who_accompanied_the_last_answer_does_not_come_along_in_the_next() -> None:
    base = SharedBase()
    seat = Seat(Sequences(base, range(3)))
    streams = Streams(seat, together=True)
    for sequence in (0, 1):
        streams.prefill([1, 2], sequence=sequence)
    streams.accompany([1])
    streams.step(3)
    streams.follow(3, 1)
    seat.release()
    streams.prefill([1, 2, 3, 4])
    streams.step(5)
    assert len(base.batches) == 1


def test_a_conversation_that_goes_on_finds_its_own_tokens_whichever_others_were_answered() -> None:
    base = SharedBase()
    sequences = Sequences(base, range(3))
    a, b = Seat(sequences), Seat(sequences)
    for seat, tokens in ((a, [1, 2, 3, 4]), (b, [5, 6, 7, 8])):
        seat.prefill(tokens)
        seat.release()
    before = base.evaluated_tokens
    a.prefill([1, 2, 3, 4, 9])
    assert base.evaluated_tokens - before == 1
    a.release()
    b.prefill([5, 6, 7, 8, 9])
    assert base.evaluated_tokens - before == 2


def test_a_fork_shares_the_prefix_of_one_that_is_being_answered() -> None:
    base = SharedBase()
    sequences = Sequences(base, range(3))
    a, b = Seat(sequences), Seat(sequences)
    a.prefill([1, 2, 3, 4, 5, 6])
    before = base.evaluated_tokens
    b.prefill([1, 2, 3, 4, 5, 7])
    assert base.evaluated_tokens - before == 1
    assert [1, 2, 3, 4, 5, 6] in base.cached.values()
    assert len(base.forks) == 1


def test_a_short_beginning_in_common_does_not_cost_another_conversation_its_cache() -> None:
    base = SharedBase()
    sequences = Sequences(base, range(3))
    a, b = Seat(sequences), Seat(sequences)
    a.prefill([1, 2, *range(3, 20)])
    a.release()
    b.prefill([1, 2, 25, 26])
    assert any(held == [1, 2, *range(3, 20)] for held in base.cached.values())


def test_unused_sequences_make_room_oldest_first_and_the_used_ones_stay() -> None:
    base = SharedBase(cells=30)
    sequences = Sequences(base, range(4))
    seats = [Seat(sequences) for _ in range(3)]
    for number, seat in enumerate(seats):
        seat.prefill([number + 1] * 10)
        if number < 2:
            seat.release()
    seats[2].step(20)
    assert sorted(len(held) for held in base.cached.values()) == [0, 10, 11]
    assert [2] * 10 in base.cached.values()


def test_a_prompt_makes_room_too_but_not_if_it_is_too_long_at_all() -> None:
    base = SharedBase(context_length=25, cells=30)
    sequences = Sequences(base, range(3))
    old, new = Seat(sequences), Seat(sequences)
    old.prefill([1] * 20)
    old.release()
    new.prefill([2] * 20)
    new.release()
    with pytest.raises(ContextFullError):
        new.prefill([3] * 31)
    assert [2] * 20 in base.cached.values()


def test_where_nothing_is_unused_a_full_cache_is_an_error() -> None:
    sequences = Sequences(SharedBase(cells=5), range(2))
    seat = Seat(sequences)
    seat.prefill([1, 2, 3, 4, 5])
    with pytest.raises(ContextFullError):
        seat.step(6)


def test_more_answers_than_sequences_is_an_error_of_its_own() -> None:
    sequences = Sequences(SharedBase(), [0])
    Seat(sequences).prefill([1])
    with pytest.raises(PadliteError, match="more answers than sequences"):
        Seat(sequences).prefill([1])


def test_an_answer_cancelled_before_it_began_evaluates_nothing_and_takes_no_sequence() -> None:
    base = SharedBase()
    seat = Seat(Sequences(base, [0]))
    seat.stopped = lambda: True
    with pytest.raises(DecodingCancelled):
        seat.prefill([1, 2])
    assert base.evaluated_tokens == 0
    seat.stopped = lambda: False
    seat.prefill([1, 2])
