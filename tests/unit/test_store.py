import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from padlite.errors import NotFoundError, StoreError, UsageError
from padlite.store import SessionStore, StoreConflict, StoredMessage

QUESTION = StoredMessage(role="user", content="How are you?\nReally?")
ANSWER = StoredMessage(role="assistant", content="Fine, 🙂.", tokens=(1, 0, 151_000))
NOON = 1_767_873_600.0  # 2026-01-08 12:00 UTC


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "sessions.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[SessionStore]:
    ticks = iter(range(10_000))
    with SessionStore.open(path, clock=lambda: NOON + next(ticks)) as store:
        yield store


def talk(store: SessionStore, name: str | None = None, *, secret: str = "") -> str:
    name = store.create(name, model="tiny", profile="me")
    store.append(name, position=0, messages=[StoredMessage(role="user", content=secret or "hi"), ANSWER])
    return name


def test_a_conversation_comes_back_as_it_was_kept(store: SessionStore, path: Path) -> None:
    store.create("bees", model="tiny", profile="me")
    store.append("bees", position=0, messages=[QUESTION, ANSWER])
    with SessionStore.open(path) as other:
        assert other.messages("bees") == (QUESTION, ANSWER)
        info = other.info("bees")
    assert (info.name, info.model, info.profile, info.messages) == ("bees", "tiny", "me", 2)
    assert info.title == "How are you? Really?"
    assert info.created < info.updated


def test_a_conversation_grows_turn_by_turn(store: SessionStore) -> None:
    name = talk(store)
    store.append(name, position=2, messages=[QUESTION, ANSWER])
    assert len(store.messages(name)) == 4


def test_undo_forgets_the_last_turn_and_goes_on_from_there(store: SessionStore) -> None:
    name = talk(store)
    store.append(name, position=2, messages=[QUESTION, ANSWER])
    store.truncate(name, 2)
    assert store.messages(name)[-1] == ANSWER
    store.append(name, position=2, messages=[ANSWER])
    assert len(store.messages(name)) == 3


def test_unnamed_conversations_are_named_after_the_day(store: SessionStore) -> None:
    names = [store.create(None, model="m", profile="p") for _ in range(3)]
    assert names[0].startswith("2026-01-0")
    assert names[1:] == [f"{names[0]}-2", f"{names[0]}-3"]


def test_a_name_is_given_once(store: SessionStore) -> None:
    talk(store, "bees")
    with pytest.raises(StoreConflict, match="already a session 'bees'"):
        store.create("bees", model="m", profile="p")
    assert len(store.messages("bees")) == 2


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a\nb"])
def test_a_name_that_could_not_be_typed_is_refused(name: str, store: SessionStore) -> None:
    with pytest.raises(UsageError):
        store.create(name, model="m", profile="p")


def test_the_last_conversation_that_holds_something_is_the_latest(store: SessionStore) -> None:
    assert store.latest() is None
    talk(store, "first")
    talk(store, "second")
    store.append("first", position=2, messages=[QUESTION])
    store.create("empty", model="m", profile="p")
    assert [info.name for info in store.list()] == ["empty", "first", "second"]
    latest = store.latest()
    assert latest is not None
    assert latest.name == "first"


def test_an_unknown_name_is_not_found_and_the_closest_is_offered(store: SessionStore) -> None:
    talk(store, "gardening")
    for ask in (store.messages, store.info, store.remove):
        with pytest.raises(NotFoundError, match="did you mean 'gardening'"):
            ask("gardning")


def test_a_long_first_message_makes_a_short_title(store: SessionStore) -> None:
    title = store.info(talk(store, secret="word " * 100)).title
    assert len(title) <= 60
    assert title.endswith("word…")


def test_text_that_is_no_unicode_is_kept_as_far_as_it_can_be(store: SessionStore) -> None:
    name = store.create(None, model="m", profile="p")
    store.append(name, position=0, messages=[StoredMessage(role="user", content="a\ud800b\0c\udcff🙂")])
    assert store.messages(name)[0].content == "a\ufffdb\0c\ufffd🙂"


# two at once


def test_two_that_write_the_same_conversation_are_told(store: SessionStore, path: Path) -> None:
    name = talk(store)
    with SessionStore.open(path) as other:
        assert len(other.messages(name)) == 2
        other.append(name, position=2, messages=[QUESTION, ANSWER])
    with pytest.raises(StoreConflict, match="changed elsewhere"):
        store.append(name, position=2, messages=[ANSWER])
    assert len(store.messages(name)) == 4


