"""Turns on their way to the disk: what is kept when things go well, and when they don't."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from padlite.cli.recorder import Recorder, restored
from padlite.errors import StoreError
from padlite.options import OverflowPolicy
from padlite.store import SessionInfo, SessionStore, StoreConflict, StoredMessage
from padlite.template import Message
from tests.chats import Heard, stage


def turns(*texts: str) -> list[Message]:
    """Messages of alternating roles."""
    return [Message(role=("user", "assistant")[i % 2], content=text) for i, text in enumerate(texts)]


class FailingStore:
    """A store whose disk is full as long as *full*."""

    def __init__(self) -> None:
        self.full = True
        self.held: list[StoredMessage] = []

    def create(self, name: str | None, model: str, profile: str) -> str:
        self._check()
        return name or "today"

    def append(self, name: str, *, position: int, messages: Sequence[StoredMessage]) -> None:
        self._check()
        assert position == len(self.held)
        self.held += messages

    def truncate(self, name: str, position: int) -> None:
        self._check()
        del self.held[position:]

    def list(self) -> Sequence[SessionInfo]:
        return ()

    def _check(self) -> None:
        if self.full:
            raise StoreError("the disk is full", remedy="df -h")


def test_a_finished_turn_is_in_the_file_when_the_prompt_returns(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    chat.say("hi")
    name = chat.chat.recorder.name
    assert name is not None
    with SessionStore.open(chat.chat.paths.sessions) as other:
        assert [(m.role, m.content) for m in other.messages(name)] == [("user", "hi"), ("assistant", "yes")]


def test_the_message_is_in_the_file_while_its_answer_is_still_being_decoded(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    seen: list[list[tuple[str, str]]] = []

    class Peeking(Heard):
        def text(self, text: str) -> None:
            if len(self.pieces) == 1:
                seen.append(chat.kept())
            super().text(text)

    chat.chat.turn(chat.chat.session.say("hi"), Peeking())
    assert seen == [[("user", "hi")]]


def test_the_ids_of_an_answer_are_kept_so_that_it_goes_on_exactly(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    chat.say("hi")
    assert chat.chat.recorder.name is not None
    assert restored(chat.store.messages(chat.chat.recorder.name)) == list(chat.chat.session.messages)


def test_no_session_appears_before_something_is_said(tmp_path: Path) -> None:
    chat = stage(tmp_path, name="plans")
    assert chat.store.list() == ()
    chat.say("hi")
    assert [info.name for info in chat.store.list()] == ["plans"]


def test_undo_takes_the_turn_out_of_the_file(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    chat.say("hi")
    chat.say("more")
    assert chat.chat.undo()
    assert chat.kept() == [("user", "hi"), ("assistant", "yes")]


def test_an_answer_being_replaced_stays_until_the_new_one_is_finished(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    chat.say("hi")
    seen: list[list[tuple[str, str]]] = []

    class Peeking(Heard):
        def text(self, text: str) -> None:
            seen.append(chat.kept())

    chat.chat.turn(chat.chat.session.edit("ho"), Peeking())
    assert seen[1] == [("user", "hi"), ("assistant", "yes")]
    assert chat.kept() == [("user", "ho"), ("assistant", "yes")]


def test_turns_dropped_from_the_context_stay_in_the_file(tmp_path: Path) -> None:
    chat = stage(tmp_path, "fine", context_length=64, max_tokens=8, overflow=OverflowPolicy.DROP_OLDEST)
    listener = Heard()
    said = [f"message {letter}" for letter in "abcdef"]
    for text in said:
        chat.chat.turn(chat.chat.session.say(text), listener)
    assert listener.dropped_turns > 0
    assert len(chat.chat.session.messages) < 12
    assert [text for role, text in chat.kept() if role == "user"] == said


def test_undo_after_dropping_keeps_what_was_dropped(tmp_path: Path) -> None:
    chat = stage(tmp_path, "fine", context_length=64, max_tokens=8, overflow=OverflowPolicy.DROP_OLDEST)
    for letter in "abcdef":
        chat.say(f"message {letter}")
    before = chat.kept()
    chat.chat.undo()
    assert chat.kept() == before[:-2]


def test_a_full_disk_is_said_once_and_everything_is_written_when_there_is_room_again() -> None:
    store, notices = FailingStore(), list[str]()
    recorder = Recorder(store, model="m", profile="p", notify=notices.append)
    recorder.record(turns("a", "b"))
    recorder.record(turns("a", "b", "c", "d"))
    assert len(notices) == 1
    assert "the disk is full" in notices[0]
    store.full = False
    recorder.record(turns("a", "b", "c", "d", "e", "f"))
    assert [message.content for message in store.held] == list("abcdef")
    assert "again" in notices[1]


def test_two_chats_on_one_session_lose_nothing(tmp_path: Path) -> None:
    one, two = stage(tmp_path, name="plans"), stage(tmp_path, "no", name="plans")
    one.say("first")
    two.chat.load("plans")
    one.say("from one")
    two.say("from two")
    assert [text for _, text in one.kept("plans")] == ["first", "yes", "from one", "yes"]
    assert [text for _, text in one.kept("plans-2")] == ["first", "yes", "from two", "no"]
    assert two.notices == ["Session 'plans' was continued elsewhere; this one goes on as 'plans-2', complete."]
    two.say("more")
    assert [text for _, text in one.kept("plans-2")][-2:] == ["more", "no"]
    assert len(two.notices) == 1


def test_a_name_that_somebody_else_takes_meanwhile_is_a_conflict_too(tmp_path: Path) -> None:
    one, two = stage(tmp_path, name="plans"), stage(tmp_path, "no", name="plans")
    one.say("first")
    two.say("second")
    assert two.chat.recorder.name == "plans-2"
    assert one.kept("plans") == [("user", "first"), ("assistant", "yes")]


def test_clear_begins_another_session_and_keeps_the_old_one(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    chat.say("hi")
    old = chat.chat.recorder.name
    chat.chat.begin_anew()
    chat.say("anew")
    assert chat.chat.recorder.name != old
    assert chat.kept(old) == [("user", "hi"), ("assistant", "yes")]


def test_branching_keeps_the_whole_conversation_under_the_new_name(tmp_path: Path) -> None:
    chat = stage(tmp_path, name="old")
    chat.say("hi")
    chat.chat.recorder.branch("new", chat.chat.session.messages)
    chat.say("more")
    assert [text for _, text in chat.kept("new")] == ["hi", "yes", "more", "yes"]
    assert [text for _, text in chat.kept("old")] == ["hi", "yes"]
    with pytest.raises(StoreConflict, match="already"):
        chat.chat.recorder.branch("old", chat.chat.session.messages)


def test_without_saving_nothing_is_written(tmp_path: Path) -> None:
    chat = stage(tmp_path, keep=False)
    chat.say("hi")
    assert chat.store.list() == ()


def test_a_turn_stopped_before_its_first_word_leaves_no_trace(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    chat.say("hi")
    before, last = chat.chat.session.messages, chat.chat.session.last
    events = chat.chat.session.regenerate()

    class Hasty:
        def __iter__(self) -> "Hasty":
            return self

        def __next__(self) -> object:
            chat.chat.session.cancel()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chat.chat.turn(Hasty(), Heard())  # type: ignore[arg-type]
    del events
    assert chat.chat.session.messages == before
    assert chat.chat.session.last is last
    assert chat.kept() == [("user", "hi"), ("assistant", "yes")]


def test_a_stopped_answer_is_kept_as_far_as_it_was_said(tmp_path: Path) -> None:
    chat = stage(tmp_path, "yesyesyes")

    class Stopping(Heard):
        def text(self, text: str) -> None:
            super().text(text)
            if len(self.said) == 3:
                chat.chat.session.cancel()

    chat.chat.turn(chat.chat.session.say("hi"), Stopping())
    assert chat.kept() == [("user", "hi"), ("assistant", "yes")]


def test_an_answer_whose_reader_went_away_is_kept_as_far_as_it_was_said(tmp_path: Path) -> None:
    chat = stage(tmp_path, "yesyesyes")

    class Closing(Heard):
        def text(self, text: str) -> None:
            super().text(text)
            if len(self.said) == 3:
                raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        chat.chat.turn(chat.chat.session.say("hi"), Closing())
    assert chat.kept() == [("user", "hi"), ("assistant", "yes")]
