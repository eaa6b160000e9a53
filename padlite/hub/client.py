"""Asks the hub what a repository holds, and fetches its files into the hub's own cache, whole and checked.

A download that was interrupted goes on where it stopped, also in another process: huggingface_hub itself would start
over, so the bytes are streamed here, by its session and with its headers. Sizes in bytes.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from padlite import __version__, settings
from padlite.errors import HubError, NotFoundError
from padlite.hub.cache import CachedRepository, digest_of
from padlite.hub.failures import TRY_AGAIN, answered, damaged, explained, kept, not_cached, wrong_bytes
from padlite.hub.record import DEFAULT_REVISION, UNKNOWN_LICENSE, HubFile, Repository, license_of

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

_CARD = "README.md"
_ANSWER_LIMIT_S = 30
_TRIES = 3
_log = logging.getLogger(__name__)


class Hub:
    """The hub at *address*, or with *offline* only what its *cache* on this machine holds.

    The environment says the same things under the names that the hub's own tools read, and can say offline, too. A
    connection that broke off is tried again after *pause_s*. Raises NotFoundError where the extra isn't installed.
    """

    def __init__(
        self, *, offline: bool = False, address: str | None = None, cache: Path | None = None, pause_s: float = 1.0
    ) -> None:
        settings.quiet_hub()
        try:
            import huggingface_hub
            from huggingface_hub.utils import logging as library_log
        except ModuleNotFoundError as error:
            raise NotFoundError(
                f"the hub needs the Python package {error.name}, which isn't installed",
                remedy="pip install 'padlite[hub]'",
            ) from error
        library_log.set_verbosity(logging.ERROR)  # what it warns of is said here, or repaired
        self.offline: bool = offline or huggingface_hub.constants.HF_HUB_OFFLINE
        self.cache: Path = cache or Path(huggingface_hub.constants.HF_HUB_CACHE)
        self._api = huggingface_hub.HfApi(address, library_name="padlite", library_version=__version__)
        self._pause_s = pause_s

    def repository(self, name: str, *, revision: str = DEFAULT_REVISION) -> Repository:
        """Return what the repository *name* (ORG/NAME) holds at *revision*: a branch, a tag or a commit.

        Raises NotFoundError if it isn't there (for us), HubError if the hub can't be reached or refuses.
        """
        from huggingface_hub.utils import validate_repo_id

        with explained(name, revision):
            validate_repo_id(name)
            if self.offline:
                return self._cached_repository(name, revision)
            with answered(name):
                info = self._api.model_info(name, revision=revision, files_metadata=True, timeout=_ANSWER_LIMIT_S)
                files = tuple(map(_listed, info.siblings or []))
                return Repository(
                    id=name, revision=revision, commit=info.sha or "", files=files, license=license_of(info.card_data)
                )

    def missing_bytes(self, repository: Repository, file: HubFile) -> int:
        """Return how much of *file* would have to be downloaded."""
        cached = CachedRepository(self.cache, repository.id)
        if cached.find(repository.commit, file) is not None or cached.blob(file).is_file():
            return 0
        part = cached.part(file)
        return max(0, file.size - (part.stat().st_size if part.is_file() else 0))

    def fetch(self, repository: Repository, file: HubFile, *, progress: Callable[[int], None]) -> Path:
        """Return where *file* lies in the hub's cache, after it has come if it wasn't there, and was checked.

        *progress* is told how many bytes of it are there. Raises NotFoundError, or HubError: cut off, refused, wrong
        bytes, no space; what had come stays for the next time, unless it is wrong.
        """
        from huggingface_hub.utils import WeakFileLock

        cached = CachedRepository(self.cache, repository.id)
        found = cached.find(repository.commit, file)
        if found is None and self.offline:
            raise not_cached(repository.id, file.name)
        with kept(self.cache):
            if found is not None:
                if file.digest and digest_of(found, file.digest) != file.digest:
                    raise damaged(repository.id, file, found.resolve())
                progress(file.size)
                return found
            part, blob, lock = cached.part(file), cached.blob(file), cached.lock(file)
            part.parent.mkdir(parents=True, exist_ok=True)
            lock.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(lock):
                if not blob.is_file():
                    self._download(repository, file, part, progress)
                    _require_listed_bytes(part, repository, file)
                    part.replace(blob)
                elif digest_of(blob, file.digest) != file.digest:
                    raise damaged(repository.id, file, blob)
                return cached.publish(file, commit=repository.commit, revision=repository.revision)

    def _cached_repository(self, name: str, revision: str) -> Repository:
        """Return what the cache has of a repository: the commit that *revision* stood for when the hub was asked."""
        cached = CachedRepository(self.cache, name)
        commit = cached.commit(revision)
        if commit is None:
            raise not_cached(name)
        with answered(f"{name} in {self.cache}"):
            files = tuple(cached.files(commit))
            license_ = _license_in(cached.folder / "snapshots" / commit / _CARD)
            return Repository(id=name, revision=revision, commit=commit, files=files, license=license_)

    def _download(
        self, repository: Repository, file: HubFile, part: Path, progress: Callable[[int], None]
    ) -> None:  # fmt: skip
        """Bring what *part* lacks of *file*, again from where it broke off as long as anything comes."""
        import httpx2

        failures = 0
        with explained(repository.id, repository.revision, file), part.open("ab") as target:
            while True:
                before = target.seek(0, os.SEEK_END)
                try:
                    return self._stream(repository, file, target, progress)
                except (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError) as error:
                    failures = 1 if target.tell() > before else failures + 1
                    if failures == _TRIES:
                        raise
                    _log.info("%s broke off at byte %d: %s", file.name, target.tell(), error)
                    time.sleep(self._pause_s)

    def _stream(self, repository: Repository, file: HubFile, target: BinaryIO, progress: Callable[[int], None]) -> None:
        """Append to *target* what it lacks of *file*; from the beginning where the hub can't go on at that place.

        At most one block more than *file* is said to have, whatever comes.
        """
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        there = target.seek(0, os.SEEK_END)
        progress(there)
        if there == file.size:
            return
        headers = build_hf_headers(library_name="padlite", library_version=__version__)
        headers["Accept-Encoding"] = "identity"  # a compressed answer can't be gone on with
        if there:
            headers["Range"] = f"bytes={there}-"
        url = hf_hub_url(repository.id, file.name, revision=repository.commit, endpoint=self._api.endpoint)
        with get_session().stream("GET", url, headers=headers, timeout=_ANSWER_LIMIT_S) as response:
            if not there or response.status_code != 416:
                hf_raise_for_status(response)
                if response.status_code != 206:
                    _empty(target)
                for chunk in response.iter_bytes():
                    target.write(chunk)
                    progress(target.tell())
                    if target.tell() > file.size:
                        break
                if target.tell() < file.size:
                    raise HubError(f"the hub ended {file.name} of {repository.id} early", remedy=TRY_AGAIN)
                return
        _log.info("the hub can't go on at byte %d; from the beginning", there)
        _empty(target)
        self._stream(repository, file, target, progress)


def _listed(entry: "RepoSibling") -> HubFile:
    """Return an entry of the hub's list. Raises ValueError for one that lacks what a download is checked by."""
    size, digest = (entry.lfs.size, entry.lfs.sha256) if entry.lfs else (entry.size, entry.blob_id)
    if size is None or not digest:
        raise ValueError("a file without size or hash")
    return HubFile(name=entry.rfilename, size=size, digest=digest)


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _require_listed_bytes(part: Path, repository: Repository, file: HubFile) -> None:
    """Raise HubError, and remove *part*, unless it holds the bytes that the hub lists."""
    found = digest_of(part, file.digest)
    if found != file.digest:
        part.unlink()
        raise wrong_bytes(repository.id, file, f"hash {found[:12]}…")


def _license_in(card: Path) -> str:
    from huggingface_hub import ModelCard

    if not card.is_file():
        return UNKNOWN_LICENSE
    try:
        return license_of(ModelCard.load(card).data)
    except (OSError, ValueError):
        return UNKNOWN_LICENSE
