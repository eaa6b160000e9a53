"""Files that one holds at a time: in this process, in others, and after a kill."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from padlite.locking import held

HOLDING = """
import sys, time
from pathlib import Path
from padlite.locking import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_at_a_time_holds_a_file_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held(path), pytest.raises(BlockingIOError), held(path):
        pass
    assert not path.exists()
    with held(path):
        pass


def test_a_lock_is_given_back_when_what_it_was_for_fails(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(ValueError, match="broken"), held(path):
        raise ValueError("broken")
    with held(path):
        pass


def test_who_waits_gets_it_when_it_is_free(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", list[str]()

    def other() -> None:
        with held(path, wait_s=30):
            order.append("other")

    thread = threading.Thread(target=other)
    with held(path):
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


def test_several_that_take_it_in_turns_never_have_it_together(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "lock", list[int](), list[int]()

    def work(number: int) -> None:
        for _ in range(20):
            with held(path, wait_s=60):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.001)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80


def test_a_process_that_is_killed_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(path)], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), held(path):
            pass
        program.kill()
        program.wait()
    assert path.exists()
    with held(path):
        pass
