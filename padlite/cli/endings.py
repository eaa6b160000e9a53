"""How a run ends when somebody else ends it: a signal, or a reader that went away.

Exit codes are the shell's: 128 + the signal's number (130 Ctrl-C, 141 closed pipe, 143 SIGTERM, 129 SIGHUP).
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TextIO

CLOSED_PIPE = 128 + 13
ENDING_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextlib.contextmanager
def end_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that everything is closed in order; a second one kills.

    A signal that was ignored when padlite started (`nohup`) stays ignored.
    """
    ours: list[signal.Signals] = []
    with contextlib.suppress(ValueError):  # not the main thread: signals belong to somebody else
        for number in ENDING_SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _leave)
                ours.append(number)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


def finish_output(code: int) -> int:
    """Deliver what is still buffered and return the exit code: *code*, or that of the closed pipe."""
    for stream in (sys.stdout, sys.stderr):
        code = _flush(stream, code)
    return code


def _flush(stream: TextIO | None, code: int) -> int:
    if stream is None or stream.closed:
        return code
    try:
        stream.flush()
    except BrokenPipeError:
        _discard(stream)
        return CLOSED_PIPE if code == 0 else code
    except OSError as error:
        _discard(stream)
        with contextlib.suppress(OSError):
            print(f"padlite: can't write the output: {error.strerror}", file=sys.stderr)  # noqa: T201
        return code or 1
    return code


def _discard(stream: TextIO) -> None:
    """Let the interpreter's last flush of *stream* go nowhere instead of ending in a traceback."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