def test_a_conversation_that_somebody_else_rewrote_to_the_same_length_is_a_conflict_too(
    store: SessionStore, path: Path
) -> None:
    name = talk(store)
    with SessionStore.open(path) as other:
        other.truncate(name, 1)
        other.append(name, position=1, messages=[QUESTION])
    with pytest.raises(StoreConflict):
        store.append(name, position=2, messages=[ANSWER])
    with pytest.raises(StoreConflict):
        store.truncate(name, 0)


def test_after_reading_again_the_conversation_goes_on(store: SessionStore, path: Path) -> None:
    name = talk(store)
    with SessionStore.open(path) as other:
        other.append(name, position=2, messages=[QUESTION, ANSWER])
    store.append(name, position=len(store.messages(name)), messages=[QUESTION])
    assert len(store.messages(name)) == 5


def test_a_conversation_that_was_removed_elsewhere_is_a_conflict_and_stays_gone(
    store: SessionStore, path: Path
) -> None:
    name = talk(store)
    with SessionStore.open(path) as other:
        other.remove(name)
    with pytest.raises(StoreConflict, match="was removed"):
        store.append(name, position=2, messages=[QUESTION])
    assert store.list() == ()


def test_the_wrong_position_writes_nothing(store: SessionStore) -> None:
    name = talk(store)
    for position in (0, 1, 3):
        with pytest.raises(StoreConflict):
            store.append(name, position=position, messages=[QUESTION])
    assert len(store.messages(name)) == 2


