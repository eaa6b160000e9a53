"""`padlite sessions …` as a person types it."""

import json
import sys
from pathlib import Path

import pexpect
import pytest

from padlite.cli.sessions import human_time
from padlite.store import SessionStore, StoredMessage
from tests.command_line import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(folder=tmp_path)


def keep(home: Home, name: str, question: str = "hi", answer: str = "Hello!") -> None:
    with SessionStore.open(home.store) as store:
        store.create(name, model="tiny", profile="me")
        turn = [StoredMessage(role="user", content=question), StoredMessage(role="assistant", content=answer)]
        store.append(name, position=0, messages=turn)


def test_conversations_are_listed_the_last_one_first(home: Home) -> None:
    keep(home, "bees", "How do bees sleep?")
    keep(home, "night shift", "Good evening")
    run = home.run("sessions", "list")
    assert (run.returncode, run.stderr) == (0, "")
    assert [line.split("  ")[0] for line in run.stdout.splitlines()] == ["night shift", "bees"]
    assert "just now     2 messages  How do bees sleep?" in run.stdout
    assert [info["name"] for info in json.loads(home.run("sessions", "list", "--json").stdout)] == [
        "night shift",
        "bees",
    ]


def test_where_nothing_is_kept_looking_creates_nothing(home: Home) -> None:
    assert home.run("sessions", "list").returncode == 0
    assert json.loads(home.run("sessions", "list", "--json").stdout) == []
    for words in (("show",), ("show", "x"), ("export",), ("rm", "x")):
        run = home.run("sessions", *words)
        assert (run.returncode, run.stdout) == (3, "")
        assert "no conversations are kept yet" in run.stderr
    assert home.run("sessions", "path").stdout == f"{home.store}\n"
    assert not home.data.exists()


def test_a_conversation_is_shown_by_name_or_the_last_one(home: Home) -> None:
    keep(home, "bees", "How do bees\nsleep?", "In shifts.")
    keep(home, "later")
    assert home.run("sessions", "show", "bees").stdout == "user: How do bees\nsleep?\n\nassistant: In shifts.\n\n"
    assert home.run("sessions", "show").stdout.startswith("user: hi\n")
    assert json.loads(home.run("sessions", "show", "bees", "--json").stdout)["name"] == "bees"
    run = home.run("sessions", "show", "bes")
    assert (run.returncode, run.stdout) == (3, "")
    assert run.stderr == "padlite: there is no session 'bes' — did you mean 'bees'?\ntry: padlite sessions list\n"


def test_what_was_said_cannot_drive_the_terminal(home: Home) -> None:
    keep(home, "x", "\x1b[2J\x1b]0;owned\x07", "a\tb\r\x9b31m")
    for words in (("list",), ("show",)):
        shown = home.run("sessions", *words).stdout
        assert not set(shown) & {"\x1b", "\x07", "\x9b", "\r"}


def test_a_conversation_is_exported_as_markdown_or_json(home: Home, tmp_path: Path) -> None:
    keep(home, "bees", "How do bees sleep?", "In *shifts*.")
    assert (
        "## You\n\nHow do bees sleep?\n\n## padlite\n\nIn *shifts*.\n" in home.run("sessions", "export", "bees").stdout
    )
    exported = json.loads(home.run("sessions", "export", "--format", "json").stdout)
    assert [message["role"] for message in exported["messages"]] == ["user", "assistant"]
    file = tmp_path / "bees.md"
    assert home.run("sessions", "export", "bees", "-o", str(file)).returncode == 0
    assert file.read_text(encoding="utf-8").startswith("# How do bees sleep?")
    assert home.run("sessions", "export", "bees", "-o", str(file)).returncode == 2
    assert home.run("sessions", "export", "bees", "-o", str(file), "--force").returncode == 0
    assert home.run("sessions", "export", "bees", "-o", str(tmp_path / "no" / "file")).returncode == 1


def test_removed_conversations_are_gone_and_the_others_stay(home: Home) -> None:
    for name in ("a", "b", "c"):
        keep(home, name, f"secret {name}")
    run = home.run("sessions", "rm", "a", "b", "a")
    assert (run.returncode, run.stdout) == (0, "forgotten: a\nforgotten: b\n")
    assert [info["name"] for info in json.loads(home.run("sessions", "list", "--json").stdout)] == ["c"]
    assert b"secret a" not in home.store.read_bytes()


def test_an_unknown_name_among_several_removes_none(home: Home) -> None:
    keep(home, "a")
    assert home.run("sessions", "rm", "a", "z").returncode == 3
    assert "a" in home.run("sessions", "list").stdout


@pytest.mark.parametrize("words", [(), ("a", "--all")])
def test_rm_wants_names_or_all(words: tuple[str, ...], home: Home) -> None:
    keep(home, "a")
    assert home.run("sessions", "rm", *words).returncode == 2
    assert "a" in home.run("sessions", "list").stdout


def test_all_is_forgotten_only_when_somebody_confirms(home: Home) -> None:
    keep(home, "a")
    run = home.run("sessions", "rm", "--all")
    assert run.returncode == 2
    assert run.stderr.endswith("try: padlite sessions rm --all --yes\n")
    for answer, left in (("n", 1), ("y", 0)):
        terminal = pexpect.spawn(
            sys.executable, ["-m", "padlite", "sessions", "rm", "--all"], env=home.environment, timeout=60
        )
        terminal.expect("Forget all 1 conversations")
        terminal.sendline(answer)
        terminal.expect(pexpect.EOF)
        assert terminal.wait() == 0
        assert len(json.loads(home.run("sessions", "list", "--json").stdout)) == left


def test_forgetting_all_takes_typed_lines_and_tracebacks_with_it(home: Home) -> None:
    keep(home, "a", "the treasure lies under the oak")
    for name in ("input_history", "last-crash.txt"):
        (home.data / name).write_text("under the oak", encoding="utf-8")
    run = home.run("sessions", "rm", "--all", "--yes")
    assert run.returncode == 0
    assert [file.name for file in home.data.iterdir() if b"under the oak" in file.read_bytes()] == []


def test_a_damaged_store_is_one_line_with_a_remedy_and_stays(home: Home) -> None:
    home.data.mkdir()
    home.store.write_bytes(b"no database " * 1000)
    for words in (("list",), ("show",), ("rm", "--all", "--yes")):
        run = home.run("sessions", *words)
        assert (run.returncode, run.stdout) == (1, "")
        message, remedy = run.stderr.splitlines()
        assert "is damaged" in message
        assert remedy.startswith(f"try: mv {home.store} {home.store}.damaged")
    assert home.store.read_bytes() == b"no database " * 1000


def test_times_are_said_as_a_person_would() -> None:
    from datetime import datetime

    now = datetime(2026, 5, 10, 15, 0).astimezone().timestamp()
    hour = 3600
    assert human_time(now - 5, now) == "just now"
    assert human_time(now + 100, now) == "just now", "a clock that was set back"
    assert human_time(now - 600, now) == "10 min ago"
    assert human_time(now - 5 * hour, now) == "today 10:00"
    assert human_time(now - 24 * hour, now) == "yesterday 15:00"
    assert human_time(now - 60 * hour, now) == "2026-05-08"
