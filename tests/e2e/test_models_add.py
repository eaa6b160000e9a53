"""Installing, building and removing models as people type it."""

import shutil
from pathlib import Path

import pytest

from tests import heads
from tests.command_line import Home


def left_in(home: Home) -> list[str]:
    models = home.data / "models"
    return sorted(path.name for path in models.iterdir()) if models.is_dir() else []


def test_a_gguf_and_its_head_become_a_model_that_chats(home: Home, random_base: Path, random_head: Path) -> None:
    added = home.run("models", "add", str(random_base), str(random_head), "--name", "mine", "--license", "CC0-1.0")
    assert (added.returncode, added.stderr) == (0, "try: padlite chat --model mine\n")
    assert home.run("models", "verify", "mine").returncode == 0
    assert "alpha, beta, gamma" in home.run("models", "list").stdout
    chatted = home.run("chat", "--model", "mine", "-w", "alpha=1", "-p", "Hello.", "--max-tokens", "4")
    assert chatted.returncode == 0
    assert chatted.stdout.strip()

    twice = home.run("models", "add", str(random_base), "--name", "mine")
    assert twice.returncode == 2
    assert "is there already" in twice.stderr

    removed = home.run("models", "rm", "mine", "--yes")
    assert (removed.returncode, removed.stdout) == (0, "mine: removed\n")
    assert left_in(home) == []


def test_a_bundle_is_built_and_installed_from_its_folder(
    home: Home, random_base: Path, random_head: Path, tmp_path: Path
) -> None:
    made = tmp_path / "noise"
    built = home.run(
        "models", "build", "--base", str(random_base), "--reward", str(random_head), "--license", "CC0-1.0",
        "--title", "Noise", "--out", str(made),
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    again = home.run("models", "build", "--base", str(random_base), "--license", "CC0-1.0", "--out", str(made))
    assert (again.returncode, again.stderr.splitlines()[-1]) == (2, "try: choose another --out")
    assert home.run("models", "add", str(made)).returncode == 0
    assert left_in(home) == ["noise"]

    shutil.rmtree(home.data / "models")
    with (made / "base.gguf").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff" if file.read(1) != b"\xff" else b"\x00")
    damaged = home.run("models", "add", str(made))
    assert damaged.returncode == 5
    assert left_in(home) == []


@pytest.mark.parametrize("which", ["head of another base", "no gguf", "missing", "two bases", "shipped"])
def test_what_cannot_be_a_model_leaves_nothing(home: Home, random_base: Path, tmp_path: Path, which: str) -> None:
    other = heads.write_small_head(tmp_path / "other.onnx")
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    arguments, code, words = {
        "head of another base": (["add", str(random_base), str(other)], 5, "made for another base"),
        "no gguf": (["add", str(text)], 5, "is not a GGUF file"),
        "missing": (["add", str(tmp_path / "nothing.gguf")], 3, "there is no file"),
        "two bases": (["add", str(random_base), str(text)], 2, "a model is one .gguf file"),
        "shipped": (["rm", "padlite-tiny"], 2, "ships with padlite"),
    }[which]
    refused = home.run("models", *arguments)
    assert (refused.returncode, left_in(home)) == (code, [])
    assert words in refused.stderr


def test_rm_asks_first(home_with_model: Home) -> None:
    kept = home_with_model.run("models", "rm", "noise", stdin="n\n")
    assert (kept.returncode, kept.stdout) == (0, "")
    assert left_in(home_with_model) == ["noise"]


def test_rm_with_nobody_to_ask_says_how_to_go_on(home_with_model: Home) -> None:
    kept = home_with_model.run("models", "rm", "noise", stdin="")
    assert (kept.returncode, left_in(home_with_model)) == (2, ["noise"])
    assert "nobody to ask" in kept.stderr
    assert kept.stderr.splitlines()[-1] == "try: padlite models rm noise --yes"
