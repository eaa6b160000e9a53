"""The benchmarks measure what they say: the same text from both loops, a long conversation that stays as it is."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.bare_loop import BareLoop
from benchmarks.long_conversation import Turn, converse, growth_mb, slowdown
from padlite.opening import OpenChat, open_chat
from padlite.options import OverflowPolicy
from padlite.profile import Profile
from padlite.prompt import prompt_tokens
from padlite.session import Finished
from padlite.template import Message


@pytest.fixture
def chat(random_base: Path, random_head: Path) -> Iterator[OpenChat]:
    """A chat on the tiny random model, steered by noise, with a context of 512 tokens."""
    profile = Profile(
        base=random_base,
        reward=random_head,
        preferences={"alpha": 1.0},
        decoding={"max_tokens": 24},
        threads=1,
        overflow=OverflowPolicy.DROP_OLDEST,
    )
    with open_chat(profile) as opened:
        yield opened


def test_the_bare_loop_and_padlite_without_guidance_choose_the_same_tokens(chat: OpenChat, random_base: Path) -> None:
    prompt = prompt_tokens(chat.template, chat.base.tokenizer, [Message(role="user", content="hello")])
    session = chat.session
    session.options = dataclasses.replace(session.options, strength=0.0)
    answer = next(event.answer for event in session.say("hello") if isinstance(event, Finished))
    with BareLoop(random_base, threads=1, context_length=512) as bare:
        assert bare.run(prompt, 24).tokens == tuple(token.id for token in answer.trace)


def test_a_long_conversation_keeps_its_memory_and_its_price(chat: OpenChat) -> None:
    turns = converse(chat.session, 40)
    assert len(turns) == 40
    assert sum(turn.dropped for turn in turns) > 20
    assert max(turn.context_used for turn in turns) <= chat.base.context_length
    assert max(turn.evaluated for turn in turns) <= chat.base.context_length
    assert len(chat.session.messages) < 40
    assert growth_mb(turns) < 8


def turn(*, rss_mb: float = 100.0, token_ms: float = 1.0, dropped: int = 0) -> Turn:
    return Turn(rss_mb=rss_mb, token_ms=token_ms, first_token_ms=1.0, evaluated=1, context_used=1, dropped=dropped)


def test_growth_and_slowdown_are_judged_from_the_first_overflow_on() -> None:
    filling = [turn(rss_mb=50.0 + i, token_ms=1.0 + i / 10) for i in range(10)]
    level = [turn(rss_mb=60.0, token_ms=2.0, dropped=1) for _ in range(10)]
    assert growth_mb([*filling, *level]) == 0
    assert slowdown([*filling, *level]) == 1
    assert growth_mb([*filling, *level, *(turn(rss_mb=70.0) for _ in range(5))]) == 10
    assert slowdown([*filling, *level, *(turn(token_ms=3.0) for _ in range(5))]) == 1.5
