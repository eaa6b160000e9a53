"""Bundles: found by name, read strictly, checked before use."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from padlite.bundle import (
    ALWAYS_HASHED_BYTES,
    Bundle,
    bundle_folders,
    find_bundle,
    list_bundles,
    load_bundle,
    verify,
    write_manifest,
)
from padlite.errors import BackendError, NotFoundError
from padlite.profile import Profile
from padlite.seams import Dimension
from padlite.settings import Paths, bundled_models


def _write(folder: Path, *, name: str = "mine", data: bool = False) -> Bundle:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.gguf").write_bytes(b"base model")
    (folder / "reward.onnx").write_bytes(b"reward model")
    if data:
        (folder / "reward.onnx.data").write_bytes(b"weights")
        (folder / "reward.onnx.tokenizer.json").write_bytes(b"tokenizer")
    return write_manifest(
        folder,
        name=name,
        title="Mine",
        description="A model of “mine”",
        license="Apache-2.0",
        dimensions=[Dimension(name="caring", description="warm", scale=0.5), Dimension(name="witty")],
        strength=1.5,
        candidates=12,
        context_length=512,
        training={"data": "small talk", "note": 'a "quoted" word'},
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return _write(tmp_path / "mine")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(config=tmp_path / "config", data=tmp_path / "data", cache=tmp_path / "cache")


def _replace(bundle: Bundle, old: str, new: str) -> Path:
    manifest = bundle.folder / "bundle.toml"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new, 1))
    return bundle.folder


# --- what is written is what is read


def test_what_is_written_is_what_is_read(bundle: Bundle, tmp_path: Path) -> None:
    assert load_bundle(bundle.folder) == bundle
    assert (bundle.name, bundle.title, bundle.license) == ("mine", "Mine", "Apache-2.0")
    assert bundle.base == tmp_path / "mine/base.gguf"
    assert bundle.reward == tmp_path / "mine/reward.onnx"
    assert bundle.dimensions[0] == Dimension(name="caring", description="warm", scale=0.5)
    assert (bundle.strength, bundle.candidates, bundle.context_length) == (1.5, 12, 512)
    assert dict(bundle.training) == {"data": "small talk", "note": 'a "quoted" word'}
    assert [(each.name, each.size) for each in bundle.files] == [("base.gguf", 10), ("reward.onnx", 12)]


def test_the_data_file_of_a_reward_model_is_listed(tmp_path: Path) -> None:
    bundle = _write(tmp_path / "mine", data=True)
    assert [each.name for each in bundle.files] == [
        "base.gguf", "reward.onnx", "reward.onnx.data", "reward.onnx.tokenizer.json",
    ]  # fmt: skip


def test_a_bundle_may_have_no_reward_model(tmp_path: Path) -> None:
    (tmp_path / "base.gguf").write_bytes(b"base")
    bundle = write_manifest(tmp_path, name="plain", license="MIT", reward=None)
    assert (bundle.reward, bundle.dimensions, bundle.strength, bundle.candidates) == (None, (), 1.0, 10)


def test_the_same_content_gives_the_same_manifest(tmp_path: Path) -> None:
    manifests = [(_write(tmp_path / each).folder / "bundle.toml").read_bytes() for each in "ab"]
    assert manifests[0] == manifests[1]


def test_a_missing_model_file_stops_the_writing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"base\.gguf is missing"):
        write_manifest(tmp_path, name="x", license="MIT")
    assert list(tmp_path.iterdir()) == []


# --- reading strictly


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("license =", "licence =", "unknown key 'licence' — did you mean 'license'"),
        ("scale = 0.5", "weight = 0.5", "unknown key 'dimensions.weight'"),
        ("size = 10", "bytes = 10", "unknown key 'files.bytes'"),
        ('license = "Apache-2.0"\n', "", "the key 'license' is missing"),
        ("schema = 1", "schema = true", "schema must be a whole number"),
        ('license = "Apache-2.0"', "license = 2", "license must be a text"),
        ('base = "base.gguf"', 'base = "../base.gguf"', "plain name"),
        ('base = "base.gguf"', 'base = "/etc/passwd"', "plain name"),
        ('name = "base.gguf"', 'name = "sub/base.gguf"', "plain name"),
        ('name = "base.gguf"', 'name = "other.gguf"', "lack 'base.gguf'"),
        ('name = "reward.onnx"', 'name = "base.gguf"', "file twice"),
        ('name = "witty"', 'name = "caring"', "dimension twice"),
        ("strength = 1.5", "strength = nan", "finite"),
        ("strength = 1.5", "strength = 1e9", "between"),
        ("strength = 1.5", "strength = 1" + "0" * 400, "finite"),
        ("candidates = 12", "candidates = 0", "between 1 and 1000"),
        ("candidates = 12", "candidates = 1.5", "whole number"),
        ("context_length = 512", "context_length = -1", "between"),
        ('sha256 = "', 'sha256 = "zz', "64 hexadecimal"),
        ("[training]", "[training]\nhours = 2", "training.hours must be a text"),
        ("schema = 1", "schema = 1\nfiles = 3", "no TOML"),
        ("[[dimensions]]", "[dimensions]", "no TOML"),
        ("schema = 1", "schema = 1" + "0" * 5000, "no TOML"),
        ("schema = 1", "schema = 1\nx = " + "[" * 100_000, "no TOML"),
        ("schema = 1", "schema = ", "no TOML.*line 2"),
    ],
)
def test_a_manifest_that_is_not_quite_right_is_refused_with_the_reason(
    bundle: Bundle, old: str, new: str, reason: str
) -> None:
    with pytest.raises(BackendError, match=reason) as caught:
        load_bundle(_replace(bundle, old, new))
    assert caught.value.remedy
    assert "bundle.toml" in caught.value.message


def test_a_manifest_of_the_future_asks_for_an_upgrade_even_if_its_keys_are_unknown(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="schema 2") as caught:
        load_bundle(_replace(bundle, "schema = 1", "schema = 2\nnews = 1"))
    assert "upgrade" in caught.value.remedy


@pytest.mark.parametrize("content", [b"\xff\xfe", bytes(2**20 + 1)], ids=["not UTF-8", "huge"])
def test_a_manifest_that_is_no_text_is_refused(bundle: Bundle, content: bytes) -> None:
    (bundle.folder / "bundle.toml").write_bytes(content)
    with pytest.raises(BackendError, match=r"UTF-8|larger"):
        load_bundle(bundle.folder)


def test_a_folder_without_a_manifest_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no model folder"):
        load_bundle(tmp_path)


# --- checking the files


def test_untouched_files_are_accepted(tmp_path: Path) -> None:
    verify(_write(tmp_path / "mine", data=True), everything=True)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["base.gguf", "reward.onnx", "reward.onnx.data", "reward.onnx.tokenizer.json"])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_flip, "sha256"),
        (_append, "bytes instead of"),
        (Path.unlink, "missing"),
        (_make_folder, "no regular file"),
    ],
)
def test_a_changed_file_is_named_with_the_remedy(
    tmp_path: Path, name: str, damage: Callable[[Path], object], reason: str
) -> None:
    bundle = _write(tmp_path / "mine", data=True)
    damage(bundle.folder / name)
    with pytest.raises(BackendError, match=reason) as caught:
        verify(bundle, everything=False)
    assert caught.value.message.startswith(f"{name} of model 'mine'")
    assert "padlite models verify mine" in caught.value.remedy


def test_a_wrong_sha256_shows_both(bundle: Bundle) -> None:
    old = bundle.files[0].sha256
    _flip(bundle.base)
    with pytest.raises(BackendError) as caught:
        verify(bundle, everything=False)
    assert f"instead of {old[:12]}…" in caught.value.message


def test_a_data_file_that_nobody_listed_is_refused(bundle: Bundle) -> None:
    (bundle.folder / "reward.onnx.data").write_bytes(b"weights")
    with pytest.raises(BackendError, match="not in its manifest"):
        verify(bundle, everything=False)


def test_a_large_file_is_hashed_only_on_request(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    base = folder / "base.gguf"
    base.touch()
    os.truncate(base, ALWAYS_HASHED_BYTES + 1)
    bundle = write_manifest(folder, name="mine", license="MIT", reward=None)
    with base.open("r+b") as file:
        file.write(b"x")
    verify(bundle, everything=False)
    with pytest.raises(BackendError, match="sha256"):
        verify(bundle, everything=True)


# --- finding


def test_a_bundle_of_ones_own_is_found_by_name(paths: Paths) -> None:
    written = _write(paths.user_models / "mine")
    assert find_bundle("mine", paths) == written
    assert "mine" in [each.name for each in list_bundles(paths)]


def test_ones_own_bundle_hides_a_shipped_one_of_the_same_name(paths: Paths) -> None:
    for shipped in bundled_models().glob("*/bundle.toml"):
        own = _write(paths.user_models / shipped.parent.name, name=shipped.parent.name)
        assert find_bundle(own.name, paths).folder == own.folder


def test_an_unknown_bundle_is_not_found_with_a_suggestion_and_the_list(paths: Paths) -> None:
    _write(paths.user_models / "mine")
    with pytest.raises(NotFoundError, match=r"no model 'mime' — did you mean 'mine'\? \(installed: .*mine"):
        find_bundle("mime", paths)


@pytest.mark.parametrize("name", ["../mine", "mine/", "/", "", ".", "mine/../mine"])
def test_a_path_is_no_name(paths: Paths, name: str) -> None:
    _write(paths.user_models / "mine")
    with pytest.raises(NotFoundError):
        find_bundle(name, paths)


def test_a_renamed_folder_is_refused(paths: Paths) -> None:
    _write(paths.user_models / "other", name="mine")
    with pytest.raises(BackendError, match="calls itself 'mine'"):
        find_bundle("other", paths)


def test_a_broken_bundle_does_not_hide_the_others(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    _write(paths.user_models / "good", name="good")
    (_write(paths.user_models / "bad").folder / "bundle.toml").write_text("schema =")
    assert {"good", "bad"} <= bundle_folders(paths).keys()
    with caplog.at_level(logging.WARNING):
        names = [each.name for each in list_bundles(paths)]
    assert "good" in names
    assert "bad" not in names
    assert "bad" in caplog.text


@pytest.mark.parametrize("named", ["./other-name", "other-name/", "{folder}"])
def test_a_bundle_is_found_by_the_path_of_its_folder(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    _write(tmp_path / "other-name")
    monkeypatch.chdir(tmp_path)
    profile = Profile().on_model(named.format(folder=tmp_path / "other-name"))
    assert find_bundle(profile.model, paths).folder == tmp_path / "other-name"


def test_a_bare_name_is_never_a_folder_that_happens_to_lie_here(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match="no model 'mine'"):
        find_bundle(Profile().on_model("mine").model, paths)


def test_a_folder_without_a_manifest_is_no_model(tmp_path: Path, paths: Paths) -> None:
    with pytest.raises(NotFoundError, match="is no model folder") as caught:
        find_bundle(Profile().on_model(f"{tmp_path}/").model, paths)
    assert "padlite models list" in caught.value.remedy
