"""From a repository of the Hugging Face hub to an installed model: a bundle as it is, or a GGUF file as a new one.

What comes from the hub comes from a stranger: names, sizes and hashes are compared before the download and after it,
and then it goes the way of every bundle (`installing`): nothing is installed that hasn't opened and answered. Sizes in
bytes. Knows neither HTTP nor terminals.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from padlite import installing
from padlite.bundle import MANIFEST, Bundle, load_bundle
from padlite.errors import HubError, NotFoundError, UsageError, did_you_mean
from padlite.hub import DEFAULT_REVISION, HubFile, Repository
from padlite.settings import Paths

CARD, README = "card.md", "README.md"
LARGEST_TEXT = 2**20
_EXAMPLE = "padlite models pull ORG/NAME, or ORG/NAME:FILE.gguf"
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


class SeveralFilesError(UsageError):
    """A repository has several GGUF files and none was named: *files*, of *repository*."""

    def __init__(self, message: str, *, remedy: str, repository: str, files: Sequence[HubFile]) -> None:
        super().__init__(message, remedy=remedy)
        self.repository: str = repository
        self.files: tuple[HubFile, ...] = tuple(files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What shall be pulled: a repository at a revision, a *file* of it or None, and the *name* it gets or None."""

    repository: str
    file: str | None = None
    revision: str = DEFAULT_REVISION
    name: str | None = None


class Source(Protocol):
    """What is used of `padlite.hub.Hub`."""

    cache: Path

    def repository(self, name: str, *, revision: str) -> Repository:
        """Return what a repository holds."""
        ...

    def missing_bytes(self, repository: Repository, file: HubFile) -> int:
        """Return how much of a file would have to be downloaded."""
        ...

    def fetch(self, repository: Repository, file: HubFile, *, progress: Callable[[int], None]) -> Path:
        """Return where a file lies, whole and checked, among the others of its commit."""
        ...


class Teller(Protocol):
    """Who is told how it goes."""

    def found(self, repository: Repository, files: Sequence[HubFile]) -> None:
        """Hear what will be fetched."""
        ...

    def fetching(self, file: HubFile) -> AbstractContextManager[Callable[[int], None]]:
        """Yield what hears how many bytes of *file* are there."""
        ...

    def trying(self) -> AbstractContextManager[object]:
        """Hear that the model is opened and asked, which takes a while."""
        ...


def wanted(text: str, *, revision: str = DEFAULT_REVISION, name: str | None = None) -> Wanted:
    """Return what *text*, ORG/NAME or ORG/NAME:FILE, means. Raises UsageError."""
    repository, colon, file = text.partition(":")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII) or (colon and not file):
        raise UsageError(f"{text!r} is no repository of the hub", remedy=_EXAMPLE)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", revision, re.ASCII) or ".." in revision:
        raise UsageError(f"{revision!r} is no revision", remedy="name a branch, a tag or a commit")
    return Wanted(repository=repository, file=file or None, revision=revision, name=name)


def pull(order: Wanted, hub: Source, paths: Paths, teller: Teller) -> Bundle:
    """Install what *order* wants and return it.

    Raises SeveralFilesError, UsageError for a name that is taken, NotFoundError, HubError, and what `installing`
    raises; nothing is installed then, and what had come stays in the hub's cache.
    """
    repository = hub.repository(order.repository, revision=order.revision)
    if order.file is None and repository.file(MANIFEST):
        return _pull_bundle(order, repository, hub, paths, teller)
    return _pull_gguf(order, repository, hub, paths, teller)


def _pull_bundle(order: Wanted, repository: Repository, hub: Source, paths: Paths, teller: Teller) -> Bundle:
    manifest = _listed(repository, MANIFEST)
    if manifest.size > LARGEST_TEXT:
        raise HubError(f"{MANIFEST} of {repository.id} is larger than 1 MiB", remedy="tell its author")
    folder = hub.fetch(repository, manifest, progress=_ignore).parent
    bundle = load_bundle(folder)
    if order.name not in {None, bundle.name}:
        raise UsageError(f"this is a bundle, and it is called {bundle.name!r}", remedy="leave out --name")
    installing.free_folder(bundle.name, paths)
    files = [_listed(repository, each.name) for each in bundle.files]
    for file, said in zip(files, bundle.files, strict=True):
        if file.size != said.size or (len(file.digest) == len(said.sha256) and file.digest != said.sha256):
            raise HubError(
                f"{file.name} of {repository.id} is another than its manifest says", remedy="tell its author"
            )
    card = repository.file(CARD)
    if card is not None and card.size <= LARGEST_TEXT:
        files.append(card)
    _fetch_all(repository, files, hub, paths, teller)
    with teller.trying():
        return installing.install(folder, paths, share=True)


