"""A reward LM in a conversation: what it is asked, that nothing is evaluated twice, that its rule is PAD's."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from padlite.backends.onnx_lm import OnnxLm
from padlite.decode import Token
from padlite.errors import BackendError, DecodingCancelled
from padlite.options import DecodingOptions
from padlite.reward_lm import PROMPT, LmReward, asked
from padlite.scoring import top_k
from padlite.seams import Dimension, FloatArray, Message, Step
from padlite.session import Event, Finished, Session
from padlite.template import ChatTemplate
from tests import lms
from tests.chats import TEMPLATE
from tests.fakes import ALPHABET, LetterTokenizer, TableBase

V = len(ALPHABET)
WEIGHTS = lms.random_weights(V, seed=5)
SHORT = "be {preference}: {message}"


def base_rule(tokens: object) -> FloatArray:
    """Logits that depend on the last token and never favour the end."""
    last = list(tokens)[-1]  # type: ignore[call-overload]
    logits = np.random.default_rng(last).standard_normal(V).astype(np.float32)
    logits[0] = -9.0
    return logits


class Spy:
    """A real reward LM that remembers the whole text of every question, and what began without one."""

    def __init__(self, lm: OnnxLm) -> None:
        self.lm, self.held, self.asked = lm, list[int](), list[list[int]]()
        self.begun = list[list[int]]()
        self.context_length = lm.context_length

    @property
    def cached_tokens(self) -> int:
        return self.lm.cached_tokens

    def advance(self, tokens, *, keep):  # type: ignore[no-untyped-def]
        self.begun.append([*self.held[:keep], *tokens])
        self.lm.advance(tokens, keep=keep)

    def scores(self, tokens, candidates, *, keep, cancelled=None):  # type: ignore[no-untyped-def]
        self.held = [*self.held[:keep], *tokens]
        self.asked.append(self.held)
        return self.lm.scores(tokens, candidates, keep=keep, cancelled=cancelled)


@pytest.fixture(params=[1, 2], ids=["after the base", "beside the base"])
def spy(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Spy]:
    path = lms.write_lm(tmp_path / "reward.onnx", WEIGHTS, context_length=256)
    with OnnxLm.open(path, threads=request.param) as lm:
        yield Spy(lm)


def session(
    spy: Spy, *, weight: float = 1.0, strength: float = 1.0, answer: int = 12, base: TableBase | None = None
) -> Session:
    template = ChatTemplate(TEMPLATE)
    reward = LmReward(
        spy, LetterTokenizer(), template, dimension=Dimension(name="humor"), preference="funny", prompt=SHORT
    )  # fmt: skip
    return Session(
        base=base or TableBase(base_rule, vocabulary_size=V),
        tokenizer=LetterTokenizer(),
        template=template,
        reward=reward,
        weights={"humor": weight},
        options=DecodingOptions(candidates=5, max_tokens=answer, strength=strength),
    )


def ids(events: Iterator[Event]) -> list[int]:
    return [event.id for event in events if isinstance(event, Token)]


def letters(text: str) -> list[int]:
    return LetterTokenizer().encode(text, special=True)


def by_hand(prompt: str, told: str, count: int, *, weight: float) -> list[int]:
    """PAD's released loop: both models on the whole sequence at every step, the mixed logits, the best of five."""
    answer: list[int] = []
    for _ in range(count):
        base = base_rule([*letters(prompt), *answer])
        reward = lms.reference_scores(WEIGHTS, [*letters(told), *answer])
        best = top_k(base, 5)
        answer.append(int(best[np.argmax((1 - weight) * base[best] + weight * reward[best])]))
    return answer


@pytest.mark.parametrize("weight", [0.4, 0.8, 1.5])
def test_an_answer_is_that_of_pads_loop_without_any_cache(spy: Spy, weight: float) -> None:
    found = ids(session(spy, weight=weight).say("hello"))
    assert found == by_hand("u<end>helloa<end>", "u<end>be funny: helloa<end>", 12, weight=weight)


def test_the_preference_is_told_to_the_reward_lm_alone(spy: Spy) -> None:
    chat = session(spy)
    ids(chat.say("hello"))
    assert spy.asked[0] == letters("u<end>be funny: helloa<end>")
    assert chat.messages[0].content == "hello"


