"""Rewards that follow a conversation, and several of them at once, on fakes."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from padlite.errors import ContextFullError, DecodingCancelled, PadliteError, UsageError
from padlite.options import DecodingOptions, OverflowPolicy
from padlite.rewards import joined
from padlite.seams import BaseState, FloatArray, RewardModel, Step
from padlite.session import Answer, Dropped, Finished, FinishReason, Session
from padlite.template import ChatTemplate
from tests.chats import TEMPLATE
from tests.fakes import ALPHABET, END, FunctionReward, LetterTokenizer, TableBase, liking, spelling

LETTERS = LetterTokenizer()


def saying(
    text: str, reward: RewardModel | None, *, system: str = "", base: TableBase | None = None,
    overflow: OverflowPolicy = OverflowPolicy.STOP, **weights: float,
) -> Session:  # fmt: skip
    """A session whose base answers *text* to every message."""
    return Session(
        base=base or TableBase(rule_of(text), vocabulary_size=len(ALPHABET)),
        tokenizer=LETTERS, template=ChatTemplate(TEMPLATE), reward=reward, weights=weights, system=system,
        options=DecodingOptions(max_tokens=40, candidates=34), overflow=overflow,
    )  # fmt: skip


def rule_of(text: str) -> Callable[[Sequence[int]], FloatArray]:
    def rule(tokens: Sequence[int]) -> FloatArray:
        begin = len(tokens) - list(tokens)[::-1].index(END)
        return spelling(text, after=begin)(tokens)

    return rule


def answer(events: object) -> Answer:
    last = list(events)[-1]  # type: ignore[call-overload]
    assert isinstance(last, Finished)
    return last.answer


def test_no_reward_and_one_reward_stay_what_they_are() -> None:
    reward = liking("n", by=1.0)
    assert joined([]) is None
    assert joined([reward]) is reward


def test_two_rewards_add_up_in_one_choice() -> None:
    reward = joined([liking("n", by=1.5, names=("first", "idle")), liking("n", by=1.5, names=("second",))])
    assert answer(saying("yes", reward, first=1.0).say("hi")).text == "yes"
    assert answer(saying("yes", reward, second=1.0).say("hi")).text == "yes"
    trace = answer(saying("yes", reward, first=1.0, second=1.0).say("hi")).trace[0].trace
    assert LETTERS.piece(int(trace.candidates[trace.chosen])) == b"n"
    assert trace.contributions[trace.chosen].tolist() == [1.5, 0.0, 1.5]


def test_a_reward_that_weighs_nothing_is_not_asked() -> None:
    left, right = liking("n", by=1.0, names=("left",)), liking("n", by=1.0, names=("right",))
    session = saying("yes", joined([left, right]), right=0.5)
    answer(session.say("hi"))
    assert (left.calls, right.calls) == (0, 4)
    session.set_weight("right", 0.0)
    answer(session.say("hi"))
    assert (left.calls, right.calls) == (0, 4)


def test_a_weight_turned_on_in_mid_answer_asks_from_the_next_token_on() -> None:
    left, right = liking("n", by=1.0, names=("left",)), liking("n", by=9.0, names=("right",))
    session = saying("yes", joined([left, right]), left=0.1)
    events = session.say("hi")
    next(events)
    session.set_weight("right", 1.0)
    assert next(events).text == "n"  # type: ignore[union-attr]
    assert (left.calls, right.calls) == (2, 1)


def test_a_reward_learns_of_each_token_before_the_base_evaluates_it() -> None:
    reward = liking("n", by=0.0)
    base = TableBase(rule_of("yes"), vocabulary_size=len(ALPHABET))
    step, seen = base.step, list[bool]()

    def watching(token: int, *, sequence: int = 0) -> BaseState:
        seen.append(reward.advanced[-1][0] == [*base.cached[0], token])
        return step(token, sequence=sequence)

    base.step = watching  # type: ignore[method-assign]
    session = saying("yes", reward, base=base, style=1.0)
    answer(session.say("hi"))
    assert seen == [True] * 3
    assert len(reward.advanced) == 3
    base.step = step  # type: ignore[method-assign]
    session.set_weight("style", 0.0)
    answer(session.say("hi"))
    assert len(reward.advanced) == 3


def test_a_reward_that_weighs_nothing_is_not_told_of_tokens() -> None:
    left, right = liking("n", by=0.0, names=("a", "b")), liking("n", by=0.0, names=("c",))
    session = saying("yes", joined([left, right]), b=0.5)
    answer(session.say("hi"))
    assert [weights for _, weights in left.advanced] == [[0.0, 0.5]] * 3
    assert not right.advanced


def test_two_dimensions_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="'witty' is there twice"):
        joined([liking("n", by=1.0, names=("witty",)), liking("n", by=1.0, names=("kind", "witty"))])


def test_a_reward_learns_which_conversation_an_answer_belongs_to() -> None:
    reward = liking("n", by=0.0)
    session = saying("yes", reward, system="short.")
    answer(session.say("hi"))
    answer(session.regenerate())
    answer(session.edit("ho"))
    session.undo()
    answer(session.say("ha"))
    said = [messages for messages, _ in reward.begun]
    assert said == [[("system", "short."), ("user", text)] for text in ("hi", "hi", "ho", "ha")]
    assert reward.begun[0][1] == LETTERS.encode("s<end>short.u<end>hia<end>", special=True)


def test_a_reward_is_told_of_the_turns_that_are_left_after_dropping() -> None:
    reward = liking("n", by=0.0)
    base = TableBase(rule_of("yes"), vocabulary_size=len(ALPHABET), context_length=64)
    session = saying("yes", reward, base=base, overflow=OverflowPolicy.DROP_OLDEST)
    dropped = 0
    for _ in range(6):
        events = list(session.say("hello"))
        dropped += sum(event.turns for event in events if isinstance(event, Dropped))
    assert dropped
    assert len(reward.begun[-1][0]) == 2 * (6 - dropped) - 1


class Borrowed(TableBase):
    """A base whose logits and hidden states lie in one place, overwritten by its next call, as an engine's do."""

    def _state(self, sequence: int) -> BaseState:
        state = super()._state(sequence)
        if not hasattr(self, "memory"):
            self.memory = BaseState(logits=state.logits.copy(), hidden=state.hidden.copy())
        self.memory.logits[:] = state.logits
        self.memory.hidden[:] = float(sequence)
        return self.memory