def _pull_gguf(order: Wanted, repository: Repository, hub: Source, paths: Paths, teller: Teller) -> Bundle:
    file = _chosen(repository, order.file)
    name = order.name or Path(file.name).stem.lower()
    target = installing.free_folder(name, paths)
    card = repository.file(README)
    texts = [card] if card is not None and card.size <= LARGEST_TEXT else []
    fetched = _fetch_all(repository, [file, *texts], hub, paths, teller)
    parts = installing.Parts(
        name=name, base=fetched[0], license=repository.license, card=fetched[1] if texts else None,
        title=f"{file.name} of {repository.id}", share=True,
        training={"repository": f"huggingface.co/{repository.id}", "commit": repository.commit, "file": file.name},
    )  # fmt: skip
    with teller.trying():
        return installing.build(parts, target)


def _fetch_all(
    repository: Repository, files: Sequence[HubFile], hub: Source, paths: Paths, teller: Teller
) -> list[Path]:
    """Return where *files* lie after all have come, for which there is room."""
    teller.found(repository, files)
    _require_room(repository, files, hub, paths)
    fetched = []
    for file in files:
        with teller.fetching(file) as progress:
            fetched.append(hub.fetch(repository, file, progress=progress))
    return fetched


def _require_room(repository: Repository, files: Sequence[HubFile], hub: Source, paths: Paths) -> None:
    """Raise BackendError unless there is room for what must come, and for the copy where the cache can't be shared."""
    missing = sum(hub.missing_bytes(repository, file) for file in files)
    cache, models = installing.existing(hub.cache), installing.existing(paths.user_models)
    copied = 0 if cache.stat().st_dev == models.stat().st_dev else sum(file.size for file in files)
    installing.require_room(cache, missing, free=shutil.disk_usage(cache).free)
    installing.require_room(models, copied, free=shutil.disk_usage(models).free)


def _chosen(repository: Repository, wish: str | None) -> HubFile:
    """Return the GGUF file that *wish* names, by its path or a part of it that no other has; None: the only one."""
    known = {file.name: file for file in repository.files if file.name.lower().endswith(".gguf")}
    whole = {name: file for name, file in known.items() if not _SPLIT.search(name)}
    if not known:
        raise NotFoundError(
            f"{repository.id} has neither a GGUF file nor a {MANIFEST}",
            remedy="look for a repository that has -GGUF in its name, or convert it: padlite export base",
        )
    if wish in whole:
        return whole[wish]
    if wish in known or not whole:
        raise UsageError(
            f"{repository.id} has this only in several pieces, which padlite doesn't put together",
            remedy="choose a smaller file, or merge the pieces with llama-gguf-split and use padlite models add",
        )
    found = [file for name, file in whole.items() if wish is None or wish.lower() in name.lower()]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFoundError(
            f"{repository.id} has no GGUF file {wish!r}{did_you_mean(wish or '', whole)}",
            remedy=f"padlite models pull {repository.id}",
        )
    named = f" with {wish!r} in their names" if wish else ""
    raise SeveralFilesError(
        f"{repository.id} has {len(found)} GGUF files{named}: choose one",
        remedy=f"padlite models pull {repository.id}:FILE", repository=repository.id,
        files=sorted(found, key=lambda file: (file.size, file.name)),
    )  # fmt: skip


def _listed(repository: Repository, name: str) -> HubFile:
    file = repository.file(name)
    if file is None:
        raise NotFoundError(f"{repository.id} lacks {name}, which its {MANIFEST} lists", remedy="tell its author")
    return file


def _ignore(_count: int) -> None:
    """Hear nothing."""
