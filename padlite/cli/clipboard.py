"""Putting text on the clipboard: with the desktop's own tool where one works, else by asking the terminal (OSC 52).

Knows nothing of what is copied.
"""

import base64
import shutil
import subprocess
from typing import IO

_TOOLS = (
    ("pbcopy",),
    ("wl-copy",),
    ("xclip", "-selection", "clipboard"),
    ("xsel", "--clipboard", "--input"),
    ("clip.exe",),
)
_PATIENCE_S = 2.0
_OSC52_LIMIT = 74_994  # bytes of base64 that common terminals accept


def copy(text: str, terminal: IO[str]) -> str:
    """Put *text* on the clipboard and return one sentence on what happened."""
    size = f"{len(text):,} characters"
    for command in _TOOLS:
        if shutil.which(command[0]) and _run(command, text):
            return f"Copied {size} with {command[0]}."
    if not terminal.isatty():
        return "Nothing was copied: there is neither a clipboard tool nor a terminal."
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    if len(encoded) > _OSC52_LIMIT:
        return f"Nothing was copied: {size} are too many for the terminal (install wl-copy, xclip or xsel)."
    terminal.write(f"\x1b]52;c;{encoded}\x07")
    terminal.flush()
    return f"Sent {size} to the terminal's clipboard (OSC 52; not every terminal takes it)."


def _run(command: tuple[str, ...], text: str) -> bool:
    """Tell whether the tool took *text*; it may go on in the background to serve it, so its output isn't waited for."""
    try:
        done = subprocess.run(
            command,
            input=text.encode("utf-8", "replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
