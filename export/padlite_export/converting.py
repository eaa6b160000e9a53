"""Has llama.cpp's converter work in a process of its own, watches its file grow, and says why it stopped.

The process is `padlite_export.converter_process`. Sizes in bytes. Knows nothing of what is in the files.
"""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from padlite import errors
from padlite.errors import BackendError, PadliteError

Dtype: TypeAlias = Literal["f32", "f16", "bf16"]
_LOOK_EVERY_S = 0.2
_SHOWN_LINES = 3
_NO_ROOM = re.compile(
    r"No space left|File too large|Disk quota|requested and \d+ written|\bwrite failed", re.IGNORECASE
)
_NOISE = re.compile(r"\s|INFO:|WARNING:|Traceback |Writing: |During handling|The above exception|$")
_LOG_PREFIX = re.compile(r"^(?:ERROR|CRITICAL):[\w.\-]+:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to do: *source* becomes the GGUF *out*, and that *quantized* as *quantize* if there is such a path.

    *converter* is the converter's folder, *work* a folder for other files, *pre* a pre-tokenizer to name.
    """

    converter: Path
    source: Path
    out: Path
    work: Path
    dtype: Dtype
    pre: str | None
    quantize: str | None
    quantized: Path | None
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTokenizer:
    """How the pre-tokenizer was found, and which would do.

    *how*: ``known`` to the converter, ``compared`` on *texts* (how many), ``named`` by the person, or ``not asked``
    because the tokenizer has none.
    """

    how: str
    names: tuple[str, ...]
    texts: int

    @property
    def described(self) -> str:
        """It in words."""
        if self.how == "compared":
            others = len(self.names) - 1
            alike = f"; {others} others cut them alike" if others else ""
            return f"{self.names[0]}: cuts {self.texts} texts as the source does{alike}"
        return f"{self.names[0]} ({self.how})" if self.names else "none: the tokenizer needs none"


class Progress(Protocol):
    """Shows how far a file has come."""

    def __call__(self, label: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """Return a context that yields what is to be told the bytes that are there, of *total*."""
        ...


@contextlib.contextmanager
def no_progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    yield lambda there: None


def convert(job: Job, *, out_bytes: int, progress: Progress = no_progress) -> PreTokenizer:
    """Do *job*, whose *out* will have about *out_bytes*, and return how the pre-tokenizer was found.

    Raises PadliteError with the converter's last lines if it stops. The process never outlives the call, nor this
    process if that is killed: its standard input ends then.
    """
    told = {name: str(value) if isinstance(value, Path) else value for name, value in dataclasses.asdict(job).items()}
    order, log = job.work / "job.json", job.work / "converter.log"
    order.write_text(json.dumps(told), encoding="utf-8")
    command = [sys.executable, "-m", "padlite_export.converter_process", str(order)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("wb") as lines:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=lines, stderr=lines)
        try:
            with progress(job.out.name, out_bytes) as show:
                while not _ended(process):
                    show(min(_size(job.out), out_bytes))
        finally:
            process.kill()
            process.communicate()
    if process.returncode != 0:
        raise _failure(log.read_text(encoding="utf-8", errors="replace"), process.returncode, job)
    found = json.loads((job.work / "pre.json").read_text(encoding="utf-8"))
    return PreTokenizer(how=found["how"], names=tuple(found["names"]), texts=found["texts"])


def _ended(process: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LOOK_EVERY_S)
        return True
    return False


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _failure(log: str, code: int, job: Job) -> PadliteError:
    """Return what the process's own words in *log* mean for a person."""
    lines = [line.rstrip() for line in re.split(r"[\r\n]", log)]
    if _NO_ROOM.search(log):
        return BackendError(
            f"there isn't room for {job.out.name} in {job.work.parent}", remedy="make room, or choose another --out"
        )
    for line in reversed(lines):
        if line.startswith('{"message"'):
            told = json.loads(line)
            kind: type[PadliteError] = getattr(errors, told["kind"], BackendError)
            return kind(told["message"], remedy=told["remedy"])
    shown = [_LOG_PREFIX.sub("", line) for line in lines if not _NOISE.match(line)]
    reason = " / ".join(shown[-_SHOWN_LINES:])[-600:] or f"no reason given (code {code})"
    return BackendError(
        f"llama.cpp's converter can't convert {job.source}: {reason}",
        remedy="check that the checkpoint is complete and that llama.cpp knows its architecture",
    )
