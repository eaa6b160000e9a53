"""The conversation in a real pseudo-terminal: typing, stopping, leaving, being killed."""

import re
import sqlite3
from pathlib import Path

import pytest

from padlite.store import SessionStore
from tests.e2e.terminal import SIGKILL, SIGTERM, Home

SHORT = ("-n", "8")
ENDED = "(stopped after 8 tokens"


@pytest.fixture
def home(chatting_home: Home) -> Home:
    """The home of these tests is one that chats."""
    return chatting_home


def kept(home: Home, name: str | None = None) -> list[tuple[str, str]]:
    with SessionStore.open(home.data / "sessions.sqlite3") as store:
        info = store.latest()
        assert info is not None
        return [(message.role, message.content) for message in store.messages(name or info.name)]


def test_a_conversation_is_held_kept_and_continued(home: Home) -> None:
    with home.talk(*SHORT) as chat:
        chat.say("hello", ENDED)
        chat.say("and again", ENDED)
        chat.press("d")
        chat.expect("padlite chat --continue")
        assert chat.ended() == 0
    assert [text for role, text in kept(home) if role == "user"] == ["hello", "and again"]
    assert (home.data / "sessions.sqlite3").stat().st_mode & 0o777 == 0o600
    assert (home.data / "input_history").stat().st_mode & 0o777 == 0o600
    with home.talk("--continue", *SHORT) as chat:
        chat.say("once more", ENDED)
        assert chat.leave() == 0
    assert [text for role, text in kept(home) if role == "user"] == ["hello", "and again", "once more"]


def test_ctrl_c_stops_the_answer_and_keeps_the_chat_and_what_was_said(home: Home) -> None:
    with home.talk("--context-length", "16384") as chat:
        chat.type("talk for ever")
        chat.answering()
        chat.press("c")
        chat.expect("(stopped)")
        chat.expect("›")
        chat.say("/stats", "ended by cancelled")
        assert chat.leave() == 0
    assert kept(home)[0] == ("user", "talk for ever")
    assert len(kept(home)[1][1]) > 10


def test_ctrl_c_at_the_prompt_clears_the_line_and_then_says_how_to_leave(home: Home) -> None:
    with home.talk(*SHORT) as chat:
        chat.child.send("never sent")
        chat.expect("never sent")
        chat.press("c")
        chat.press("c")
        chat.expect("Ctrl-D leaves")
        chat.say("hello", ENDED)
        assert chat.leave() == 0
    assert kept(home)[0] == ("user", "hello")


def test_several_lines_can_be_typed_pasted_and_edited(home: Home, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nprintf 'from\\nthe editor\\n' > \"$1\"\n")
    editor.chmod(0o700)
    home.extra["EDITOR"] = str(editor)
    with home.talk(*SHORT) as chat:
        chat.child.send("one\\\rtwo\x1b\rthree")
        chat.say("", ENDED)
        chat.child.send("\x1b[200~pasted\nlines\x1b[201~")
        chat.say("", ENDED)
        chat.press("g")
        chat.expect("the editor")
        chat.say("", ENDED)
        chat.say("/edit", "Nothing was changed")
        chat.say("/edit in its place", ENDED)
        assert chat.leave() == 0
    said = [text for role, text in kept(home) if role == "user"]
    assert said == ["one\ntwo\nthree", "pasted\nlines", "in its place"]


def test_weights_changed_in_the_chat_work_at_once_and_why_explains_them(home: Home) -> None:
    with home.talk(*SHORT) as chat:
        chat.say("hello", ENDED)
        chat.say("/weights alpha=5 beta=-5", "strength 1")
        chat.say("hello", ENDED)
        chat.say("/why", "tipped the scales")
        chat.say("/why 1", "score = base + all dimensions")
        chat.say("/weigths", "did you mean /weights?")
        assert chat.leave() == 0


