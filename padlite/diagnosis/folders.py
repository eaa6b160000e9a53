"""A person's folders: are they there or can they be made, can they be written to, can others look in?

Nothing is created; whether a folder can be written to is tried with a temporary file where it exists.
"""

import os
import stat
import tempfile
from pathlib import Path

from padlite.diagnosis.finding import Fact, Finding, Status

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def examine_folder(subject: str, folder: Path, *, keeps: str) -> Finding:
    """Say whether *folder*, which *keeps* something, serves; without it a chat works, but that is not kept."""
    facts: dict[str, Fact] = {"path": str(folder), "exists": folder.is_dir()}
    status, problem, remedy = Status.OK, "", ""
    reason = _why_not_writable(folder)
    if reason:
        status, problem = Status.WARN, f": {reason}, so {keeps} can't be kept"
        remedy = f"make it writable for you, or choose another place with PADLITE_{subject.upper()}_DIR"
    elif open_to := _open_to_others(folder):
        status, problem = Status.WARN, f": other people on this computer can look into it ({open_to})"
        remedy = f"chmod -R go= {folder}"
    elif not folder.exists():
        problem = " (will be made when it is needed)"
    return Finding(
        subject=subject,
        text=f"{folder}{problem}",
        status=status,
        remedy=remedy,
        facts={**facts, "writable": not reason},
    )


def _why_not_writable(folder: Path) -> str:
    """Return why nothing can be written into *folder*, or an empty string; a missing one is judged by its parent."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return f"{place} is a file"
    if place == folder:
        try:
            with tempfile.TemporaryFile(dir=folder):
                return ""
        except OSError as error:
            return (error.strerror or "it can't be written to").lower()
    return "" if os.access(place, os.W_OK | os.X_OK) else f"it isn't there, and {place} can't be written to"


def _open_to_others(folder: Path) -> str:
    """Return the mode of *folder* or of a file in it that others may read, on systems that have such modes."""
    if os.name != "posix" or not folder.is_dir():
        return ""
    for path in (folder, *sorted(folder.glob("*.sqlite3"))):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS and not _shielded(path, folder):
            return f"{path.name} has mode {mode:o}"
    return ""


def _shielded(path: Path, folder: Path) -> bool:
    """Tell whether others can't reach *path* because its folder is closed to them."""
    return path != folder and not folder.stat().st_mode & _OTHERS
