"""A guard for programs under test: whoever opens a socket in them is caught, and the deed is written down."""

from dataclasses import dataclass
from pathlib import Path

_GUARD = """
import socket
class Refused(socket.socket):
    def __init__(self, family=-1, *rest, **keys):
        if family not in (socket.AF_UNIX,):
            open(r"{marker}", "a").write("a socket was opened\\n")
            raise RuntimeError("a socket was opened")
        super().__init__(family, *rest, **keys)
    def connect(self, *address):
        open(r"{marker}", "a").write("a connection was made\\n")
        raise RuntimeError("a connection was made")
    bind = connect_ex = sendto = connect
socket.socket = Refused
def refuse(*rest, **keys):
    open(r"{marker}", "a").write("a name was looked up\\n")
    raise RuntimeError("a name was looked up")
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse
open(r"{marker}.on", "w").close()
"""


@dataclass(frozen=True, slots=True)
class Guard:
    """Goes on the program's PYTHONPATH."""

    folder: Path

    @property
    def caught(self) -> str | None:
        """Return what was caught, empty for nothing; None if no program ran under this guard."""
        if not (self.folder / "caught.on").exists():
            return None
        caught = self.folder / "caught"
        return caught.read_text(encoding="utf-8") if caught.exists() else ""


def write_guard(folder: Path) -> Guard:
    """Write the guard into a new *folder*."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_GUARD.format(marker=folder / "caught"), encoding="utf-8")
    return Guard(folder)
