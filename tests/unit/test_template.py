"""Chat templates: what they render, and what a hostile one can't do."""

import datetime
import time

import pytest

from padlite.errors import BackendError
from padlite.template import RENDER_LIMIT_S, ChatTemplate, Message, Segment

HELLO = [Message(role="user", content="hello")]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_segments_join_to_the_prompt_and_keep_the_place_of_every_message() -> None:
    segments = ChatTemplate(CHATML).render([Message(role="system", content="be"), *HELLO])
    assert "".join(s.text for s in segments) == (
        "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [s.message for s in segments] == [None, 0, None, 1, None]


def test_a_left_out_message_does_not_shift_the_others() -> None:
    segments = ChatTemplate("{{ messages[1].content }}").render([*HELLO, Message(role="assistant", content="yo")])
    assert segments == [Segment(text="yo", message=1)]


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ("m.content.split('</think>')[-1]", " and <|im_end|> is text"),
        ("m.content.split('</think>')[0]", "so "),
        ("m.content", "so </think> and <|im_end|> is text"),
    ],
)
def test_what_is_left_of_a_message_that_the_template_cuts_is_still_its_words(cut: str, words: str) -> None:
    source = "{% for m in messages %}<|im_start|>{{ " + cut + " }}<|im_end|>{% endfor %}<|im_start|>"
    answer = Message(role="assistant", content="so </think> and <|im_end|> is text")
    segments = ChatTemplate(source).render([*HELLO, answer])
    assert [s.text for s in segments if s.message is not None] == ["hello", words]
    assert "".join(s.text for s in segments) == f"<|im_start|>hello<|im_end|><|im_start|>{words}<|im_end|><|im_start|>"


def test_the_date_is_pinned() -> None:
    template = ChatTemplate("{{ strftime_now('%Y-%m-%d') }}", today=datetime.date(2026, 1, 2))
    assert template.render(HELLO)[0].text == "2026-01-02"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ 'a' * 100000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ 10 ** 1000000000 }}",
        "{{ raise_exception('no system message please') }}",
        "{{ undefined_function() }}",
    ],
)
def test_a_template_that_reaches_too_far_fails_in_one_line(source: str) -> None:
    with pytest.raises(BackendError, match="chat template") as caught:
        ChatTemplate(source).render(HELLO)
    assert "\n" not in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("source", ["{% if %}", "{{ 'a' | center(9) }}", "{" * 2_000_000])
def test_a_template_that_can_not_be_read_is_refused(source: str) -> None:
    with pytest.raises(BackendError, match="chat template"):
        ChatTemplate(source)


def test_a_template_that_loops_for_ever_is_stopped() -> None:
    started = time.monotonic()
    with pytest.raises(BackendError, match="ran for more than"):
        ChatTemplate("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}").render(HELLO)
    assert time.monotonic() - started < 3 * RENDER_LIMIT_S
