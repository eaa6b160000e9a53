"""Writing a text in the person's own editor, in a private file that is gone afterwards. Knows nothing of chats."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from padlite import settings
from padlite.errors import PadliteError

_USUAL = ("sensible-editor", "nano", "vim", "vi")


def edit_text(text: str) -> str:
    """Let the person change *text* ($VISUAL, $EDITOR or a usual one) and return it without trailing line breaks.

    Raises PadliteError if there is no editor or it fails.
    """
    command = _command()
    descriptor, name = tempfile.mkstemp(prefix="padlite-", suffix=".md")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        with _unimpressed():
            status = subprocess.run([*command, name], check=False).returncode
        if status:
            raise PadliteError(f"the editor {command[0]!r} ended with status {status}", remedy="set EDITOR to another")
        return path.read_text(encoding="utf-8", errors="replace").rstrip("\r\n")
    except OSError as error:
        raise PadliteError(
            f"the editor {command[0]!r} can't be run: {error.strerror}", remedy="set EDITOR to one that is installed"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _command() -> list[str]:
    chosen = settings.editor()
    if chosen:
        return shlex.split(chosen)
    for name in _USUAL:
        if shutil.which(name):
            return [name]
    raise PadliteError("there is no editor", remedy="set EDITOR, for example: export EDITOR=nano")


@contextlib.contextmanager
def _unimpressed() -> Iterator[None]:
    """Leave Ctrl-C to the editor."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
