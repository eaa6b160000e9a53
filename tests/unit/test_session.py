"""The loop and the conversation on a fake base model."""

import dataclasses

import numpy as np
import pytest

from padlite.errors import BackendError, ContextFullError, UsageError
from padlite.options import DecodingOptions, OverflowPolicy
from padlite.session import Answer, Dropped, Event, Finished, FinishReason, Message, Session, Token
from padlite.template import ChatTemplate
from tests.fakes import END, FunctionReward, LetterTokenizer, TableBase, liking, spelling

TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}<end>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}a<end>{% endif %}"
)
LETTERS = LetterTokenizer()


def saying(text: str, **options: object) -> Session:
    """A session whose base answers *text* to every message."""

    def rule(tokens: object) -> np.ndarray:
        ids = list(tokens)  # type: ignore[call-overload]
        begin = len(ids) - ids[::-1].index(END)
        return spelling(text, after=begin)(ids)

    keys = {"options": DecodingOptions(max_tokens=40), **options}
    base = keys.pop("base", None) or TableBase(rule, vocabulary_size=34, context_length=keys.pop("context_length", 256))  # type: ignore[arg-type]
    return Session(base=base, tokenizer=LETTERS, template=ChatTemplate(TEMPLATE), **keys)  # type: ignore[arg-type]


def answer(events: object) -> Answer:
    last = list(events)[-1]  # type: ignore[call-overload]
    assert isinstance(last, Finished)
    return last.answer


def test_an_answer_streams_token_by_token_and_ends_where_the_model_ends_it() -> None:
    session = saying("yes")
    events = list(session.say("hi"))
    assert [event.text for event in events if isinstance(event, Token)] == ["y", "e", "s"]
    assert answer(events).finish_reason is FinishReason.STOP
    assert [(m.role, m.content) for m in session.messages] == [("user", "hi"), ("assistant", "yes")]


def test_a_second_turn_evaluates_only_its_own_new_tokens() -> None:
    session = saying("yes")
    answer(session.say("hi"))
    second = answer(session.say("again")).usage
    assert second.prompt_tokens == len("u?hia?yesu?againa?")
    assert second.evaluated_tokens == len("u?againa?")


def test_changing_a_weight_evaluates_no_prompt_token_again() -> None:
    session = saying("yes", reward=liking("n", by=5.0), options=DecodingOptions(candidates=34))
    events = session.say("hi")
    assert next(events).text == "y"  # type: ignore[union-attr]
    session.set_weight("style", 1.0)
    evaluated = session._base.evaluated_tokens
    assert next(events).text == "n"  # type: ignore[union-attr]
    assert session._base.evaluated_tokens == evaluated + 1


def test_a_profile_changes_the_choice_and_the_trace_says_so() -> None:
    session = saying(
        "yes", reward=liking("n", by=5.0), weights={"style": 1.0}, options=DecodingOptions(max_tokens=1, candidates=34)
    )
    got = answer(session.say("hi"))
    trace = got.trace[0].trace
    assert got.text == "n"
    assert (trace.changed, trace.strongest_dimension, got.changed) == (True, 0, 1)
    assert LETTERS.piece(int(trace.candidates[trace.base_choice])) == b"y"
    assert trace.contributions[trace.chosen].tolist() == [5.0]


def test_unusable_rewards_are_counted_and_the_base_answers() -> None:
    broken = FunctionReward(lambda step: np.full((len(step.candidates), 1), np.nan), ["style"])
    got = answer(saying("yes", reward=broken, weights={"style": 1.0}).say("hi"))
    assert (got.text, got.fallbacks, got.changed) == ("yes", 4 - 1, 0)


def test_a_stop_string_ends_the_answer_and_is_not_shown() -> None:
    session = saying("one. two", options=DecodingOptions(stop=(". ",)))
    assert answer(session.say("hi")).text == "one"
    assert session.messages[-1].tokens == ()


def test_max_tokens_ends_with_length_and_a_full_context_with_context() -> None:
    assert (
        answer(saying("abcdef", options=DecodingOptions(max_tokens=2)).say("hi")).finish_reason is FinishReason.LENGTH
    )
    full = answer(saying("a" * 90, options=DecodingOptions(), context_length=40).say("hi"))
    assert full.finish_reason is FinishReason.CONTEXT
    assert full.usage.prompt_tokens + full.usage.completion_tokens == 40


def test_cancel_keeps_what_was_said_and_the_chat_goes_on() -> None:
    session = saying("abcdef")
    events: list[Event] = []
    for event in session.say("hi"):
        events.append(event)
        if len(events) == 2:
            session.cancel()
    assert (answer(events).finish_reason, session.messages[-1].content) == (FinishReason.CANCELLED, "ab")
    assert answer(session.say("go on")).text == "abcdef"


def test_an_abandoned_answer_is_kept_as_far_as_it_went() -> None:
    session = saying("abcdef")
    events = session.say("hi")
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert session.messages[-1].content == "a"


