"""Conversations outlive a process that is killed, two that write at once, and a disk that has no room."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from padlite.store import SessionStore
from tests.command_line import Home

WRITES = """
import sys
from pathlib import Path
from padlite.store import SessionStore, StoredMessage
store = SessionStore.open(Path(sys.argv[1]))
name = store.create(sys.argv[2], model="m", profile="p")
position = 0
while True:
    turn = [StoredMessage(role="user", content=f"question {position} " * 200),
            StoredMessage(role="assistant", content=f"answer {position} " * 200, tokens=tuple(range(200)))]
    store.append(name, position=position, messages=turn)
    position += 2
    print(position, flush=True)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(folder=tmp_path)


def writer(home: Home, name: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITES, str(home.store), name], env=home.environment, stdout=subprocess.PIPE, text=True
    )


def kill_after(process: "subprocess.Popen[str]", turns: int, delay_s: float) -> int:
    """Kill -9 after so many turns and a moment; return how many messages the process had reported as kept."""
    assert process.stdout is not None
    for _ in range(turns):
        process.stdout.readline()
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    reported = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    return int(reported[-1]) if reported else turns * 2


def test_a_process_that_is_killed_loses_no_finished_turn_and_leaves_no_half_one(home: Home) -> None:
    rng = random.Random(1)
    for attempt in range(6):
        process = writer(home, f"s{attempt}")
        kept = kill_after(process, turns=rng.randint(1, 5), delay_s=rng.random() * 0.02)
        with SessionStore.open(home.store) as store:
            messages = store.messages(f"s{attempt}")
        assert len(messages) >= kept
        assert len(messages) % 2 == 0, "a turn is kept whole or not at all"
        for position in range(0, len(messages), 2):
            assert messages[position].content.startswith(f"question {position} ")
            assert messages[position + 1].content == f"answer {position} " * 200
            assert messages[position + 1].tokens == tuple(range(200))
    listed = home.run("sessions", "list")
    assert (listed.returncode, len(listed.stdout.splitlines())) == (0, 6)


def test_a_process_killed_while_it_forgets_leaves_a_store_that_opens(home: Home) -> None:
    for delay_ms in (0, 20, 40, 80, 160):
        kill_after(writer(home, f"s{delay_ms}"), turns=20, delay_s=0)
        process = subprocess.Popen(
            [sys.executable, "-m", "padlite", "sessions", "rm", "--all", "--yes"], env=home.environment
        )
        time.sleep(0.1 + delay_ms / 1000)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert home.run("sessions", "list").returncode == 0
    assert home.run("sessions", "rm", "--all", "--yes").returncode == 0
    assert b"question 0" not in b"".join(file.read_bytes() for file in home.data.iterdir())


def test_two_processes_write_two_conversations_at_once(home: Home) -> None:
    writers = [writer(home, name) for name in ("a", "b")]
    kept = [kill_after(process, turns=10, delay_s=0) for process in writers]
    with SessionStore.open(home.store) as store:
        for name, count in zip(("a", "b"), kept, strict=True):
            assert len(store.messages(name)) >= count


NO_ROOM = """
import resource, sys
from pathlib import Path
from padlite.errors import StoreError
from padlite.store import SessionStore, StoredMessage
store = SessionStore.open(Path(sys.argv[1]))
name = store.create("s", model="m", profile="p")
store.append(name, position=0, messages=[StoredMessage(role="user", content="kept")])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # Linux answers as a full disk does
try:
    store.append(name, position=1, messages=[StoredMessage(role="user", content="x" * 1_000_000)])
except StoreError as error:
    print(error.message)
store.append(name, position=1, messages=[StoredMessage(role="user", content="short")])
print([message.content for message in store.messages(name)])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a limit on file sizes")
def test_a_disk_without_room_loses_nothing_and_goes_on_when_there_is_room(home: Home) -> None:
    run = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(home.store)],
        env=home.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    message, messages = run.stdout.splitlines()
    assert "disk is full" in message
    assert messages == "['kept', 'short']"