def test_a_reward_that_steps_the_engine_leaves_the_bases_scores_and_the_next_reward_alone() -> None:
    base = Borrowed(rule_of("yes"), vocabulary_size=len(ALPHABET))
    seen: list[float] = []

    def stepping(step: Step) -> FloatArray:
        base.prefill([END], sequence=1)
        base.memory.logits[:] = 5.0
        return np.zeros((len(step.candidates), 1), dtype=np.float32)

    def reading(step: Step) -> FloatArray:
        seen.append(float(step.hidden[0]))
        return np.zeros((len(step.candidates), 1), dtype=np.float32)

    reward = joined([FunctionReward(stepping, ["steps"]), FunctionReward(reading, ["reads"])])
    trace = answer(saying("yes", reward, base=base, steps=1.0, reads=1.0).say("hi")).trace[0].trace
    plain = answer(saying("yes", None).say("hi")).trace[0].trace
    assert trace.base_scores.tolist() == plain.base_scores.tolist()
    assert seen == [0.0] * 4


def test_a_reward_sees_the_bases_logits_before_the_repetition_penalty() -> None:
    seen: list[list[float]] = []

    def reading(step: Step) -> FloatArray:
        seen.append(sorted(step.base_logits.tolist()))
        return np.zeros((len(step.candidates), 1), dtype=np.float32)

    session = saying("yes", FunctionReward(reading, ["reads"]), reads=1.0)
    answer(session.say("hi"))
    session.options = DecodingOptions(candidates=34, max_tokens=40, repetition_penalty=3.0)
    answer(session.regenerate())
    assert seen[:3] == seen[4:7]


@pytest.mark.parametrize(
    ("error", "reason"), [(DecodingCancelled, FinishReason.CANCELLED), (ContextFullError, FinishReason.CONTEXT)]
)
def test_a_reward_that_stops_or_is_full_ends_the_answer_as_far_as_it_came(
    error: type[PadliteError], reason: FinishReason
) -> None:
    def failing(step: Step) -> FloatArray:
        if LETTERS.piece(step.context[-1]) == b"e":
            raise error("no more")
        return np.zeros((len(step.candidates), 1), dtype=np.float32)

    session = saying("yes", FunctionReward(failing, ["fails"]), fails=1.0)
    got = answer(session.say("hi"))
    assert (got.text, got.finish_reason) == ("ye", reason)
    assert session.messages[-1].content == "ye"


def test_a_reward_can_tell_that_an_answer_was_cancelled() -> None:
    reward = liking("n", by=0.0)
    session = saying("yes", reward)
    events = session.say("hi")
    next(events)
    assert not reward.cancelled()
    session.cancel()
    assert reward.cancelled()


def test_room_that_a_reward_needs_is_kept_free() -> None:
    reward = liking("n", by=0.0)
    reward.reserved_tokens = 50
    assert saying("yes", reward).context_length == 256 - 50
    assert saying("yes", joined([liking("n", by=0.0, names=("other",)), reward])).context_length == 256 - 50
    assert saying("yes", None).context_length == 256
