"""The contrast reward on a fake base that answers otherwise when a sentence is in its prompt."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from padlite.contrast import ContrastReward, SentencePlace
from padlite.errors import BackendError, ContextFullError
from padlite.options import DecodingOptions
from padlite.scoring import combine, distribution, pad_rewards
from padlite.seams import BaseState, Dimension, FloatArray
from padlite.session import Answer, Finished, FinishReason, Session
from padlite.streams import Streams
from padlite.template import ChatTemplate
from tests.chats import TEMPLATE
from tests.fakes import ALPHABET, END, LetterTokenizer, TableBase, spelling

LETTERS = LetterTokenizer()
WITHOUT_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
LOSES_SYSTEM = TEMPLATE.replace("for m in messages", "for m in messages if m.role != 'system'")


def reacting(text: Sequence[int]) -> FloatArray:
    """Says "yes"; where its prompt holds "pirate" "arr", where it holds "shout" "yey"."""
    said = "".join(ALPHABET[token] for token in text)
    answer = "arr" if "pirate" in said else "yey" if "shout" in said else "yes"
    return spelling(answer, after=len(text) - list(text)[::-1].index(END))(text)


class Chat:
    """A session with sentences on a fake base, and what can be seen of it."""

    def __init__(
        self, *, together: bool | None = None, template: str = TEMPLATE, system: str = "", context_length: int = 400,
        rule: Callable[[Sequence[int]], FloatArray] = reacting, **weights: float,
    ) -> None:  # fmt: skip
        self.base = TableBase(rule, vocabulary_size=len(ALPHABET), context_length=context_length)
        self.streams = Streams(self.base, together=together)
        sentences = [(Dimension(name=name), f"be a {name}") for name in ("pirate", "shout")]
        self.reward = ContrastReward(
            self.streams, LETTERS, ChatTemplate(template), sentences, sequences=[1, 2]
        )  # fmt: skip
        self.session = Session(
            base=self.streams, tokenizer=LETTERS, template=ChatTemplate(template), reward=self.reward,
            weights=weights, system=system, options=DecodingOptions(candidates=34, max_tokens=20),
        )  # fmt: skip

    def say(self, text: str) -> Answer:
        return finished(self.session.say(text))

    def text_of(self, sequence: int) -> str:
        return "".join(ALPHABET[token] for token in self.base.cached.get(sequence, []))


def finished(events: object) -> Answer:
    last = list(events)[-1]  # type: ignore[call-overload]
    assert isinstance(last, Finished)
    return last.answer


@pytest.mark.parametrize("together", [True, False, None])
def test_a_sentence_bends_the_answer_and_the_trace_says_so(together: bool | None) -> None:
    chat = Chat(together=together, pirate=1.5)
    answer = chat.say("hi")
    assert answer.text == "arr"
    assert answer.trace[0].trace.strongest_dimension == 0
    assert Chat(together=together).say("hi").text == "yes"
    assert Chat(together=together, pirate=-1.0).say("hi").text == "yes"


def test_at_weight_one_the_scores_are_those_of_the_base_under_the_sentence() -> None:
    trace = Chat(pirate=1.0).say("hi").trace[0].trace
    scores = combine(trace.base_scores, trace.features, trace.push)
    told = reacting(LETTERS.encode("s<end>be a pirateu<end>hia<end>", special=True))[trace.candidates]
    assert np.ptp(scores - told) < 1e-5


def test_an_unweighed_sentence_costs_nothing_and_catches_up_in_mid_answer() -> None:
    chat = Chat()
    events = chat.session.say("hi")
    next(events)
    assert chat.base.evaluated_tokens == len("u?hia?")
    chat.session.set_weight("pirate", 2.0)
    assert finished(events).text == "yrr"
    assert chat.text_of(1) == "s\0be a pirateu\0hia\0yrr"
    assert 2 not in chat.base.cached


def test_both_ways_evaluate_the_same_and_say_the_same() -> None:
    chats = [Chat(together=together, pirate=0.6, shout=0.9) for together in (True, False)]
    answers = [[chat.say(text) for text in ("hi", "and", "so")] for chat in chats]
    assert [each.text for each in answers[0]] == [each.text for each in answers[1]]
    assert chats[0].base.evaluated_tokens == chats[1].base.evaluated_tokens
    assert chats[0].base.batches[0] == (0, 1, 2)
    assert chats[1].base.batches == []


def test_a_second_turn_evaluates_only_its_own_new_tokens_in_every_context() -> None:
    chat = Chat(together=True, pirate=1.5)
    chat.say("hi")
    before = chat.base.evaluated_tokens
    answer = chat.say("again")
    new = len("u?againa?")
    assert answer.usage.evaluated_tokens == new
    assert chat.base.evaluated_tokens - before == 2 * (new + len("arr"))


def test_regenerate_edit_and_undo_leave_the_sentence_where_the_conversation_is() -> None:
    chat = Chat(pirate=1.5)
    chat.say("hi")
    finished(chat.session.regenerate())
    assert chat.text_of(1) == "s\0be a pirateu\0hia\0arr"
    finished(chat.session.edit("ho"))
    assert chat.text_of(1) == "s\0be a pirateu\0hoa\0arr"
    chat.session.undo()
    chat.say("ha")
    assert chat.text_of(1) == "s\0be a pirateu\0haa\0arr"


def test_a_sentence_goes_behind_the_persons_own_system_text() -> None:
    chat = Chat(system="short", pirate=1.5)
    chat.say("hi")
    assert chat.text_of(1).startswith("s\0short\n\nbe a pirateu\0hi")
    assert chat.text_of(0).startswith("s\0shortu\0hi")


@pytest.mark.parametrize("template", [WITHOUT_SYSTEM, LOSES_SYSTEM])
def test_without_a_system_role_the_sentence_ends_the_last_user_turn_and_the_beginning_is_shared(template: str) -> None:
    chat = Chat(template=template, pirate=1.5)
    assert chat.say("hi").text == "arr"
    chat.say("again")
    assert chat.text_of(1) == "u\0hia\0arru\0again\n\nbe a piratea\0arr"
    # of the second turn's prompt the sentence's context took everything before the sentence from the conversation's
    before = chat.base.evaluated_tokens
    finished(chat.session.regenerate())
    assert chat.base.evaluated_tokens - before == 2 * (1 + len("arr"))


def test_a_template_that_fails_by_itself_is_not_taken_for_one_without_a_system_role() -> None:
    with pytest.raises(BackendError, match="broken"):
        SentencePlace(ChatTemplate("{{ raise_exception('broken') }}"))


def test_the_sentences_longer_prompts_always_have_room() -> None:
    chat = Chat(pirate=1.0, context_length=120)
    assert chat.reward.reserved_tokens >= len("s?be a pirate")
    assert chat.session.context_length == 120 - chat.reward.reserved_tokens
    chat.session.options = DecodingOptions(candidates=34)
    assert finished(chat.session.say("h" * 60)).finish_reason is FinishReason.STOP


@pytest.mark.parametrize("together", [True, False])
def test_an_answer_ends_where_its_sentences_find_no_room_and_is_kept(
    monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """The sentence's prompt is longer than the conversation's own, and both share the engine's cells."""
    chat = Chat(together=together, pirate=1)
    step = chat.base.step

    def full_at(token: int, *, sequence: int = 0) -> BaseState:
        if chat.text_of(1).endswith("ar"):
            raise ContextFullError("full")
        return step(token, sequence=sequence)

    monkeypatch.setattr(chat.base, "step", full_at)
    answer = chat.say("hi")
    assert (answer.text, answer.finish_reason) == ("arr", FinishReason.CONTEXT)
    assert chat.session.messages[-1].content == "arr"


