"""`padlite chat` as a person starts it: in a pseudo-terminal or with pipes, in a home folder of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pexpect

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


@dataclass
class Home:
    """A fresh home folder, and the chat run in it with *options* (which model, mostly)."""

    folder: Path
    options: Sequence[str]
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key in {"PATH", "LD_LIBRARY_PATH"}}
        ours = {
            "HOME": str(self.folder),
            "PADLITE_DATA_DIR": str(self.data),
            "PADLITE_CONFIG_DIR": str(self.folder / "config"),
            "PYTHONPATH": os.pathsep.join(
                [*filter(None, [self.extra.get("PYTHONPATH")]), str(REPOSITORY), str(REPOSITORY / "training")]
            ),
            "TERM": "xterm-256color",
            "LC_ALL": "C.UTF-8",
        }
        return kept | ours | {key: value for key, value in self.extra.items() if key != "PYTHONPATH"}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "padlite", "chat", *self.options, *words]

    def run(
        self, *words: str, stdin: bytes = b"", preexec_fn: Callable[[], None] | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run to the end with pipes."""
        return subprocess.run(
            self.command(*words), input=stdin, capture_output=True, env=self.environment(), timeout=PATIENCE_S,
            check=False, preexec_fn=preexec_fn,
        )  # fmt: skip

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start with pipes and leave it running."""
        return subprocess.Popen(
            self.command(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self.environment(),
        )  # fmt: skip

    def talk(self, *words: str, columns: int = 80, rows: int = 24, wrapper: Sequence[str] = ()) -> "Terminal":
        """Start in a pseudo-terminal and wait for the prompt."""
        command = [*wrapper, *self.command(*words)]
        terminal = Terminal(command, self.environment(), columns, rows)
        terminal.welcome = terminal.expect("›")
        return terminal


class Terminal:
    """A running chat in a pseudo-terminal."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], columns: int, rows: int) -> None:
        self.child = pexpect.spawn(
            command[0], list(command[1:]), env=environment, dimensions=(rows, columns), encoding="utf-8",
            codec_errors="replace", timeout=PATIENCE_S, echo=False,
        )  # fmt: skip
        self.child.delaybeforesend = 0.1
        self.welcome = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *error: object) -> None:
        if not self.child.closed:
            if self.child.isalive():
                self.child.kill(signal.SIGKILL)
                self.child.wait()
            self.child.close()

    def expect(self, text: str) -> str:
        """Wait for *text* and return what came before it."""
        self.child.expect_exact(text)
        return str(self.child.before)

    def type(self, text: str) -> None:
        """Type *text* and Enter."""
        self.child.send(text + "\r")

    def answering(self, pieces: int = 20) -> None:
        """Wait until the answer has grown *pieces* times."""
        for _ in range(pieces):
            self.expect("\x1b[?2026h")

    def say(self, text: str, until: str) -> None:
        """Type *text*, wait for *until* and for the next prompt."""
        self.type(text)
        self.expect(until)
        self.expect("›")

    def press(self, key: str) -> None:
        self.child.sendcontrol(key)

    def kill(self, number: int) -> None:
        self.child.kill(number)

    def leave(self) -> int:
        """Press Ctrl-D and return the exit code."""
        self.press("d")
        return self.ended()

    def ended(self) -> int:
        """Wait for the end and return the exit code, that of the shell for signals."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        status, killed = self.child.exitstatus, self.child.signalstatus
        return int(status) if status is not None else 128 + int(killed or 0)


SIGKILL, SIGTERM, SIGINT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
