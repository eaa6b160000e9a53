"""`padlite chat` in pipes and scripts: what goes where, exit codes, and who may end it."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.terminal import SIGINT, SIGTERM, Home
from tests.no_sockets import write_guard

SHORT = ("-n", "8")


@pytest.fixture
def home(chatting_home: Home) -> Home:
    """The home of these tests is one that chats."""
    return chatting_home


def test_the_answer_alone_goes_to_stdout_without_escapes(home: Home) -> None:
    done = home.run("-p", "hello", *SHORT)
    assert done.returncode == 0
    assert done.stderr == b""
    assert done.stdout.endswith(b"\n")
    assert b"\x1b[" not in done.stdout.replace(b"\x1b[14", b"")  # a random model may say anything, but not this much


def test_stdin_is_attached_to_the_prompt_or_is_it(home: Home) -> None:
    for words, stdin in [(("-p", "sum up"), b"notes"), (("-p", "-"), b"sum up\n\nnotes\n"), ((), b"sum up\n\nnotes")]:
        done = home.run(*words, *SHORT, stdin=stdin)
        assert done.returncode == 0
        export = subprocess.run(
            [sys.executable, "-m", "padlite", "sessions", "list"],
            env=home.environment(),
            capture_output=True,
            check=True,
        )
        assert b"sum up" in export.stdout


def test_json_has_what_was_promised_and_the_same_seed_says_the_same(home: Home) -> None:
    options = ("-p", "hello", "--json", "--trace", "--seed", "5", "-t", "1.0", *SHORT)
    first, second = (json.loads(home.run(*options).stdout) for _ in range(2))
    assert first["text"] == second["text"]
    assert first["seed"] == 5
    assert first["finish_reason"] == "length"
    assert first["usage"]["completion_tokens"] == len(first["trace"]) == 8
    assert set(first["trace"][0]["candidates"][0]) == {"id", "text", "base_logprob", "contributions"}
    assert set(first["weights"]) == {"alpha", "beta", "gamma"}


def test_plain_and_strength_0_are_the_base_model(home: Home) -> None:
    said = [
        json.loads(home.run("-p", "hello", "--json", "-n", "30", *options).stdout)
        for options in (("--plain",), ("--strength", "0"), ("-w", "alpha=0"), ("-w", "alpha=5"))
    ]
    assert said[0]["text"] == said[1]["text"] == said[2]["text"] != said[3]["text"]
    assert [record["changed_tokens"] > 0 for record in said] == [False, False, False, True]


@pytest.mark.parametrize(
    ("words", "stdin", "code", "says"),
    [
        (("-p", ""), b"", 2, "the prompt is empty"),
        ((), b"", 2, "the prompt is empty"),
        (("-p", "-"), b"abc\xff", 2, "not valid UTF-8"),
        (("-p", "-"), b"a" * 100_000, 4, "512"),
        (("-p", "x", "--json", "-w", "alpah=1"), b"", 2, "did you mean 'alpha'"),
        (("-p", "x", "-w", "alpha"), b"", 2, "NAME=NUMBER"),
        (("-p", "x", "--temperature", "-1"), b"", 2, "temperature"),
        (("-p", "x", "--trace"), b"", 2, "--json"),
        (("-p", "x", "--continue", "--session", "a"), b"", 2, "two conversations"),
        (("-p", "x", "--session", "a/b"), b"", 2, "session"),
        (("-p", "x", "--continue"), b"", 3, "no conversation"),
        (("-p", "x", "--profile", "nobody"), b"", 3, "nobody"),
        (("-p", "x", "--model", "no-such-bundle"), b"", 3, "no-such-bundle"),
        (("-p", "x", "--model", "/no/such.gguf"), b"", 3, "such.gguf"),
    ],
)
def test_bad_input_ends_with_one_clear_line_and_its_code(
    home: Home, words: tuple[str, ...], stdin: bytes, code: int, says: str
) -> None:
    done = home.run(*words, stdin=stdin)
    message = done.stderr.decode()
    assert done.returncode == code
    assert says in message
    assert "Traceback" not in message
    assert len(message.splitlines()) <= 2
    assert done.stdout == b""


def test_a_prompt_that_is_too_long_says_both_numbers(home: Home) -> None:
    message = home.run("-p", "-", stdin=b"a" * 100_000).stderr.decode()
    assert "50,015 tokens" in message
    assert "of 512 are free" in message


def test_a_broken_model_file_is_a_backend_error(home: Home, tmp_path: Path) -> None:
    for name, content in {
        "empty": b"",
        "random": os.urandom(4096),
        "cut": Path(home.options[1]).read_bytes()[:5000],
    }.items():
        file = tmp_path / f"{name}.gguf"
        file.write_bytes(content)
        done = home.run("-p", "x", "--model", str(file))
        assert done.returncode == 5
        assert b"Traceback" not in done.stderr


def test_a_reader_that_goes_away_ends_the_chat_quietly_and_what_was_said_is_kept(home: Home) -> None:
    process = home.start("-p", "talk for ever", "--context-length", "8192")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.close()
    process.stdout.read(20)
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()
    again = home.run("--continue", "-p", "more", "--json", *SHORT)
    assert json.loads(again.stdout)["usage"]["prompt_tokens"] > 40


def test_a_closed_stdout_from_the_start_is_no_traceback(home: Home) -> None:
    command = " ".join(f"'{word}'" for word in home.command("-p", "hello", *SHORT))
    done = subprocess.run(["/bin/sh", "-c", f"{command} >&-"], env=home.environment(), capture_output=True, check=False)
    assert b"Traceback" not in done.stderr


def test_words_are_printed_before_the_answer_is_complete(home: Home) -> None:
    process = home.start("-p", "talk for ever", "--context-length", "65536")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    assert process.stdout.read(10)
    assert process.poll() is None
    process.kill()
    process.wait()
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.parametrize(("number", "code"), [(SIGINT, 130), (SIGTERM, 143)])
def test_a_signal_in_a_long_prefill_stops_it_soon(home: Home, number: int, code: int) -> None:
    process = home.start("-p", "-", "--context-length", "131072")
    assert process.stdin is not None
    process.stdin.write(b"a b c d " * 12_000)
    process.stdin.close()
    process.stdin = None
    time.sleep(6)
    assert process.poll() is None
    process.send_signal(number)
    begun = time.monotonic()
    output, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert time.monotonic() - begun < 10
    assert b"Traceback" not in error
    assert output == b""


@pytest.mark.parametrize(("number", "code"), [(SIGINT, 130), (SIGTERM, 143)])
def test_a_signal_in_an_answer_keeps_what_was_said(home: Home, number: int, code: int) -> None:
    process = home.start("-p", "talk for ever", "--context-length", "8192")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdin = None
    process.stdout.read(20)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"Traceback" not in error
    again = home.run("--continue", "-p", "more", "--json", *SHORT)
    assert json.loads(again.stdout)["usage"]["prompt_tokens"] > 40


@pytest.mark.parametrize("delay_s", [0.3, 0.6, 1.0, 1.5])
def test_ctrl_c_while_starting_and_loading_leaves_with_130(home: Home, delay_s: float) -> None:
    process = home.start("-p", "talk for ever", "--context-length", "65536")
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    time.sleep(delay_s)
    process.send_signal(SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode in {130, -SIGINT}  # the latter before Python itself is up
    assert b"Traceback" not in error or process.returncode == -SIGINT


def test_ctrl_c_does_not_wait_for_a_library_that_is_loading_for_long() -> None:
    program = (
        "import hashlib, os, threading, time\n"
        "from padlite.cli.interrupts import Interrupts\n"
        "def press():\n"
        "    time.sleep(0.5)\n"
        "    os.kill(os.getpid(), 2)\n"
        "threading.Thread(target=press, daemon=True).start()\n"
        "interrupts = Interrupts()\n"
        "with interrupts.listening(), interrupts.loading():\n"
        "    hashlib.pbkdf2_hmac('sha256', b'x', b'y', 2_000_000_000)\n"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 130
    assert time.monotonic() - begun < 30


def test_a_full_disk_is_said_and_the_answer_comes_all_the_same(home: Home) -> None:
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = home.run("-p", "hello", *SHORT, preexec_fn=no_room)
    assert done.returncode == 0
    assert done.stdout.strip()
    assert done.stderr.count(b"can't be saved") == 1
    assert done.stderr.count(b"\n") == 1


def test_no_socket_is_opened_by_either_kind_of_chat(home: Home, tmp_path: Path) -> None:
    guard = write_guard(tmp_path / "guard")
    home.extra["PYTHONPATH"] = str(guard.folder)
    assert home.run("-p", "hello", *SHORT).returncode == 0
    with home.talk(*SHORT) as chat:
        chat.say("hello", "(stopped after 8")
        chat.say("/why", "token")
        assert chat.leave() == 0
    assert guard.caught == ""


def test_chat_works_where_there_is_no_network_at_all(home: Home) -> None:
    unshare = shutil.which("unshare")
    wrapper = [str(unshare), "-r", "-n"]
    if unshare is None or subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system doesn't let us make a network namespace (unshare -r -n)")
    seen = subprocess.run([*wrapper, "cat", "/proc/net/dev"], capture_output=True, check=True).stdout
    assert [line.split(b":")[0].strip() for line in seen.splitlines()[2:]] == [b"lo"]
    done = subprocess.run(
        [*wrapper, *home.command("-p", "hello", *SHORT)], env=home.environment(), capture_output=True, check=False
    )
    assert done.returncode == 0
    with home.talk(*SHORT, wrapper=wrapper) as chat:
        chat.say("hello", "(stopped after 8")
        assert chat.leave() == 0


def test_help_is_quick_and_loads_no_engine(home: Home) -> None:
    program = (
        "import sys\nfrom padlite.cli import main\ncode = main(['chat', '--help'])\n"
        "heavy = {'numpy', 'llama_cpp', 'onnxruntime', 'rich', 'prompt_toolkit'}\n"
        "assert not heavy & set(sys.modules), 'loaded for help'\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=home.environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    options = """
        profile model reward weight strength candidates temperature top-p min-p repetition-penalty seed max-tokens stop
        system overflow continue session no-save device threads context-length gpu-layers plain prompt json trace
        no-stream
    """
    for option in options.split():
        assert f"--{option}" in done.stdout.decode()
