"""The hub's client against a small hub on this machine: refusals, broken connections, wrong bytes, its own cache."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from padlite.errors import HubError, NotFoundError, PadliteError, UsageError
from padlite.hub import Hub, Repository
from tests import hub as fake
from tests.hub import COMMIT, FakeHub

NOISE, FILE = "ada/noise-GGUF", "Noise-Q8_0.gguf"
CONTENT = bytes(range(256)) * 500
DIGEST = hashlib.sha256(CONTENT).hexdigest()
CARD = b"---\nlicense: other\nlicense_name: noise-1\n---\n# Noise\n"


@pytest.fixture
def served() -> Iterator[FakeHub]:
    """A hub with one repository: a large file, and small ones that git keeps itself."""
    with fake.serving() as hub:
        hub.repositories[NOISE] = {FILE: CONTENT, "README.md": CARD, "sub/empty": b""}
        yield hub


@pytest.fixture
def hub(served: FakeHub, tmp_path: Path) -> Hub:
    """A client of it with an empty cache."""
    return Hub(address=served.address, cache=tmp_path / "cache", pause_s=0.0)


def offline(hub: Hub) -> Hub:
    return Hub(offline=True, cache=hub.cache)


def fetch(hub: Hub, name: str = FILE, *, seen: list[int] | None = None) -> Path:
    """Ask for the repository and fetch one file of it."""
    repository = hub.repository(NOISE)
    file = repository.file(name)
    assert file is not None
    return hub.fetch(repository, file, progress=(seen if seen is not None else []).append)


def parts(hub: Hub) -> list[Path]:
    return sorted(hub.cache.rglob("*.incomplete"))


def failing(action: Callable[[], object], kind: type[PadliteError], *words: str) -> PadliteError:
    """Return the error that *action* raises: of this kind, one line with these words, and a remedy."""
    with pytest.raises(kind) as caught:
        action()
    assert type(caught.value) is kind
    assert all(word in caught.value.message for word in words), caught.value.message
    assert "\n" not in caught.value.message + caught.value.remedy
    assert len(caught.value.remedy) > 10
    return caught.value


def test_a_repository_is_what_the_hub_lists(hub: Hub, served: FakeHub) -> None:
    repository = hub.repository(NOISE, revision="v1")
    assert (repository.revision, repository.commit, repository.license) == ("v1", COMMIT, "apache-2.0")
    assert [(file.name, file.size, len(file.digest)) for file in repository.files] == [
        (FILE, len(CONTENT), 64), ("README.md", len(CARD), 40), ("sub/empty", 0, 40),
    ]  # fmt: skip


@pytest.mark.parametrize("name", [FILE, "README.md", "sub/empty"])
def test_a_file_comes_whole_and_only_once(hub: Hub, served: FakeHub, name: str) -> None:
    seen: list[int] = []
    content = served.repositories[NOISE][name]
    path = fetch(hub, name, seen=seen)
    assert path.read_bytes() == content
    assert (seen[0], seen[-1]) == (0, len(content))
    encodings = {asked.encodings for asked in served.paths("resolve")}
    assert encodings == ({"identity"} if content else set())  # what comes compressed can't be gone on with
    asked = len(served.paths("resolve"))
    assert fetch(hub, name) == path
    assert len(served.paths("resolve")) == asked
    assert parts(hub) == []


def test_what_is_missing_is_known_beforehand(hub: Hub, served: FakeHub) -> None:
    repository = hub.repository(NOISE)
    (file, *_) = repository.files
    assert hub.missing_bytes(repository, file) == len(CONTENT)
    served.cut_after, served.always_cut = [50_000], True
    failing(lambda: fetch(hub), HubError, "broke off")
    assert hub.missing_bytes(repository, file) == len(CONTENT) - 50_000
    served.always_cut = False
    fetch(hub)
    assert hub.missing_bytes(repository, file) == 0


def test_a_connection_that_breaks_off_is_gone_on_with_as_long_as_anything_comes(hub: Hub, served: FakeHub) -> None:
    served.cut_after = [50_000, 1, 1, 1, 1]
    assert fetch(hub).read_bytes() == CONTENT
    ranges = [asked.range for asked in served.paths("cdn")]
    assert ranges == ["", *(f"bytes={50_000 + more}-" for more in range(5))]


def test_what_came_before_a_connection_broke_for_good_is_kept_for_another_client(hub: Hub, served: FakeHub) -> None:
    served.cut_after, served.always_cut = [50_000], True
    error = failing(lambda: fetch(hub), HubError, "the connection to the hub broke off in the middle of", FILE)
    assert (error.exit_code, error.remedy) == (1, "try again; the same command goes on where it stopped")
    assert [part.read_bytes() for part in parts(hub)] == [CONTENT[:50_000]]
    assert list(hub.cache.rglob(FILE)) == []
    served.always_cut = False
    served.asked.clear()
    seen: list[int] = []
    other = Hub(address=served.address, cache=hub.cache)
    assert fetch(other, seen=seen).read_bytes() == CONTENT
    assert seen[0] == 50_000
    assert [asked.range for asked in served.paths("cdn")] == ["bytes=50000-"]


def test_a_hub_that_does_not_know_ranges_is_asked_for_everything_again(hub: Hub, served: FakeHub) -> None:
    served.knows_ranges, served.cut_after = False, [50_000]
    assert fetch(hub).read_bytes() == CONTENT


def test_a_hub_that_cannot_go_on_at_that_place_is_asked_from_the_beginning(hub: Hub, served: FakeHub) -> None:
    part = hub.cache / "models--ada--noise-GGUF" / "blobs" / f"{DIGEST}.padlite.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (len(CONTENT) + 1))
    assert fetch(hub).read_bytes() == CONTENT
    assert [asked.range for asked in served.paths("cdn")] == [f"bytes={len(CONTENT) + 1}-", ""]


@pytest.mark.parametrize("change", ["other bytes", "no end"])
def test_wrong_bytes_are_thrown_away(hub: Hub, served: FakeHub, change: str) -> None:
    served.replace = bytes(len(CONTENT)) if change == "other bytes" else CONTENT + bytes(10**8)
    seen: list[int] = []
    words = (f"what came is not {FILE} of {NOISE}", DIGEST[:12], "was removed")
    assert failing(lambda: fetch(hub, seen=seen), HubError, *words).exit_code == 1
    assert max(seen) < len(CONTENT) + 10**6  # the rest of an answer without end is left where it is
    assert (parts(hub), list(hub.cache.rglob(FILE))) == ([], [])
    served.replace = b""
    assert fetch(hub).read_bytes() == CONTENT


def test_a_file_that_ends_early_is_not_taken_for_whole(hub: Hub, served: FakeHub) -> None:
    served.replace = CONTENT[:-1]
    failing(lambda: fetch(hub), HubError, f"the hub ended {FILE} of {NOISE} early")
    assert list(hub.cache.rglob(FILE)) == []


def test_a_file_that_changed_in_the_cache_is_refused(hub: Hub, served: FakeHub) -> None:
    blob = fetch(hub).resolve()
    blob.write_bytes(b"x" + CONTENT[1:])
    for client in (hub, offline(hub)):
        error = failing(lambda: fetch(client), HubError, f"{FILE} of {NOISE} is damaged")  # noqa: B023  called at once
        assert error.remedy == f"rm {blob}, and pull it again"


def test_a_file_that_changed_in_the_cache_is_refused_where_no_commit_leads_to_it_yet(hub: Hub) -> None:
    path = fetch(hub)
    path.resolve().write_bytes(b"x" + CONTENT[1:])
    path.unlink()
    failing(lambda: fetch(hub), HubError, f"{FILE} of {NOISE} is damaged")
    assert not path.exists()


def test_offline_the_cache_answers_and_nothing_is_asked(hub: Hub, served: FakeHub) -> None:
    failing(lambda: offline(hub).repository(NOISE), NotFoundError, "doesn't have", NOISE)
    fetch(hub)
    fetch(hub, "README.md")
    served.asked.clear()
    repository = offline(hub).repository(NOISE)
    assert (repository.commit, repository.license) == (COMMIT, "noise-1")
    assert [file.name for file in repository.files] == [FILE, "README.md"]
    assert fetch(offline(hub)).read_bytes() == CONTENT
    failing(lambda: offline(hub).repository(NOISE, revision="v1"), NotFoundError, "doesn't have")
    assert offline(hub).repository(NOISE, revision=COMMIT).commit == COMMIT
    missing = hub.repository(NOISE).file("sub/empty")
    assert missing is not None
    failing(lambda: offline(hub).fetch(repository, missing, progress=print), NotFoundError, "sub/empty")
    assert served.paths("resolve") == []


def test_the_hubs_own_tools_find_what_came(hub: Hub) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    path = fetch(hub)
    assert hf_hub_download(NOISE, FILE, cache_dir=hub.cache, local_files_only=True) == str(path)
    scanned = scan_cache_dir(hub.cache)
    assert scanned.warnings == []
    assert [(each.repo_id, *(rev.refs for rev in each.revisions)) for each in scanned.repos] == [(NOISE, {"main"})]


def test_what_the_hubs_own_tools_have_downloaded_is_not_downloaded_again(hub: Hub, served: FakeHub) -> None:
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(NOISE, FILE, cache_dir=hub.cache, endpoint=served.address)
    served.asked.clear()
    assert fetch(hub) == Path(path)
    assert served.paths("resolve") == []


def test_a_file_system_without_links_keeps_the_file_itself(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    path = fetch(hub)
    assert not path.is_symlink()
    assert path.read_bytes() == CONTENT
    assert fetch(offline(hub)) == path


def refuse_list(status: int, code: str = "") -> Callable[[FakeHub], None]:
    return lambda hub: setattr(hub, "refuse_list", (status, code))


def refuse_file(status: int, code: str = "") -> Callable[[FakeHub], None]:
    return lambda hub: hub.refuse_file.update({status: code})


def answer(body: str) -> Callable[[FakeHub], None]:
    return lambda hub: setattr(hub, "answer_list", body.encode())


def change_list(old: str, new: str) -> Callable[[FakeHub], None]:
    return lambda hub: setattr(hub, "answer_list", hub.list(NOISE).replace(old.encode(), new.encode()))


@pytest.mark.parametrize(
    ("break_it", "code", "words"),
    [
        pytest.param(refuse_list(401, "RepoNotFound"), 3, "has no model ada/noise-GGUF", id="401 list"),
        pytest.param(refuse_list(401), 3, "has no model ada/noise-GGUF", id="401 list without a code"),
        pytest.param(refuse_list(403), 1, "those who have agreed to its terms", id="403 list"),
        pytest.param(refuse_list(404, "RepoNotFound"), 3, "has no model ada/noise-GGUF", id="404 list"),
        pytest.param(refuse_list(404, "RevisionNotFound"), 3, "has no revision 'main'", id="404 revision"),
        pytest.param(refuse_list(429), 1, "too many requests", id="429 list"),
        pytest.param(refuse_list(500), 1, "the hub itself has a problem (HTTP 500)", id="500 list"),
        pytest.param(refuse_list(418), 1, "the hub refuses ada/noise-GGUF (HTTP 418)", id="418 list"),
        pytest.param(refuse_file(401, "GatedRepo"), 1, "those who have agreed to its terms", id="401 gated file"),
        pytest.param(refuse_file(401), 3, "has no model ada/noise-GGUF", id="401 file"),
        pytest.param(refuse_file(404, "EntryNotFound"), 3, "lists Noise-Q8_0.gguf", id="404 file"),
        pytest.param(refuse_file(404), 3, "lists Noise-Q8_0.gguf", id="404 file without a code"),
        pytest.param(refuse_file(416), 1, "the hub refuses Noise-Q8_0.gguf", id="416 file"),
        pytest.param(refuse_file(500), 1, "the hub itself has a problem (HTTP 500)", id="500 file"),
        pytest.param(answer("<html>Welcome to the hotel</html>"), 1, "doesn't answer as the hub does", id="a portal"),
        pytest.param(answer("[]"), 1, "doesn't answer as the hub does", id="other JSON"),
        pytest.param(answer("{}"), 1, "doesn't answer as the hub does", id="no content"),
        pytest.param(change_list(f'"{FILE}"', '"../../x.gguf"'), 1, "doesn't answer as the hub does", id="path out"),
        pytest.param(change_list(f'"{FILE}"', '"/x.gguf"'), 1, "doesn't answer as the hub does", id="path from root"),
        pytest.param(change_list('"sha256": "', '"sha256": "../'), 1, "doesn't answer as the hub does", id="no hash"),
        pytest.param(change_list('"blobId": "', '"blobId": "../'), 1, "doesn't answer as the hub does", id="no sha1"),
        pytest.param(change_list('"size": ', '"size": -'), 1, "doesn't answer as the hub does", id="negative size"),
        pytest.param(change_list(COMMIT, "../../evil"), 1, "doesn't answer as the hub does", id="no commit"),
    ],
)
def test_what_the_hub_refuses_is_one_clear_error(
    hub: Hub, served: FakeHub, break_it: Callable[[FakeHub], None], code: int, words: str
) -> None:
    break_it(served)
    error = failing(lambda: fetch(hub), HubError if code == 1 else NotFoundError, words)
    assert error.exit_code == code
    assert list(hub.cache.rglob("snapshots")) == []


@pytest.mark.parametrize(
    ("address", "words"), [("http://127.0.0.1:9", "can't be reached"), ("nonsense", "address makes no sense")]
)
def test_a_hub_that_cannot_be_reached(tmp_path: Path, address: str, words: str) -> None:
    failing(lambda: Hub(address=address, cache=tmp_path).repository(NOISE), HubError, words)


def test_a_name_that_the_hub_could_not_have_is_refused_without_asking(hub: Hub, served: FakeHub) -> None:
    failing(lambda: hub.repository("ada/..noise"), UsageError, "can't be the name of a repository")
    assert served.asked == []


def test_a_cache_that_cannot_be_written_is_said(served: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    hub = Hub(address=served.address, cache=tmp_path / "file" / "cache")
    error = failing(lambda: fetch(hub), HubError, "the download can't be kept in", "Not a directory")
    assert "HF_HUB_CACHE" in error.remedy


def test_a_repository_has_a_commit() -> None:
    with pytest.raises(ValueError, match="not a commit"):
        Repository(id=NOISE, revision="main", commit="main", license="", files=())