def test_what_is_typed_during_an_answer_is_not_printed_into_it(home: Home) -> None:
    with home.talk("--context-length", "8192", "-n", "300") as chat:
        chat.type("talk")
        chat.answering(3)
        chat.child.send("typed-ahead")
        assert "typed-ahead" not in chat.expect("(stopped after 300")
        chat.expect("typed-ahead")
        chat.press("c")
        assert chat.leave() == 0


def test_sigterm_saves_and_leaves_at_the_prompt_and_in_an_answer(home: Home) -> None:
    with home.talk(*SHORT) as chat:
        chat.say("hello", ENDED)
        chat.kill(SIGTERM)
        assert chat.ended() == 143
    with home.talk("--continue", "-n", "0", "--context-length", "16384") as chat:
        chat.type("talk for ever")
        chat.answering()
        chat.kill(SIGTERM)
        assert chat.ended() == 143
    messages = kept(home)
    assert [text for role, text in messages if role == "user"] == ["hello", "talk for ever"]
    assert len(messages[3][1]) > 10


def test_kill_9_in_an_answer_loses_at_most_that_answer(home: Home) -> None:
    with home.talk("--context-length", "16384") as chat:
        chat.say("/set max_tokens=8", "max_tokens")
        chat.say("hello", ENDED)
        chat.say("/set max_tokens=0", "max_tokens")
        chat.type("talk for ever")
        chat.answering()
        chat.kill(SIGKILL)
        assert chat.ended() == 128 + 9
    messages = kept(home)
    assert [role for role, _ in messages] == ["user", "assistant", "user"]
    assert messages[2] == ("user", "talk for ever")
    with sqlite3.connect(home.data / "sessions.sqlite3") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_two_chats_in_one_session_both_keep_everything(home: Home) -> None:
    with home.talk("--session", "plans", *SHORT) as one:
        one.say("first", ENDED)
        with home.talk("--session", "plans", *SHORT) as two:
            one.say("from one", ENDED)
            two.say("from two", "goes on as 'plans-2'")
            assert two.leave() == 0
        assert one.leave() == 0
    assert [text for role, text in kept(home, "plans") if role == "user"] == ["first", "from one"]
    assert [text for role, text in kept(home, "plans-2") if role == "user"] == ["first", "from two"]


def test_a_folder_that_can_not_be_written_is_said_once_and_the_chat_goes_on(home: Home) -> None:
    home.extra["PADLITE_DATA_DIR"] = "/proc/nowhere"
    with home.talk(*SHORT) as chat:
        chat.type("hello")
        shown = chat.welcome + chat.expect(ENDED)
        chat.expect("›")
        chat.type("again")
        shown += chat.expect(ENDED)
        assert shown.count("can't be saved") == 1
        chat.expect("›")
        assert chat.leave() == 0


def test_no_save_leaves_nothing_behind(home: Home) -> None:
    with home.talk("--no-save", *SHORT) as chat:
        chat.say("a secret", ENDED)
        assert chat.leave() == 0
    assert not home.data.exists() or not list(home.data.iterdir())


def test_no_color_is_honoured_in_the_terminal(home: Home) -> None:
    home.extra["NO_COLOR"] = "1"
    with home.talk(*SHORT) as chat:
        chat.type("hello")
        shown = chat.expect(ENDED)
        chat.expect("›")
        chat.type("/why")
        shown += chat.expect("instead of")
        assert not re.findall(r"\x1b\[(?:\d+;)*(?:3[0-7]|38;[25]|4[0-7]|48;[25]|9[0-7])[;m\d]*m", shown)
        chat.press("d")


def test_a_dumb_terminal_gets_the_plain_text(home: Home) -> None:
    home.extra["TERM"] = "dumb"
    with home.talk(*SHORT) as chat:
        chat.say("hello", ENDED)
        chat.press("d")


@pytest.mark.parametrize("columns", [80, 30])
def test_a_long_answer_fills_the_screen_without_moving_what_is_above(home: Home, columns: int) -> None:
    with home.talk("-n", "300", "--context-length", "2048", columns=columns) as chat:
        chat.say("hello", "(stopped after 300")
        assert chat.leave() == 0