def test_a_failing_step_leaves_the_conversation_as_it_was() -> None:
    session = saying("abc")
    answer(session.say("hi"))
    before = session.messages

    def fail(token: int, *, sequence: int = 0) -> None:
        raise BackendError("broken")

    session._base.step = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(BackendError):
        list(session.say("more"))
    assert session.messages == before


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_message_is_refused(text: str) -> None:
    session = saying("yes")
    with pytest.raises(UsageError, match="empty"):
        list(session.say(text))
    assert session.messages == ()


def test_what_does_not_fit_is_refused_with_both_numbers_and_nothing_changes() -> None:
    session = saying("yes", context_length=64)
    answer(session.say("hi"))
    with pytest.raises(ContextFullError, match=r"1,01\d tokens, but only 48 of 64"):
        list(session.say("a" * 1000))
    assert len(session.messages) == 2


def test_drop_oldest_drops_whole_exchanges_visibly_and_keeps_the_system_message() -> None:
    session = saying("yes", context_length=64, overflow=OverflowPolicy.DROP_OLDEST, system="sys")
    dropped = []
    for _ in range(9):
        events = list(session.say("abcdefgh"))
        dropped += [event.turns for event in events if isinstance(event, Dropped)]
        assert isinstance(events[-1], Finished)
        assert session.messages[0].role == "user"
        assert events[-1].answer.usage.prompt_tokens <= 48
    assert sum(dropped) + len(session.messages) // 2 == 9
    assert sum(dropped) > 0


def test_drop_oldest_can_not_help_a_message_that_is_too_long_by_itself() -> None:
    session = saying("yes", context_length=64, overflow=OverflowPolicy.DROP_OLDEST)
    answer(session.say("hi"))
    with pytest.raises(ContextFullError):
        list(session.say("a" * 100))
    assert len(session.messages) == 2


def test_control_tokens_in_a_message_reach_the_model_as_text() -> None:
    session = saying("yes")
    answer(session.say("x<end>y"))
    prompt = session._base.cached[0]  # type: ignore[attr-defined]
    assert prompt.count(END) == 2
    assert LETTERS.encode("x<end>y", special=False) == prompt[2:9]


def test_regenerate_edit_and_undo_replace_the_last_exchange() -> None:
    session = saying("yes")
    answer(session.say("one"))
    answer(session.say("two"))
    usage = answer(session.regenerate()).usage
    assert (usage.evaluated_tokens, len(session.messages)) == (1, 4)
    answer(session.edit("three"))
    assert [m.content for m in session.messages] == ["one", "yes", "three", "yes"]
    assert session.undo()
    assert session.undo()
    assert not session.undo()
    with pytest.raises(UsageError, match="nothing was said"):
        list(session.regenerate())


def test_a_restored_session_continues_exactly_as_the_uninterrupted_one() -> None:
    one, other = saying("yes"), saying("yes")
    answer(one.say("hi"))
    other.restore([dataclasses.replace(message) for message in one.messages])
    assert answer(other.say("more")).usage.prompt_tokens == answer(one.say("more")).usage.prompt_tokens
    assert one._base.cached == other._base.cached  # type: ignore[attr-defined]


def test_sampling_reports_the_seed_that_repeats_it() -> None:
    session = saying("abc", options=DecodingOptions(temperature=3.0, max_tokens=12))
    first = answer(session.say("hi"))
    session.options = dataclasses.replace(session.options, seed=first.seed)
    assert answer(session.regenerate()).text == first.text


def test_an_unknown_dimension_names_the_near_one_and_lists_all() -> None:
    session = saying("yes", reward=liking("n", by=1, names=("friendly", "witty")))
    with pytest.raises(UsageError, match="did you mean 'friendly'") as caught:
        session.set_weight("freindly", 1)
    assert "friendly, witty" in caught.value.remedy
    with pytest.raises(UsageError):
        session.set_weight("witty", float("nan"))


@pytest.mark.parametrize("ids", [(25, 5), (25, 5, 19, 19), (25, 9999, 19), (-1, 5, 19)])
def test_kept_ids_that_mean_other_words_to_this_model_are_not_used(ids: tuple[int, ...]) -> None:
    session = saying("yes")
    session.restore([Message(role="user", content="hi"), Message(role="assistant", content="yes", tokens=ids)])
    assert session.messages[-1] == Message(role="assistant", content="yes")
    assert answer(session.say("go on")).text == "yes"
    prompt = session._base.cached[0]  # type: ignore[attr-defined]
    assert LETTERS.encode("yes", special=False) == prompt[6:9]


def test_restored_messages_without_ids_are_tokenized_again() -> None:
    session = saying("yes")
    session.restore([Message(role="user", content="hi"), Message(role="assistant", content="ok")])
    assert session.context_used == len("u?hia?oka?")
