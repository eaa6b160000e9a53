"""What every command shares: help, errors, exit codes, signals, pipes, completion."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from padlite import __version__
from padlite.cli import COMMANDS
from tests.command_line import REPOSITORY, Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(folder=tmp_path)


def test_help_imports_nothing_heavy(home: Home) -> None:
    program = "import sys; from padlite.cli import main; main(['--help']); print(*sorted(sys.modules), file=sys.stderr)"
    run = subprocess.run(
        [sys.executable, "-c", program], env=home.environment, capture_output=True, text=True, check=True, timeout=60
    )
    modules = set(run.stderr.split())
    assert "padlite.cli" in modules
    assert not modules & {
        "numpy", "llama_cpp", "onnxruntime", "rich", "prompt_toolkit", "tomlkit", "sqlite3", "jinja2", "padlite.seams"
    }  # fmt: skip


def test_help_names_every_command(home: Home) -> None:
    run = home.run("--help")
    assert (run.returncode, run.stderr) == (0, "")
    for command in COMMANDS:
        assert f"  {command.name} " in run.stdout
    assert home.run().stdout == run.stdout
    assert home.run("-h").stdout == run.stdout


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_every_command_can_be_loaded_and_has_help(name: str, home: Home) -> None:
    run = home.run(name, "--help")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(f"Usage: padlite {name} ")


def test_the_version_is_the_packages(home: Home) -> None:
    assert home.run("--version").stdout == f"padlite {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message", "remedy"),
    [
        (("caht",), "no such command: padlite caht — did you mean 'chat'?", "padlite --help"),
        (("profile", "shwo"), "no such command: padlite profile shwo — did you mean 'show'?", "padlite profile --help"),
        (
            ("sessions", "lst"),
            "no such command: padlite sessions lst — did you mean 'list'?",
            "padlite sessions --help",
        ),
    ],
)
def test_an_unknown_command_is_answered_with_the_closest(
    words: tuple[str, ...], message: str, remedy: str, home: Home
) -> None:
    run = home.run(*words)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"padlite: {message}\ntry: {remedy}\n"


def test_an_unknown_option_is_a_usage_error(home: Home) -> None:
    run = home.run("paths", "--jsno")
    assert run.returncode == 2
    message, remedy = run.stderr.splitlines()
    assert "--jsno" in message
    assert remedy == "try: padlite paths --help"


def test_a_hostile_argument_cannot_drive_the_terminal(home: Home) -> None:
    run = home.run("\x1b]0;owned\x07\n")
    assert run.returncode == 2
    assert "\x1b" not in run.stderr
    assert len(run.stderr.splitlines()) == 2


def test_an_argument_that_is_no_unicode_is_answered_in_one_line(home: Home) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "padlite", "profile", "show", b"\xff\xfe"],
        env=home.environment, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert run.returncode in {2, 3}
    assert b"Traceback" not in run.stderr
    assert b"bug" not in run.stderr


def test_debug_logs_to_stderr_and_leaves_stdout_alone(home: Home) -> None:
    run = home.run("--debug", "profile", "show")
    assert run.returncode == 3
    assert run.stdout == ""
    assert "Traceback" in run.stderr


def shell(home: Home, script: str) -> subprocess.CompletedProcess[bytes]:
    padlite = f"'{sys.executable}' -m padlite"
    return subprocess.run(
        ["bash", "-c", script.replace("PADLITE", padlite)],
        env=home.environment, capture_output=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_reader_that_goes_away_is_no_error(home: Home) -> None:
    run = shell(home, "PADLITE --help | true; exit ${PIPESTATUS[0]}")
    assert (run.returncode, run.stderr) == (141, b"")


def test_a_reader_that_takes_one_line_gets_it(home: Home) -> None:
    run = shell(home, "PADLITE completion bash | head -1; exit ${PIPESTATUS[1]}")
    assert run.returncode == 0
    assert run.stdout == b"_padlite_completion() {\n"
    assert run.stderr == b""


def test_a_closed_stdout_is_no_crash(home: Home) -> None:
    run = shell(home, "PADLITE paths >&-")
    assert b"Traceback" not in run.stderr
    assert b"bug" not in run.stderr


def test_a_closed_stderr_keeps_the_exit_code(home: Home) -> None:
    assert shell(home, "PADLITE caht 2>&-").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_stdout_is_said(home: Home) -> None:
    run = shell(home, "PADLITE paths >/dev/full")
    assert run.returncode == 1
    assert run.stderr.splitlines()[0] == b"padlite: No space left on device"


def test_characters_that_the_output_lacks_are_replaced(home: Home) -> None:
    profile = home.profile("zoe")
    profile.parent.mkdir(parents=True)
    profile.write_text('name = "Zoë 🙂"\n[preferences]\nwitty = 1\n', encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "padlite", "profile", "show", "zoe"],
        env={**home.environment, "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"},
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0
    assert b"Zo\xeb ?\n" in run.stdout
    assert b"##########" in run.stdout


WAITS = """
import sys, time
import click
from padlite.cli import cli, main
@cli.command("wait")
def wait():
    try:
        print("waiting", flush=True)
        time.sleep(60)
    finally:
        print("closed in order", flush=True)