def test_each_token_is_evaluated_once_over_several_turns(spy: Spy) -> None:
    chat = session(spy)
    ids(chat.say("hello"))
    first = spy.lm.evaluated_tokens
    assert first == len(spy.asked[-1])
    ids(chat.say("more"))
    assert spy.lm.evaluated_tokens == len(spy.asked[-1])  # what was evaluated before still counts
    assert spy.asked[-1][:first] == spy.asked[11]


def test_regenerate_undo_and_edit_roll_the_cache_back(spy: Spy) -> None:
    chat = session(spy)
    answer = ids(chat.say("hello"))
    spy.lm.evaluated_tokens = 0
    assert ids(chat.regenerate()) == answer
    assert spy.lm.evaluated_tokens == 12  # the prompt's last token and eleven of the answer
    edited = ids(chat.edit("help"))
    assert edited == by_hand("u<end>helpa<end>", "u<end>be funny: helpa<end>", 12, weight=1.0)
    chat.undo()
    assert ids(chat.say("hello")) == answer


def test_strength_0_asks_the_reward_lm_nothing(spy: Spy) -> None:
    ids(session(spy, strength=0.0).say("hello"))
    assert not spy.asked


def test_a_weight_set_in_mid_answer_makes_it_catch_up(spy: Spy) -> None:
    chat = session(spy, weight=0.0)
    found: list[int] = []
    for event in chat.say("hello"):
        if isinstance(event, Token):
            found.append(event.id)
            if len(found) == 5:
                assert not spy.asked
                chat.set_weight("humor", 1.0)
    plain = by_hand("u<end>helloa<end>", "?", 5, weight=0.0)
    assert found[:5] == plain
    assert spy.asked[0] == [*letters("u<end>be funny: helloa<end>"), *plain]


def test_what_began_beside_the_base_is_what_is_asked_for_next(spy: Spy) -> None:
    chat = session(spy)
    ids(chat.say("hello"))
    assert spy.begun == spy.asked[1:12]  # the prompt begins nothing
    ids(chat.say("more"))
    assert spy.begun == [*spy.asked[1:12], *spy.asked[13:]]


def test_nothing_begins_that_nobody_may_ask_for(spy: Spy) -> None:
    for chat in (session(spy, strength=0.0), session(spy, weight=0.0)):
        ids(chat.say("hello"))
    assert not spy.begun


def test_a_weight_turned_off_and_on_in_mid_answer_loses_nothing(spy: Spy) -> None:
    chat = session(spy)
    found: list[int] = []
    for event in chat.say("hello"):
        if isinstance(event, Token):
            found.append(event.id)
            if len(found) in {4, 5, 7}:  # 5: for one token only, whose turn to begin it misses
                chat.set_weight("humor", 0.0 if len(found) != 5 else 1.0)
            elif len(found) == 9:
                chat.set_weight("humor", 1.0)
    told, plain = letters("u<end>be funny: helloa<end>"), letters("u<end>helloa<end>")
    for at, token in enumerate(found):
        base, reward = base_rule([*plain, *found[:at]]), lms.reference_scores(WEIGHTS, [*told, *found[:at]])
        best = top_k(base, 5)
        guided = at not in {4, 7, 8}
        assert token == int(best[np.argmax(reward[best] if guided else base[best])])
    assert spy.lm.evaluated_tokens == len(told) + 11


def test_an_answer_stopped_while_a_token_is_evaluated_leaves_the_next_ones_right(spy: Spy) -> None:
    said = len("u<end>helloa<end>") - 2 * len("<end>") + 2

    def rule(tokens: object) -> FloatArray:
        if len(list(tokens)) == said + 3:  # type: ignore[call-overload]
            chat.cancel()  # in the base's step, beside which the reward LM has begun
        return base_rule(tokens)

    base = TableBase(rule, vocabulary_size=V)
    chat = session(spy, base=base)
    assert len(ids(chat.say("hello"))) == 3
    base.rule = base_rule
    expected = by_hand("u<end>helloa<end>", "u<end>be funny: helloa<end>", 12, weight=1.0)
    assert ids(chat.regenerate()) == expected
    chat.undo()
    assert ids(chat.say("other")) == by_hand("u<end>othera<end>", "u<end>be funny: othera<end>", 12, weight=1.0)


