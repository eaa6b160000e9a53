"""Ctrl-C, SIGTERM and SIGHUP while a model works: the handlers only take note and ask the work to stop.

An exception must not fly out of a handler while llama.cpp runs, because it may be inside one of its callbacks. Knows
nothing of sessions: who works says how to be stopped.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

PATIENCE_S = 0.3
_WATCHED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupts:
    """What arrived since it was last asked: *interrupted* by Ctrl-C, or *ending* because the process shall end."""

    def __init__(self) -> None:
        self.interrupted: bool = False
        self.ending: int | None = None  # the signal's number
        self._stop: Callable[[], None] | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals here; a signal that was ignored (`nohup`) stays ignored."""
        before: dict[int, object] = {}
        with contextlib.suppress(ValueError):  # not the main thread
            for number in _WATCHED:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if callable(handler) or isinstance(handler, int) else signal.SIG_DFL)

    @contextlib.contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call *stop* (from a signal handler) when the work inside shall end."""
        outer, self._stop, self.interrupted = self._stop, stop, False
        try:
            yield
        finally:
            self._stop = outer

    def raise_pending(self) -> None:
        """Raise KeyboardInterrupt or SystemExit (128 + signal) for what arrived."""
        if self.ending is not None:
            raise SystemExit(128 + self.ending)
        if self.interrupted:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self.interrupted = True
        else:
            self.ending = number
        if self._stop is not None:
            self._stop()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(128 + number)

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Let Ctrl-C end the process even while one long call into a library loads a model.

        Python's handlers wait for that call to return; a thread that is woken by the signal itself doesn't. Nothing is
        open yet that would have to be saved.
        """
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        done = threading.Event()
        watcher = threading.Thread(target=_leave_when_woken, args=(reader, done), daemon=True)
        watcher.start()
        try:
            previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        except ValueError:  # not the main thread
            previous = None
        try:
            with self.stopping(_wait):
                yield
        finally:
            done.set()
            if previous is not None:
                signal.set_wakeup_fd(previous)
            os.close(writer)
            watcher.join()
            os.close(reader)
        self.raise_pending()


def _wait() -> None:
    """Leave it to the end of the call that loads."""


def _leave_when_woken(reader: int, done: threading.Event) -> None:
    woken = os.read(reader, 1)
    if not woken or woken[0] not in _WATCHED or done.wait(PATIENCE_S):
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write("\n" if sys.stderr.isatty() else "")
        sys.stderr.flush()
    os._exit(128 + woken[0])


@contextlib.contextmanager
def silent_typing() -> Iterator[None]:
    """Don't let the terminal echo what is typed while an answer is printed; it is there when the prompt returns."""
    try:
        import termios
    except ImportError:
        yield
        return
    try:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (termios.error, ValueError, OSError, AttributeError):
        yield
        return
    quiet = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