sys.exit(main(["wait"]))
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)],
    ids=str,
)
def test_a_signal_ends_the_run_in_order(number: signal.Signals, code: int, home: Home) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS], env=home.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == "closed in order\n"
    assert "Traceback" not in err


INTERRUPTED_IMPORT = """
import sys
from padlite.__main__ import main
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == interrupted:
            raise KeyboardInterrupt
interrupted = sys.argv[1]
sys.meta_path.insert(0, Interrupt())
sys.argv = ["padlite", "profile", "list"]
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["padlite.cli", "click.core", "platformdirs", "padlite.cli.profile", "tomlkit"])
def test_an_interrupt_while_padlite_starts_leaves_no_traceback(module: str, home: Home) -> None:
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, module],
        env=home.environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert run.returncode == 130
    assert "Traceback" not in run.stderr


def completions(home: Home, line: str) -> list[str]:
    words = line.split(" ")
    run = home.run(
        environment={"_PADLITE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    )
    assert (run.returncode, run.stderr) == (0, "")
    return [entry.split(",", 1)[1] for entry in run.stdout.splitlines() if entry]


def test_tab_completes_commands_profiles_sessions_models_and_dimensions(home: Home) -> None:
    from padlite.store import SessionStore

    home.install_model()
    for name in ("me", "ada"):
        assert home.run("profile", "new", name, "--model", "tiny").returncode == 0
    with SessionStore.open(home.store) as store:
        store.create("bees", model="tiny", profile="me")
    assert completions(home, "padlite pro") == ["profile"]
    assert completions(home, "padlite profile show ")[:2] == ["ada", "me"]
    assert completions(home, "padlite profile show a") == ["ada"]
    assert completions(home, "padlite sessions rm b") == ["bees"]
    assert "tiny" in completions(home, "padlite profile new --model ")
    assert completions(home, "padlite profile set f") == ["friendly="]
    assert completions(home, "padlite profile set --profile ada w") == ["witty="]


def test_a_broken_file_does_not_spoil_completion(home: Home) -> None:
    home.data.mkdir()
    home.store.write_bytes(b"no database" * 100)
    home.profile().parent.mkdir(parents=True)
    home.profile().write_text("x = = 1", encoding="utf-8")
    assert completions(home, "padlite sessions show ") == []
    assert completions(home, "padlite profile set ") == []


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(name: str, home: Home) -> None:
    run = home.run("completion", name)
    assert run.returncode == 0
    assert "_PADLITE_COMPLETE" in run.stdout


def test_bash_takes_the_script_and_completes_with_it(home: Home) -> None:
    (home.folder / "padlite").write_text(f"#!/bin/sh\nexec '{sys.executable}' -m padlite \"$@\"\n", encoding="utf-8")
    (home.folder / "padlite").chmod(0o755)
    script = """
        eval "$(padlite completion bash)" || exit 9
        COMP_WORDS=(padlite doc); COMP_CWORD=1; _padlite_completion padlite; echo "${COMPREPLY[@]}"
    """
    run = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60, cwd=REPOSITORY,
        env={**home.environment, "PATH": f"{home.folder}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert run.stdout.strip() == "doctor", run.stderr