def test_features_are_the_same_bit_for_bit_beside_the_base_and_after_it(tmp_path: Path) -> None:
    path = lms.write_lm(tmp_path / "reward.onnx", WEIGHTS, context_length=256)
    found: list[list[FloatArray]] = []
    for threads in (1, 2):
        with OnnxLm.open(path, threads=threads) as lm:
            events = list(session(Spy(lm)).say("hello"))
        found.append([event.trace.features for event in events if isinstance(event, Token)])
    assert len(found[0]) == 12
    for after, beside in zip(*found, strict=True):
        np.testing.assert_array_equal(after, beside)


class Spoiling(Spy):
    """One that reads a token that doesn't exist in place of the last one, while *spoils*."""

    spoils = False

    def advance(self, tokens, *, keep):  # type: ignore[no-untyped-def]
        super().advance(self._told(tokens), keep=keep)  # type: ignore[no-untyped-call]

    def scores(self, tokens, candidates, *, keep, cancelled=None):  # type: ignore[no-untyped-def]
        return super().scores(self._told(tokens), candidates, keep=keep, cancelled=cancelled)  # type: ignore[no-untyped-call]

    def _told(self, tokens: list[int]) -> list[int]:
        return [*tokens[:-1], V + 9] if self.spoils else tokens


def test_what_goes_wrong_beside_the_base_is_an_error_at_the_next_token_and_no_later(spy: Spy) -> None:
    spoiling = Spoiling(spy.lm)
    chat = session(spoiling)
    events = chat.say("hello")
    next(events)
    spoiling.spoils = True
    with pytest.raises(BackendError, match="the reward LM failed"):
        next(events)
    spoiling.spoils = False
    assert ids(chat.say("hello")) == by_hand("u<end>helloa<end>", "u<end>be funny: helloa<end>", 12, weight=1.0)


def test_what_a_stopped_prefill_evaluated_is_kept(spy: Spy) -> None:
    reward = LmReward(
        spy, LetterTokenizer(), ChatTemplate(TEMPLATE), dimension=Dimension(name="humor"), preference="funny"
    )  # fmt: skip
    stops = iter([False, True, False, False, False, False])
    reward.begin([Message(role="user", content="hello " * 20)], [1], lambda: next(stops))
    step = Step(
        context=[1],
        candidates=np.array([3, 4], dtype=np.int64),
        base_logits=np.zeros(2, dtype=np.float32),
        hidden=np.zeros(4, dtype=np.float32),
        weights=np.ones(1, dtype=np.float32),
    )
    with pytest.raises(DecodingCancelled):
        reward.features(step)
    features = reward.features(step)
    whole = lms.reference_scores(WEIGHTS, spy.asked[-1])[[3, 4]]
    assert spy.lm.evaluated_tokens == len(spy.asked[-1])
    np.testing.assert_allclose(features[0] - features[1], whole[0] - whole[1], atol=1e-4)


def test_what_its_prompt_takes_is_not_given_to_the_conversation(spy: Spy) -> None:
    chat = session(spy)
    room = len("be funny: ")
    assert chat.context_length == 256 - room - 8
    assert isinstance(list(chat.say("x" * 170))[-1], Finished)


def test_a_shorter_context_of_its_own_shortens_the_conversation(spy: Spy) -> None:
    reward = LmReward(
        spy, LetterTokenizer(), ChatTemplate(TEMPLATE), dimension=Dimension(name="humor"), preference="funny",
        prompt=SHORT, base_context_length=spy.context_length + 100,
    )  # fmt: skip
    assert reward.reserved_tokens == 100 + len("be funny: ") + 8


def test_pads_own_words_stand_around_the_first_message_only() -> None:
    messages = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Tell me {preference}."),
        Message(role="assistant", content="No."),
        Message(role="user", content="Why?"),
    ]
    told = asked(messages, PROMPT, "harmless and humor")
    assert told[1].content == (
        "[Guidelines] Your task is to generate response by considering the following principle. "
        "[Principles] harmless and humor [Instruction] Tell me {preference}."
    )
    assert [told[0], *told[2:]] == [messages[0], *messages[2:]]
