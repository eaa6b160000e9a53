"""One repository's folder in the hub's cache on this machine, laid out as the hub's own tools do.

`blobs/` has the files under their hashes, `snapshots/COMMIT/` links to them under their names, `refs/REVISION` the
commit that a branch or tag stood for. What has come of a file before an interruption lies beside the blobs under a name
of padlite's own. Raises plain OSError; knows no network.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from padlite.hub.record import HubFile


class CachedRepository:
    """What the cache in the folder *root* has of the repository *name* (ORG/NAME)."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder: Path = root / "--".join(["models", *name.split("/")])

    def commit(self, revision: str) -> str | None:
        """Return the commit that *revision* stood for when the hub was last asked, or None."""
        reference = self.folder / "refs" / revision
        commit = reference.read_text(encoding="ascii", errors="replace").strip() if reference.is_file() else revision
        return commit if (self.folder / "snapshots" / commit).is_dir() else None

    def files(self, commit: str) -> Iterator[HubFile]:
        """Yield the files of *commit* that are here, by name."""
        snapshot = self.folder / "snapshots" / commit
        for path in sorted(snapshot.rglob("*")):
            if path.is_file():
                digest = path.resolve().name if path.is_symlink() else ""
                yield HubFile(name=path.relative_to(snapshot).as_posix(), size=path.stat().st_size, digest=digest)

    def find(self, commit: str, file: HubFile) -> Path | None:
        """Return where *file* lies, or None."""
        path = self.folder / "snapshots" / commit / file.name
        return path if path.is_file() else None

    def part(self, file: HubFile) -> Path:
        """Return where lies, or would lie, what has come of *file*."""
        return self.folder / "blobs" / f"{file.digest}.padlite.incomplete"

    def lock(self, file: HubFile) -> Path:
        """Return the lock that the hub's tools take before they write *file*."""
        return self.folder.parent / ".locks" / self.folder.name / f"{file.digest}.lock"

    def blob(self, file: HubFile) -> Path:
        """Return where the bytes of *file* lie, or would."""
        return self.folder / "blobs" / file.digest

    def publish(self, file: HubFile, *, commit: str, revision: str) -> Path:
        """Let *commit* and *revision* lead to the blob of *file*; return its path among the commit's others."""
        pointer = self.folder / "snapshots" / commit / file.name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.unlink(missing_ok=True)
        try:
            pointer.symlink_to(os.path.relpath(self.blob(file), pointer.parent))
        except OSError:  # a file system without symbolic links: the hub's tools move the file itself there
            self.blob(file).replace(pointer)
        if revision != commit:
            reference = self.folder / "refs" / revision
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit, encoding="ascii")
        return pointer


def digest_of(path: Path, like: str) -> str:
    """Return the hash of the file at *path*, of the same kind as *like*: sha256, or git's sha1."""
    with path.open("rb") as file:
        if len(like) == hashlib.sha256().digest_size * 2:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        while block := file.read(2**20):
            digest.update(block)
        return digest.hexdigest()
