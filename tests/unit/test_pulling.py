"""Which file of a repository a person means, and what is refused before anything is downloaded."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from padlite import pulling
from padlite.errors import BackendError, NotFoundError, UsageError
from padlite.hub import HubFile, Repository
from padlite.pulling import SeveralFilesError, wanted
from padlite.settings import Paths

HASH = "0" * 64


class Shelf:
    """A hub that has one repository and gives nothing out."""

    def __init__(self, cache: Path, *files: HubFile, here: bool = False) -> None:
        self.cache = cache
        self.files = files
        self.here = here

    def repository(self, name: str, *, revision: str) -> Repository:
        return Repository(id=name, revision=revision, commit="c" * 40, license="MIT", files=self.files)

    def missing_bytes(self, repository: Repository, file: HubFile) -> int:
        return 0 if self.here else file.size

    def fetch(self, repository: Repository, file: HubFile, *, progress: Callable[[int], None]) -> Path:
        raise FetchedError(file.name)


class FetchedError(Exception):
    """Something would have been downloaded."""


class Silent:
    """Hears everything and says nothing."""

    def found(self, repository: Repository, files: Sequence[HubFile]) -> None: ...

    @contextlib.contextmanager
    def fetching(self, file: HubFile) -> Iterator[Callable[[int], None]]:
        yield lambda _: None

    def trying(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()


def listed(*names: str, size: int = 100) -> list[HubFile]:
    return [HubFile(name=name, size=size + place, digest=HASH) for place, name in enumerate(names)]


def pull(tmp_path: Path, files: Sequence[HubFile], text: str, **more: str) -> None:
    paths = Paths(config=tmp_path / "config", data=tmp_path / "data", cache=tmp_path / "cache")
    pulling.pull(wanted(text, **more), Shelf(tmp_path / "cache", *files), paths, Silent())


@pytest.mark.parametrize(
    ("wish", "file"),
    [
        ("", "model.gguf"), (":model.gguf", "model.gguf"), (":MODEL", "model.gguf"), (":.gguf", "model.gguf"),
    ],
)  # fmt: skip
def test_the_only_file_is_taken_however_it_is_named(tmp_path: Path, wish: str, file: str) -> None:
    with pytest.raises(FetchedError, match=file):
        pull(tmp_path, listed("config.json", "model.gguf"), f"a/b{wish}")


def test_a_part_of_the_name_is_enough_if_no_other_has_it(tmp_path: Path) -> None:
    files = listed("sub/m-Q4_K_M.gguf", "sub/m-Q4_K_S.gguf", "m-Q8_0.gguf")
    with pytest.raises(FetchedError, match="Q8_0"):
        pull(tmp_path, files, "a/b:q8")
    with pytest.raises(SeveralFilesError, match="2 GGUF files with 'q4' in their names") as caught:
        pull(tmp_path, files, "a/b:q4")
    assert [file.name for file in caught.value.files] == ["sub/m-Q4_K_M.gguf", "sub/m-Q4_K_S.gguf"]
    assert (caught.value.exit_code, caught.value.remedy) == (2, "padlite models pull a/b:FILE")


@pytest.mark.parametrize(
    ("names", "text", "kind", "words"),
    [
        (["a.bin"], "a/b", NotFoundError, "has neither a GGUF file nor a bundle.toml"),
        (["m.gguf"], "a/b:n.gguf", NotFoundError, "no GGUF file 'n.gguf' — did you mean 'm.gguf'?"),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], "a/b", UsageError, "only in several pieces"),
        (["m-00001-of-00002.gguf", "m.gguf"], "a/b:m-00001-of-00002.gguf", UsageError, "only in several pieces"),
    ],
)
def test_what_is_not_there_or_cannot_be_used_is_said(
    tmp_path: Path, names: list[str], text: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        pull(tmp_path, listed(*names), text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"), [("padlite-tiny", "ships with"), ("mine", "is there already"), ("a/b", "'/'")]
)
def test_names_that_cannot_be_given_are_refused_before_anything_comes(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "data" / "models" / "mine").mkdir(parents=True)
    with pytest.raises(UsageError, match=words):
        pull(tmp_path, listed("model.gguf"), "a/b", name=name)


def test_room_is_looked_for_before_anything_comes(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"987654321\.0 GB are needed in .*, and .* GB are free"):
        pull(tmp_path, listed("model.gguf", size=987_654_321_000_000_000), "a/b")


OTHER_DISK = Path("/dev/shm")  # noqa: S108


@pytest.mark.skipif(not OTHER_DISK.is_dir(), reason="there is no second file system to have the cache on")
def test_a_cache_on_another_disk_needs_room_for_a_copy(tmp_path: Path) -> None:
    if OTHER_DISK.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("it is the same file system")
    files = listed("model.gguf", size=987_654_321_000_000_000)
    paths = Paths(config=tmp_path / "config", data=tmp_path / "data", cache=tmp_path / "own")
    with pytest.raises(BackendError, match=r"987654321\.0 GB are needed in .*data"):
        pulling.pull(wanted("a/b"), Shelf(OTHER_DISK / "none", *files, here=True), paths, Silent())
    with pytest.raises(FetchedError):
        pulling.pull(wanted("a/b"), Shelf(tmp_path / "cache", *files, here=True), paths, Silent())


@pytest.mark.parametrize("text", ["noise", "ada/", "/ada", "a/b/c", "ada/noise:", "ada/no ise", "../x/y", ""])
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no repository of the hub"):
        wanted(text)


@pytest.mark.parametrize("revision", ["", "a..b", "/x", "a b", "../../x"])
def test_what_is_no_revision_is_refused(revision: str) -> None:
    with pytest.raises(UsageError, match="is no revision"):
        wanted("a/b", revision=revision)


def test_a_file_may_have_a_colon_and_a_folder() -> None:
    order = wanted("a/b:sub/x:y.gguf", revision="refs/pr/1", name="mine")
    assert (order.repository, order.file, order.revision, order.name) == ("a/b", "sub/x:y.gguf", "refs/pr/1", "mine")