def test_cancelling_while_a_sentence_catches_up_ends_the_answer() -> None:
    class Stubborn(TableBase):
        def prefill(self, tokens, *, sequence=0, cancelled=None):  # type: ignore[no-untyped-def]
            from padlite.errors import DecodingCancelled

            if sequence == 1 and cancelled is not None:
                session.cancel()
                if cancelled():
                    raise DecodingCancelled("stopped")
            return super().prefill(tokens, sequence=sequence)

    base = Stubborn(reacting, vocabulary_size=len(ALPHABET), context_length=400)
    streams = Streams(base)
    reward = ContrastReward(
        streams, LETTERS, ChatTemplate(TEMPLATE), [(Dimension(name="pirate"), "be a pirate")], sequences=[1]
    )
    session = Session(base=streams, tokenizer=LETTERS, template=ChatTemplate(TEMPLATE), reward=reward)
    session.options = DecodingOptions(candidates=34)
    session.set_weight("pirate", 1.5)
    assert finished(session.say("hi")).finish_reason is FinishReason.CANCELLED
    assert session.messages == ()


def test_two_sessions_on_one_base_keep_apart() -> None:
    base = TableBase(reacting, vocabulary_size=len(ALPHABET), context_length=400)
    sessions = []
    for own in (0, 2):
        streams = Streams(base, leader=own, together=True)
        reward = ContrastReward(
            streams, LETTERS, ChatTemplate(TEMPLATE), [(Dimension(name="pirate"), "be a pirate")],
            sequences=[own + 1], leader=own,
        )  # fmt: skip
        sessions.append(
            Session(
                base=streams,
                tokenizer=LETTERS,
                template=ChatTemplate(TEMPLATE),
                reward=reward,
                sequence=own,
                options=DecodingOptions(candidates=34),
                weights={"pirate": 1.5},
            )
        )
    first, second = sessions[0].say("hi"), sessions[1].say("ho")
    texts = ["", ""]
    for _ in range(4):
        for place, events in enumerate((first, second)):
            event = next(events)
            texts[place] += getattr(event, "text", "")
    assert texts == ["arr", "arr"]
    assert "".join(ALPHABET[token] for token in base.cached[3]) == "s\0be a pirateu\0hoa\0arr"