def test_many_at_once_lose_nothing(path: Path) -> None:
    def chat() -> None:
        with SessionStore.open(path) as store:
            name = store.create(None, model="m", profile="p")
            for position in range(10):
                store.append(name, position=position, messages=[QUESTION])

    threads = [threading.Thread(target=chat) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with SessionStore.open(path) as store:
        assert [info.messages for info in store.list()] == [10] * 6


# forgetting


def remains(folder: Path, secret: str) -> list[str]:
    return [file.name for file in folder.iterdir() if secret.encode() in file.read_bytes()]


def test_a_removed_conversation_is_gone_from_every_file(store: SessionStore, path: Path) -> None:
    secret = "the treasure lies under the oak " * 400
    talk(store, "kept")
    talk(store, "secret", secret=secret)
    assert remains(path.parent, "under the oak"), "the test would prove nothing"
    store.remove("secret")
    assert remains(path.parent, "under the oak") == []
    assert [info.name for info in store.list()] == ["kept"]


def test_removing_everything_leaves_nothing_even_while_another_chat_has_the_file_open(
    store: SessionStore, path: Path
) -> None:
    with SessionStore.open(path) as other:
        for number in range(20):
            talk(store, f"s{number}", secret=f"under the oak {number}")
        assert len(other.list()) == 20
        assert store.remove_all() == 20
        assert remains(path.parent, "under the oak") == []
        assert other.list() == ()


def test_what_undo_took_back_is_gone_when_the_conversation_is_removed(store: SessionStore, path: Path) -> None:
    name = talk(store, secret="under the oak")
    store.truncate(name, 0)
    store.remove(name)
    assert remains(path.parent, "under the oak") == []


def test_what_undo_took_back_is_gone_when_the_store_is_closed(path: Path) -> None:
    with SessionStore.open(path) as store:
        name = talk(store, secret="under the oak")
        store.append(name, position=2, messages=[QUESTION])
        store.truncate(name, 0)
        store.append(name, position=0, messages=[QUESTION])
    assert remains(path.parent, "under the oak") == []


def test_forgetting_gives_the_space_back(store: SessionStore, path: Path) -> None:
    talk(store, secret="x" * 1_000_000)
    store.remove_all()
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 100_000


def test_a_reader_that_keeps_the_journal_alive_is_named_instead_of_pretending(path: Path) -> None:
    with SessionStore.open(path) as store:
        name = talk(store, secret="under the oak")
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM message").fetchall()
        store._connection.execute("PRAGMA busy_timeout = 50")
        with pytest.raises(StoreError, match="another padlite"):
            store.remove(name)
        reader.close()
        store.remove_all()
        assert remains(path.parent, "under the oak") == []


# files


def test_all_files_are_private_and_so_is_the_folder(path: Path) -> None:
    before = os.umask(0)
    try:
        with SessionStore.open(path) as store:
            talk(store)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["sessions.sqlite3", "sessions.sqlite3-wal", "sessions.sqlite3-shm"], 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_can_read_becomes_private(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    path.chmod(0o644)
    SessionStore.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_write_is_synced_to_the_disk(store: SessionStore) -> None:
    settings = [store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]


@pytest.mark.parametrize("content", [b"no database, but as long as one. " * 99, b"SQLite format 3\0" * 99])
def test_a_damaged_file_is_refused_and_left_as_it_is(content: bytes, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged") as raised:
        SessionStore.open(path)
    assert raised.value.remedy.startswith(f"mv {path} {path}.damaged")
    assert path.read_bytes() == content


def test_a_file_damaged_in_the_middle_is_refused_and_left_as_it_is(path: Path) -> None:
    with SessionStore.open(path) as store:
        name = talk(store, secret="x" * 50_000)
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"), SessionStore.open(path) as store:
        store.messages(name)
    assert path.read_bytes() == content


def test_an_empty_file_is_a_new_store(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with SessionStore.open(path) as store:
        assert store.list() == ()


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipe (name TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        SessionStore.open(path)
    assert path.read_bytes() == before


def test_a_store_from_a_newer_padlite_is_refused(path: Path) -> None:
    SessionStore.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(StoreError, match="newer padlite"):
        SessionStore.open(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        SessionStore.open(tmp_path / "file" / "data" / "sessions.sqlite3")


def test_a_full_disk_is_named_and_nothing_is_lost(store: SessionStore) -> None:
    name = talk(store)
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="disk is full"):
        store.append(name, position=2, messages=[StoredMessage(role="user", content="x" * 100_000)])
    assert len(store.messages(name)) == 2
    store._connection.execute("PRAGMA max_page_count = 100000")
    store.append(name, position=2, messages=[QUESTION])


READ_ONLY = """
import os, sys
from pathlib import Path
from padlite.errors import StoreError
from padlite.store import SessionStore, StoredMessage
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    with SessionStore.open(Path(sys.argv[1])) as store:
        store.append("bees", position=2, messages=[StoredMessage(role="user", content="x")])
except StoreError as error:
    print(error.message, "|", error.remedy)
"""


@pytest.fixture
def open_to_all(tmp_path: Path) -> Iterator[Path]:
    """A folder that another user can get to (pytest's own are private)."""
    closed = [folder for folder in (tmp_path, *tmp_path.parents) if not folder.stat().st_mode & 0o005]
    modes = {folder: stat.S_IMODE(folder.stat().st_mode) for folder in closed}
    for folder, mode in modes.items():
        folder.chmod(mode | 0o055)
    yield tmp_path
    for folder, mode in modes.items():
        folder.chmod(mode)


def try_as_somebody_without_rights(path: Path) -> str:
    run = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.stderr == ""
    return run.stdout


def test_a_read_only_folder_is_named(open_to_all: Path) -> None:
    folder = open_to_all / "data"
    folder.mkdir()
    folder.chmod(0o555)
    said = try_as_somebody_without_rights(folder / "sessions.sqlite3")
    assert said.startswith(f"can't keep conversations in {folder}/sessions.sqlite3: permission denied | ls -ld ")


def test_a_read_only_file_is_named(open_to_all: Path) -> None:
    path = open_to_all / "data" / "sessions.sqlite3"
    with SessionStore.open(path) as store:
        talk(store, "bees")
    path.chmod(0o444)
    path.parent.chmod(0o555)
    said = try_as_somebody_without_rights(path)
    assert str(path) in said
    assert "| ls -ld " in said


# export


def test_json_export_holds_everything_a_person_said(store: SessionStore) -> None:
    name = talk(store)
    record = json.loads(store.export(name, "json"))
    assert record["name"] == name
    assert record["created"].startswith("2026-01-08T12:00:0")
    assert record["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Fine, 🙂."}]


def test_markdown_export_reads_like_a_conversation(store: SessionStore) -> None:
    text = store.export(talk(store), "markdown")
    assert text.startswith("# hi\n\n*2026-01-08T12:00:0")
    assert text.endswith("\n## You\n\nhi\n\n## padlite\n\nFine, 🙂.\n")
