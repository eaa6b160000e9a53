"""What the hub says about a repository and its files, once checked. Sizes in bytes. Knows no network."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

DEFAULT_REVISION = "main"
UNKNOWN_LICENSE = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a repository: its path in it, its size, and the hash under which the hub and its cache know it.

    *digest* is a sha256 (64 digits); or for a small file that is kept in git itself, git's sha1 of it (40 digits);
    or empty for a cached file whose hash nobody kept. Raises ValueError for a path that leads out of the repository.
    """

    name: str
    size: int
    digest: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.name)
        if not self.name or path.is_absolute() or ".." in path.parts or "\\" in self.name or "\0" in self.name:
            raise ValueError("a path that leads out of the repository")
        if not re.fullmatch("|[0-9a-f]{40}|[0-9a-f]{64}", self.digest):
            raise ValueError("not a hash")
        if self.size < 0:
            raise ValueError("a negative size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A model repository at one *commit*, which *revision* stood for; *license* as its card says."""

    id: str
    revision: str
    commit: str
    license: str
    files: tuple[HubFile, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{40}", self.commit):
            raise ValueError("not a commit")

    def file(self, name: str) -> HubFile | None:
        """Return the file of this name, or None."""
        return next((file for file in self.files if file.name == name), None)


def license_of(card: object) -> str:
    """Return the licence in the metadata of a repository's card, on one line."""
    named, other = (getattr(card, key, None) for key in ("license", "license_name"))
    text = other if named == "other" and other else named
    return " ".join(str(text).split())[:100] if text else UNKNOWN_LICENSE
