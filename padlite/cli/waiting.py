"""A sign of life on the terminal while something takes longer than a moment; gone without a trace when it is done.

Nothing is written if the wait is short or the stream is no terminal.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import IO

from padlite import settings

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PATIENCE_S = 0.4
_FRAME_S = 0.1


class Waiting:
    """The sign, to be taken down once; *text* stands beside it."""

    def __init__(self, stream: IO[str], text: str, *, patience_s: float = _PATIENCE_S) -> None:
        self._stream, self._text, self._patience_s = stream, text, patience_s
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        if stream.isatty():
            self._thread = threading.Thread(target=self._show, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Take the sign down; more than once does no harm."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _show(self) -> None:
        if self._done.wait(self._patience_s):
            return
        frame = 0
        with contextlib.suppress(OSError, ValueError):
            while True:
                self._write(f"\r{_FRAMES[frame % len(_FRAMES)]} {self._text}")
                frame += 1
                if self._done.wait(_FRAME_S):
                    break
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


@contextlib.contextmanager
def waiting(stream: IO[str], text: str) -> Iterator[Callable[[], None]]:
    """Show the sign until the block ends or the yielded function is called."""
    sign = Waiting(stream, text)
    try:
        yield sign.stop
    finally:
        sign.stop()


@contextlib.contextmanager
def byte_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show on stderr how much of *total* bytes is there, with speed and time left; yields what is told the bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as SpeedColumn

    console = Console(stderr=True, no_color=not settings.color_wanted(), highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), SpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task(label, total=total)
        yield lambda there: bars.update(task, completed=there)
