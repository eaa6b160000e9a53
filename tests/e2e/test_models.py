"""`padlite models` as people run it."""

import json

import pytest

from tests.command_line import Home


def test_list_shows_each_model_with_what_it_can_do_and_where_it_lives(home_with_model: Home) -> None:
    outcome = home_with_model.run("models", "list")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    (line,) = [line for line in outcome.stdout.splitlines() if line.startswith("noise")]
    assert "alpha, beta, gamma" in line
    assert "CC0-1.0" in line
    assert "data/models/noise" in line


def test_list_says_on_stderr_which_models_cannot_be_used(home_with_model: Home) -> None:
    broken = home_with_model.data / "models" / "broken"
    broken.mkdir()
    (broken / "bundle.toml").write_text("schema = ", encoding="utf-8")
    outcome = home_with_model.run("models", "list")
    assert outcome.returncode == 0
    assert "broken can't be used: " in outcome.stderr
    assert "noise" in outcome.stdout


def test_everything_comes_as_json_too(home_with_model: Home) -> None:
    folder = str(home_with_model.data / "models" / "noise")
    listed = json.loads(home_with_model.run("models", "list", "--json").stdout)
    assert folder in [each["folder"] for each in listed]
    shown = json.loads(home_with_model.run("models", "show", "noise", "--json").stdout)
    assert [each["name"] for each in shown["dimensions"]] == ["alpha", "beta", "gamma"]
    assert {each["name"] for each in shown["files"]} == {"base.gguf", "reward.onnx"}
    assert shown["bytes"] == sum(each["bytes"] for each in shown["files"])
    assert json.loads(home_with_model.run("models", "verify", "noise", "--json").stdout)["ok"] is True
    assert json.loads(home_with_model.run("models", "path", "noise", "--json").stdout)["folder"] == folder


def test_show_says_what_is_in_a_model(home_with_model: Home) -> None:
    outcome = home_with_model.run("models", "show", "noise")
    assert outcome.returncode == 0
    for words in ("noise: Noise", "CC0-1.0", "the base model's own", "alpha", "base.gguf", "sha256", "seed"):
        assert words in outcome.stdout


def test_path_prints_only_the_folder_for_use_in_scripts(home_with_model: Home) -> None:
    outcome = home_with_model.run("models", "path", "noise")
    assert outcome.stdout == f"{home_with_model.data / 'models' / 'noise'}\n"


def test_verify_passes_unchanged_files_and_names_a_changed_one(home_with_model: Home) -> None:
    assert home_with_model.run("models", "verify", "noise").returncode == 0
    file = home_with_model.data / "models" / "noise" / "reward.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    outcome = home_with_model.run("models", "verify", "noise")
    assert outcome.returncode == 5
    assert "reward.onnx of model 'noise' is damaged" in outcome.stderr
    assert outcome.stdout == ""


@pytest.mark.parametrize("command", ["show", "verify", "path"])
def test_an_unknown_model_comes_with_a_suggestion(home_with_model: Home, command: str) -> None:
    outcome = home_with_model.run("models", command, "noize")
    assert outcome.returncode == 3
    assert "there is no model 'noize' — did you mean 'noise'?" in outcome.stderr
    assert outcome.stdout == ""


def test_an_unknown_command_comes_with_a_suggestion(home: Home) -> None:
    outcome = home.run("models", "lst")
    assert outcome.returncode == 2
    assert "did you mean 'list'?" in outcome.stderr
