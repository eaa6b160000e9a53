"""One question, one answer: what is asked, what is printed where, and the exit code."""

import io
import json
from pathlib import Path

import pytest

from padlite.cli.asked import Output, read_prompt
from padlite.cli.chat import Overrides, apply
from padlite.cli.one_shot import answer_once, as_json
from padlite.errors import ContextFullError, UsageError
from padlite.options import OverflowPolicy
from padlite.profile import Profile
from tests.chats import stage
from tests.fakes import liking


def test_stdin_is_attached_below_the_prompt() -> None:
    assert read_prompt("summarize", io.BytesIO(b"my notes\n")) == "summarize\n\nmy notes"
    assert read_prompt("summarize", io.BytesIO()) == "summarize"
    assert read_prompt("summarize", None) == "summarize"


def test_stdin_alone_is_the_prompt_with_a_dash_or_without_p() -> None:
    assert read_prompt("-", io.BytesIO("grüße\n".encode())) == "grüße"
    assert read_prompt(None, io.BytesIO(b"\xef\xbb\xbfhi")) == "hi"


@pytest.mark.parametrize(("prompt", "stdin"), [(None, b""), ("-", b" \n"), ("", b""), ("  ", None)])
def test_an_empty_prompt_is_refused(prompt: str | None, stdin: bytes | None) -> None:
    with pytest.raises(UsageError, match="empty"):
        read_prompt(prompt, None if stdin is None else io.BytesIO(stdin))


def test_text_that_is_not_utf8_is_refused_with_its_place() -> None:
    with pytest.raises(UsageError, match="byte 4 of 5"):
        read_prompt("-", io.BytesIO(b"abc\xffd"))
    with pytest.raises(UsageError, match="UTF-8"):
        read_prompt("a\udcff", None)


def test_the_answer_goes_to_stdout_as_it_is(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    assert answer_once(chat.chat, chat.screen, "hi", Output()) == 0
    assert chat.answers == "yes\n"
    assert chat.notes == ""
    assert chat.kept() == [("user", "hi"), ("assistant", "yes")]


def test_without_streaming_it_comes_at_once(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    assert answer_once(chat.chat, chat.screen, "hi", Output(stream=False)) == 0
    assert chat.answers == "yes\n"


def test_json_is_one_object_with_everything_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = stage(tmp_path, reward=liking("a", by=5.0, names=("friendly",)))
    chat.chat.set_weights({"friendly": 1.0})
    assert answer_once(chat.chat, chat.screen, "hi", Output(json=True, trace=True)) == 0
    record = json.loads(capsys.readouterr().out)
    assert {"text", "finish_reason", "usage", "timings", "model", "profile", "seed", "trace"} <= set(record)
    assert record["profile"] == "ada"
    assert record["finish_reason"] == "length"
    assert record["usage"]["completion_tokens"] == len(record["trace"]) == 40
    first = record["trace"][0]
    assert first["changed"] is True
    assert first["changed_by"] == "friendly"
    assert first["candidates"][first["chosen"]]["text"] == "a"
    assert first["candidates"][first["base_choice"]]["text"] == "y"
    assert first["candidates"][first["chosen"]]["contributions"] == {"friendly": 5.0}
    assert chat.answers == ""


def test_without_trace_there_is_none(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    chat.say("hi")
    assert chat.chat.session.last is not None
    assert "trace" not in as_json(chat.chat.session.last, chat.chat, trace=False)  # type: ignore[operator]


def test_a_prompt_that_does_not_fit_says_both_numbers(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    with pytest.raises(ContextFullError, match=r"100,00\d tokens.*256") as error:
        answer_once(chat.chat, chat.screen, "a" * 100_000, Output())
    assert error.value.exit_code == 4


def test_an_answer_cut_off_by_the_context_is_exit_code_4(tmp_path: Path) -> None:
    chat = stage(tmp_path, "y" * 200, context_length=64, max_tokens=0)
    assert answer_once(chat.chat, chat.screen, "hi", Output()) == 4
    assert "cut off" in chat.notes


def test_the_command_line_wins_over_the_profile() -> None:
    profile = Profile(
        name="ada", reward=Path("/p/head.onnx"), about="me", preferences={"friendly": 0.5, "witty": 0.1},
        decoding={"temperature": 0.2, "seed": 3},
    )  # fmt: skip
    changed = apply(
        profile,
        Overrides(
            model="/m/base.gguf", weights=(("friendly", -1.0),), system="brief", overflow="drop-oldest",
            decoding={"temperature": 0.9}, threads=2,
        ),
    )  # fmt: skip
    assert changed.base == Path("/m/base.gguf")
    assert changed.reward is None  # it belonged to the profile's own base
    assert changed.preferences == {"friendly": -1.0, "witty": 0.1}
    assert changed.decoding == {"temperature": 0.9, "seed": 3}
    assert changed.system_text() == "brief"
    assert changed.overflow is OverflowPolicy.DROP_OLDEST
    assert changed.threads == 2


def test_plain_means_strength_0() -> None:
    assert apply(Profile(), Overrides(plain=True, decoding={})).decoding == {"strength": 0.0}


def test_an_option_out_of_range_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError, match="temperature"):
        apply(Profile(), Overrides(decoding={"temperature": -1.0}))
    with pytest.raises(UsageError, match="threads"):
        apply(Profile(), Overrides(decoding={}, threads=-1))
