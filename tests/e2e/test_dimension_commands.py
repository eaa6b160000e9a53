"""`padlite dimension …` as a person types it: on the bundled model, and on a GGUF file without any head."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from padlite.settings import bundled_models
from tests.command_line import Home

QUICK = ("--answers", "60", "--threads", "1")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(folder=tmp_path)


def chosen(home: Home, *words: str) -> list[str]:
    """The dimensions that `dimension list` shows."""
    return [each["name"] for each in json.loads(home.run("dimension", "list", "--json", *words).stdout)]


@pytest.mark.skipif(not (bundled_models() / "padlite-tiny").exists(), reason="the bundled model isn't there yet")
def test_a_sentence_becomes_a_dimension_of_the_bundled_model_and_goes_again(home: Home) -> None:
    shipped = chosen(home)
    made = home.run(
        "dimension", "add", "merry", "--sentence", "Be enthusiastic.", *QUICK, "--answers", "400", timeout_s=280
    )
    assert made.returncode == 0, made.stderr
    assert "learned" in made.stdout
    assert chosen(home) == [*shipped, "merry"]
    assert home.run("models", "verify").returncode == 0
    assert "of the sentence's own" in home.run("dimension", "show", "merry").stdout
    answer = json.loads(home.run("chat", "-p", "Hello", "--json", "-w", "merry=1", "-n", "8", "--threads", "1").stdout)
    assert answer["weights"]["merry"] == 1.0
    assert (bundled_models() / "padlite-tiny" / "reward.onnx").exists()

    again = home.run("dimension", "add", "merry", "--sentence", "Be enthusiastic.")
    assert again.returncode == 2
    assert "there is a dimension 'merry' already" in again.stderr

    assert home.run("dimension", "rename", "merry", "jolly").returncode == 0
    assert chosen(home) == [*shipped, "jolly"]
    assert home.run("dimension", "rm", "jolly").returncode == 0
    assert chosen(home) == shipped
    assert home.run("models", "verify").returncode == 0
    folders = [path.name for path in home.data.joinpath("harvests").iterdir()]
    assert folders == []


def test_a_gguf_without_a_template_or_that_is_none_is_refused(
    home: Home, random_base_without_template: Path, tmp_path: Path
) -> None:
    words = ("dimension", "add", "pirate", "--sentence", "Answer like a pirate.", *QUICK, "--model")
    refused = home.run(*words, str(random_base_without_template))
    assert refused.returncode == 5
    assert "has no chat template" in refused.stderr
    (tmp_path / "text.gguf").write_text("hello", encoding="utf-8")
    assert "is not a GGUF file" in home.run(*words, str(tmp_path / "text.gguf")).stderr
    assert home.run(*words, str(tmp_path / "none.gguf")).returncode == 3


def test_a_killed_run_goes_on_with_the_answers_it_had(home: Home, random_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "mine.gguf"
    shutil.copyfile(random_base, base)
    words = ["dimension", "add", "pirate", "-s", "Answer like a pirate.", "--model", str(base), *QUICK]
    program = subprocess.Popen(
        [sys.executable, "-m", "padlite", *words], env=home.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    harvests = home.data / "harvests"
    deadline = time.monotonic() + 120
    while not list(harvests.glob("*/0000.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    program.send_signal(signal.SIGKILL)
    program.communicate()
    first = next(harvests.glob("*/0000.npz"))
    written = first.stat().st_mtime_ns
    ended = home.run(*words, timeout_s=200)
    assert ended.returncode in {0, 1}  # a random base may have nothing to teach; then it says so
    assert "Traceback" not in ended.stderr
    if ended.returncode:
        assert "try:" in ended.stderr
        assert first.stat().st_mtime_ns == written
    else:
        assert chosen(home, "--model", str(base)) == ["pirate"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("add", "pirate"), "there are 1 name and 0 sentences"),
        (("add", "a", "b", "-s", "One."), "there are 2 names and 1 sentence;"),
        (("add", "a", "a", "-s", "One.", "-s", "Two."), "'a' is named twice"),
        (("add", "a", "-s", "  "), "the sentence of 'a' is empty"),
        (("add", "a/b", "-s", "One."), "can't be the name of a dimension"),
        (("add", "sentences", "-s", "One."), "can't be called 'sentences'"),
        (("add", "a", "-s", "One.", "--answers", "3"), "--answers"),
        (("rm", "wity"), "there is no dimension 'wity' — did you mean 'witty'"),
        (("rename", "witty", "caring"), "there is a dimension 'caring' already"),
        (("show", "x", "-m", "padlite-tyni"), "did you mean 'padlite-tiny'"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(home: Home, words: tuple[str, ...], problem: str) -> None:
    refused = home.run("dimension", *words)
    assert refused.returncode in {2, 3}
    assert problem in refused.stderr
    assert "try:" in refused.stderr
    assert "One." not in refused.stderr
