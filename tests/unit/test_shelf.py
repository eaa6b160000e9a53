"""Heads in their places: generations, copies, two who change one at a time, kills and disks that fail."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from padlite.backends.onnx_head_arrays import HeadArrays, load_arrays
from padlite.bundle import load_bundle, verify, write_manifest
from padlite.dimensions import shelf as shelf_module
from padlite.dimensions.shelf import Shelf
from padlite.dimensions.stacking import renamed, stacked, without
from padlite.errors import BackendError, NotFoundError, PadliteError, UsageError
from padlite.locking import held
from padlite.opening import find_source
from padlite.own_heads import fingerprint, head_folder, own_head
from padlite.profile import Profile
from padlite.seams import Dimension
from padlite.settings import Paths
from tests.heads import NAMES, D, V, arrays, write_large_head, write_small_head
from tests.lms import random_weights, write_lm


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(config=tmp_path / "config", data=tmp_path / "data", cache=tmp_path / "cache")


def bare(paths: Paths, *, content: bytes = b"GGUF of mine") -> Shelf:
    """The shelf of a GGUF file, as another process would make it."""
    base = paths.data.parent / "mine.gguf"
    base.write_bytes(content)
    return Shelf(source=find_source(Profile(base=base), paths=paths), paths=paths)


def bundle_in(folder: Path, *, large: bool = False) -> Path:
    """A bundle called `noise` in *folder*."""
    folder.mkdir(parents=True)
    (folder / "base.gguf").write_bytes(b"GGUF of a bundle")
    (write_large_head if large else write_small_head)(folder / "reward.onnx")
    write_manifest(folder, name="noise", license="CC0-1.0", dimensions=load_arrays(folder / "reward.onnx").dimensions)
    return folder


def shelf_of(model: Path | str, paths: Paths) -> Shelf:
    return Shelf(source=find_source(Profile(model=str(model)), paths=paths), paths=paths)


def small(folder: Path) -> HeadArrays:
    return load_arrays(write_small_head(folder / "small.onnx"))


def with_one_more(head: HeadArrays | None, name: str) -> HeadArrays:
    assert head is not None
    table, maps = arrays(vocabulary_size=head.table.shape[0], seed=7)
    return stacked(head, table, maps[:1], [Dimension(name=name)], {name: "{}"})


def names(shelf: Shelf) -> tuple[str, ...]:
    head = shelf.load()
    return head.names if head else ()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_head_of_a_gguf_file_goes_through_generations_and_away(paths: Paths, tmp_path: Path) -> None:
    shelf, head = bare(paths), small(tmp_path)
    assert bare(paths).head is None
    with pytest.raises(NotFoundError, match="has no dimensions yet"):
        shelf.require()
    first = shelf.save(lambda old: replace(head, provenance={"old": str(old)}))
    assert (first.name, shelf.head, names(shelf)) == ("reward-000002.onnx", first, NAMES)
    assert load_arrays(first).provenance == {"old": "None"}
    second = shelf.save(lambda old: with_one_more(old, "pirate"))
    assert (second.name, bare(paths).head, names(shelf)) == ("reward-000003.onnx", second, (*NAMES, "pirate"))
    assert files(second.parent) == ["reward-000003.onnx"]
    shelf.reduce(lambda old: without(shelf.required(old), "pirate"))
    assert names(shelf) == NAMES
    shelf.reduce(lambda old: None)
    assert shelf.head is None
    assert list(paths.heads.iterdir()) == []


def test_a_head_is_found_by_what_the_gguf_file_holds(paths: Paths, tmp_path: Path) -> None:
    shelf, head = bare(paths), small(tmp_path)
    made = shelf.save(lambda old: head)
    moved = shelf.source.base.rename(tmp_path / "elsewhere.gguf")
    assert own_head(moved, paths) == made
    assert head_folder(moved, paths) == made.parent == paths.heads / fingerprint(moved)
    moved.write_bytes(b"GGUF of somebody else")
    assert own_head(moved, paths) is None
    assert own_head(tmp_path / "none.gguf", paths) is None
    with pytest.raises(NotFoundError, match="can't read"):
        fingerprint(tmp_path / "none.gguf")


def test_files_that_differ_at_their_ends_or_in_size_have_heads_of_their_own(tmp_path: Path) -> None:
    path, prints = tmp_path / "base.gguf", set[str]()
    for content in (b"a" * 3 * 2**20, b"b" + b"a" * (3 * 2**20 - 1), b"a" * (3 * 2**20 - 1) + b"b", b"a" * 2**20):
        path.write_bytes(content)
        prints.add(fingerprint(path))
    assert len(prints) == 4


def test_a_bundle_from_elsewhere_is_changed_in_a_copy(paths: Paths, tmp_path: Path) -> None:
    original = bundle_in(tmp_path / "shared" / "noise", large=True)
    before = {path.name: path.read_bytes() for path in original.iterdir()}
    made = shelf_of(original, paths).save(lambda old: with_one_more(old, "pirate"))
    own = paths.user_models / "noise"
    assert made == own / "reward-000002.onnx"
    assert files(own) == ["base.gguf", "bundle.toml", "reward-000002.onnx", "reward-000002.onnx.data"]
    verify(load_bundle(own), everything=True)
    assert {path.name: path.read_bytes() for path in original.iterdir()} == before
    assert paths.data.stat().st_mode & 0o777 == 0o700
    assert files(paths.user_models) == ["noise"]
    assert shelf_of("noise", paths).save(lambda old: with_one_more(old, "cook")) == own / "reward-000003.onnx"
    assert names(shelf_of("noise", paths)) == (*NAMES, "pirate", "cook")


def test_a_bundle_that_has_an_own_copy_elsewhere_is_refused_before_any_work(paths: Paths, tmp_path: Path) -> None:
    shelf = shelf_of(bundle_in(tmp_path / "shared" / "noise"), paths)
    shelf.require_place()
    shelf.save(lambda old: with_one_more(old, "pirate"))
    with pytest.raises(UsageError, match="there is a model noise of your own already") as raised:
        shelf.require_place()
    assert "--model noise" in raised.value.remedy
    with pytest.raises(UsageError, match="of your own already"):
        shelf.save(lambda old: with_one_more(old, "cook"))
    shelf_of("noise", paths).require_place()
    shelf_of(paths.user_models / "noise", paths).require_place()
    (paths.user_models / "noise" / "bundle.toml").unlink()
    with pytest.raises(UsageError, match="holds no model") as raised:
        shelf.require_place()
    assert raised.value.remedy.startswith("rename it: mv ")


@pytest.mark.parametrize("kind", ["file", "bundle", "shipped"])
def test_what_others_changed_meanwhile_is_not_undone(
    kind: str, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "file":
        head = small(tmp_path)
        bare(paths).save(lambda old: head)
    elif kind == "bundle":
        bundle_in(paths.user_models / "noise")
    else:
        bundle_in(tmp_path / "shipped" / "noise")
        monkeypatch.setattr("padlite.settings.bundled_models", lambda: tmp_path / "shipped")
        monkeypatch.setattr(shelf_module, "bundled_models", lambda: tmp_path / "shipped")

    def opened() -> Shelf:
        return bare(paths) if kind == "file" else shelf_of("noise", paths)

    slow = opened()
    slow.load()
    other = opened()
    other.save(lambda old: with_one_more(old, "cook"))
    opened().save(lambda old: renamed(other.required(old), NAMES[0], "first"))
    slow.save(lambda old: with_one_more(old, "pirate"))
    assert names(opened()) == ("first", NAMES[1], "cook", "pirate")


def test_one_at_a_time_changes_a_head(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "_WAIT_S", 0.1)
    shelf, head = bare(paths), small(tmp_path)
    paths.heads.mkdir(parents=True)
    with held(shelf.folder.with_name(f".{shelf.folder.name}.lock")):
        with pytest.raises(PadliteError, match="being changed by another padlite process"):
            shelf.save(lambda old: head)
        bundle_in(paths.user_models / "noise")
        shelf_of("noise", paths).save(lambda old: with_one_more(old, "pirate"))
    shelf.save(lambda old: head)


@pytest.mark.parametrize("large", [False, True])
def test_what_a_kill_leaves_in_a_bundle_goes_with_the_next_change(large: bool, paths: Paths, tmp_path: Path) -> None:
    own = bundle_in(paths.user_models / "noise", large=large)
    for left in ("reward-000002.onnx", "reward-000002.onnx.data", "reward-000003.onnx.partial"):
        (own / left).write_bytes(b"of a run that was killed before the manifest named it")
    (own / "card.md").write_text("mine", encoding="utf-8")
    assert names(shelf_of("noise", paths)) == NAMES
    made = shelf_of("noise", paths).save(lambda old: with_one_more(old, "pirate"))
    # killed after the manifest, before the old one went:
    (own / "reward-000003.onnx").write_bytes(b"old")
    made = shelf_of("noise", paths).save(lambda old: with_one_more(old, "cook"))
    data = [made.name + ".data"] if large else []
    assert files(own) == ["base.gguf", "bundle.toml", "card.md", made.name, *data]
    verify(load_bundle(own), everything=True)


def test_a_head_that_is_in_its_place_is_saved_though_the_old_one_cannot_go(paths: Paths) -> None:
    own = bundle_in(paths.user_models / "noise")
    stuck = own / "reward-000002.onnx"
    stuck.mkdir()  # unlink fails, as for a file that is mapped on Windows
    made = shelf_of("noise", paths).save(lambda old: with_one_more(old, "pirate"))
    assert made.name == "reward-000003.onnx"
    assert names(shelf_of("noise", paths)) == (*NAMES, "pirate")


def test_a_copy_that_fails_leaves_nothing(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = shelf_of(bundle_in(tmp_path / "shared" / "noise"), paths)

    def full(source: Path, target: Path, **_options: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(BackendError, match=r"can't be changed: .*No space left on device$"):
            shelf.save(lambda old: with_one_more(old, "pirate"))
    assert files(paths.user_models) == []
    assert names(shelf) == NAMES


@pytest.mark.parametrize("kind", ["file", "bundle"])
def test_a_head_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    kind: str, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = load_arrays(write_large_head(tmp_path / "large.onnx"))
    shelf = bare(paths)
    shelf.save(lambda old: head)
    if kind == "bundle":
        bundle_in(paths.user_models / "noise", large=True)
        shelf = shelf_of("noise", paths)
    before = files(shelf.folder)

    def full(path: Path, content: bytes) -> None:
        path.with_name(path.name + ".partial").write_bytes(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("padlite.backends.onnx_head.write_beside", full)
    with pytest.raises(BackendError, match="can't be changed: No space left on device"):
        shelf.save(lambda old: with_one_more(old, "pirate"))
    assert files(shelf.folder) == before
    assert names(shelf) == NAMES


def test_the_last_dimension_of_a_bundle_stays(paths: Paths) -> None:
    bundle_in(paths.user_models / "noise")
    shelf = shelf_of("noise", paths)
    with pytest.raises(BackendError, match="last dimension") as raised:
        shelf.reduce(lambda old: None)
    assert "rm -r" in raised.value.remedy
    assert names(shelf) == NAMES


def test_a_bundle_with_a_reward_lm_says_that_dimensions_cannot_join_it(paths: Paths) -> None:
    own = paths.user_models / "noise"
    bundle_in(own)
    write_lm(own / "reward.onnx", random_weights())
    write_manifest(own, name="noise", license="CC0-1.0")
    with pytest.raises(UsageError, match="has a reward LM, which dimensions can't join") as raised:
        shelf_of("noise", paths).load()
    assert "[preferences.sentences]" in raised.value.remedy


def test_a_bundle_without_any_head_gets_one(paths: Paths, tmp_path: Path) -> None:
    own, head = bundle_in(paths.user_models / "noise"), small(tmp_path)
    (own / "reward.onnx").unlink()
    write_manifest(own, name="noise", license="CC0-1.0", reward=None)
    assert shelf_of("noise", paths).load() is None
    shelf_of("noise", paths).save(lambda old: head)
    found = shelf_of("noise", paths).require()
    assert np.array_equal(found.table, head.table)
    assert found.table.shape[0] == V
    assert found.maps.shape[1] == D
