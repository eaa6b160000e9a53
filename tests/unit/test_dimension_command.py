"""What `padlite dimension add` suggests when it is done: a chat that has the new dimension."""

import os
from pathlib import Path

import pytest

from padlite.bundle import write_manifest
from padlite.cli.dimension import _model_option_for, _shelf  # pyright: ignore[reportPrivateUsage]
from padlite.errors import UsageError
from padlite.settings import Paths, paths
from tests.heads import NAMES, write_small_head


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Empty folders of one person."""
    for name in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"PADLITE_{name}_DIR", str(tmp_path / name.lower()))
    return paths()


def bundle_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "base.gguf").write_bytes(b"GGUF")
    write_small_head(folder / "reward.onnx")
    write_manifest(folder, name="noise", license="CC0-1.0")
    return folder


def profile(mine: Paths, text: str) -> None:
    mine.profiles.mkdir(parents=True, exist_ok=True)
    (mine.profiles / "me.toml").write_text(text, encoding="utf-8")


def suggested(model: str | None) -> str:
    """What is suggested after the head of *model* was changed, as by an added dimension."""
    shelf = _shelf(model)
    return _model_option_for(shelf, shelf.save(shelf.required), model)


def test_a_model_that_is_used_anyway_is_not_named(mine: Paths) -> None:
    bundle_in(mine.user_models / "noise")
    profile(mine, 'model = "noise"')
    assert suggested(None) == ""
    assert suggested("noise") == ""


def test_a_bundle_named_by_its_folder_is_then_the_copy(mine: Paths, tmp_path: Path) -> None:
    folder = bundle_in(tmp_path / "a shared folder" / "noise")
    assert suggested(str(folder)) == " --model noise"
    assert _shelf("noise").require().names == NAMES


@pytest.mark.parametrize("text", ['model = "gone"', 'model = "other"'])
def test_another_model_than_the_profiles_is_named(text: str, mine: Paths) -> None:
    bundle_in(mine.user_models / "noise")
    profile(mine, text)
    assert suggested("noise") == " --model noise"


def test_a_path_with_spaces_can_be_typed_as_it_is_suggested(mine: Paths, tmp_path: Path) -> None:
    base = tmp_path / "my model.gguf"
    base.write_bytes(b"GGUF")
    head = mine.heads / "any" / "reward-000002.onnx"
    assert _model_option_for(_shelf(str(base)), head, str(base)) == f" --model '{base}'"


def test_a_profile_with_a_reward_model_of_its_own_is_refused_unless_a_model_is_named(
    mine: Paths, tmp_path: Path
) -> None:
    bundle_in(mine.user_models / "noise")
    head = write_small_head(tmp_path / "other.onnx")
    profile(mine, f'model = "noise"{os.linesep}reward = "{head}"')
    with pytest.raises(UsageError, match="the profile has a reward model of its own") as raised:
        _shelf(None)
    assert raised.value.remedy.startswith("--model noise")
    assert suggested("noise") == " --model noise"