# The peers that are settings of the contrast (docs/paper-map.md)


RNG = np.random.default_rng(5)
WITHOUT, WITH, OTHER = (RNG.normal(0, 2, 40).astype(np.float32) for _ in range(3))


def ours(*contrasts: tuple[FloatArray, float], beta: float = 1.0) -> FloatArray:
    """The distribution that padlite's rule gives over all tokens, for contexts with their weights."""
    features = np.concatenate([pad_rewards(told, WITHOUT) for told, _ in contrasts], axis=1)
    weights = np.array([weight for _, weight in contrasts], dtype=np.float32)
    scores = combine(WITHOUT, features, weights * np.float32(beta))
    return distribution(scores, temperature=1.0, top_p=1.0, min_p=0.0)


def softmax(scores: FloatArray) -> FloatArray:
    return np.asarray(np.exp(scores - np.logaddexp.reduce(scores)), dtype=np.float32)


def log_softmax(scores: FloatArray) -> FloatArray:
    return np.asarray(scores - np.logaddexp.reduce(scores), dtype=np.float32)


@pytest.mark.parametrize("ratio", [2.0, 3.0, 5.0])
def test_linear_alignment_is_the_contrast_at_one_plus_its_ratio(ratio: float) -> None:
    theirs = softmax(WITH + ratio * (WITH - WITHOUT))
    assert np.allclose(ours((WITH, 1.0), beta=1 + ratio), theirs, atol=1e-5)


@pytest.mark.parametrize("strength", [-1.0, 0.0, 1.5])
def test_context_steering_is_the_contrast_at_one_plus_lambda(strength: float) -> None:
    theirs = softmax(log_softmax(WITH) + strength * (log_softmax(WITH) - log_softmax(WITHOUT)))
    assert np.allclose(ours((WITH, 1.0), beta=1 + strength), theirs, atol=1e-5)


def test_context_steering_with_several_contexts_adds_their_contrasts() -> None:
    plain = log_softmax(WITHOUT)
    theirs = softmax(plain + 0.7 * (log_softmax(WITH) - plain) - 0.4 * (log_softmax(OTHER) - plain))
    assert np.allclose(ours((WITH, 0.7), (OTHER, -0.4)), theirs, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5])
def test_classifier_free_guidance_is_the_contrast_at_gamma(gamma: float) -> None:
    theirs = softmax(gamma * WITH + (1 - gamma) * WITHOUT)
    assert np.allclose(ours((WITH, gamma)), theirs, atol=1e-5)


def test_drift_with_the_model_itself_as_its_helper_is_the_contrast_at_p_over_beta() -> None:
    p, beta = (0.6, -0.8), 0.5
    pushed = (p[0] * (WITH - WITHOUT) + p[1] * (OTHER - WITHOUT)) / beta
    theirs = softmax(np.asarray(WITHOUT + pushed, dtype=np.float32))
    assert np.allclose(ours((WITH, p[0]), (OTHER, p[1]), beta=1 / beta), theirs, atol=1e-5)


@pytest.mark.parametrize(("rounds", "extra"), [(1, 0.952), (10, 2.898), (60, 4.649)])
def test_amulets_game_is_the_contrast_at_a_constant(rounds: int, extra: float) -> None:
    """A round moves the policy by the average reward α log(policy / plain), held back by start and last move."""
    alpha, hold, eta = 2.0, 2.0, 10.0
    start, plain = log_softmax(WITH).astype(np.float64), log_softmax(WITHOUT).astype(np.float64)
    policy, rewards = start, np.zeros_like(start)
    for number in range(1, rounds + 1):
        rewards = rewards + alpha * (policy - plain)
        moved = hold * start + rewards / number + policy / (eta * number)
        policy = moved / (hold + 1 / (eta * number))
        policy = policy - np.logaddexp.reduce(policy)
    assert np.allclose(ours((WITH, 1.0), beta=1 + extra), np.exp(policy), atol=2e-3)
