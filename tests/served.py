"""A real `padlite serve` in a process of its own, with folders of its own, for tests and scripts."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROFILES = {
    "ada": 'name = "Ada"\n[preferences]\ncaring = 1.0\n',
    "joker": '[preferences.text]\nabout = "I love jokes."\n',
    "max": "[preferences]\nwitty = 1.0\n",
    "odd": "[preferences]\nunheard_of = 1.0\n",
    "pirate": '[preferences.sentences]\npirate = { text = "Answer like a pirate." }\n',
}


@dataclass(slots=True)
class Served:
    """A running server; *lines* is what it says on stderr."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self, number: int = signal.SIGTERM, *, within_s: float = 30) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def ask(self, record: object, *, timeout_s: float = 30) -> socket.socket:
        """Do what `ask` does, with this server."""
        return ask(self.port, record, timeout_s=timeout_s)

    def load(self) -> tuple[int, int]:
        """Return how many answers are being decoded, and how many wait."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", "/health")
        record = json.loads(connection.getresponse().read())
        connection.close()
        return record["running"], record["waiting"]

    def raw(self, data: bytes, *, within_s: float = 20, half_close: bool = False) -> bytes:
        """Send *data* as it is and return everything that comes until the server closes, or *within_s*."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=within_s) as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while chunk := connection.recv(65536):
                    received += chunk
            return received


def ask(port: int, record: object, *, timeout_s: float = 30) -> socket.socket:
    """Send *record* as a chat completion and return the connection, which is the caller's to read and to close."""
    body = json.dumps(record).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
    connection.sendall(head.encode() + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return connection


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a padlite that lives in *folder* and has `PROFILES`."""
    profiles = folder / "config" / "profiles"
    profiles.mkdir(parents=True, exist_ok=True)
    for name, text in PROFILES.items():
        (profiles / f"{name}.toml").write_text(text, encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PADLITE")}
    return {
        **inherited,
        "HOME": str(folder),
        "PADLITE_CONFIG_DIR": str(folder / "config"),
        "PADLITE_DATA_DIR": str(folder / "data"),
        "ORT_DISABLE_TELEMETRY": "1",
    }


@contextlib.contextmanager
def serving(folder: Path, *words: str, extra: Mapping[str, str] | None = None, before: str = "") -> Iterator[Served]:
    """Start `padlite serve`, wait until it answers, and end it afterwards; *before* is run in its process first."""
    program = f"{before}\nimport sys\nfrom padlite.__main__ import main\nsys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--port", "0", "--threads", "1", *words],
        env={**environment(folder), **(extra or {})},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    served: Served | None = None
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"at http://[^ ]*:(\d+)/v1", line):
            served = Served(process, int(found[1]), lines)
            break
    if served is None:
        raise RuntimeError(f"the server didn't start: {''.join(lines)}")
    reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        yield served
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(5)
        process.stderr.close()
