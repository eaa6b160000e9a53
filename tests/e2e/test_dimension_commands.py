"""`padlite dimension …` as a person types it: on the bundled model, and on a GGUF file without any head."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from padlite.dimensions.plan import Plan, Share
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
    words = ("dimension", "add", "merry", "--sentence", "Be enthusiastic.", *QUICK, "--answers", "400")
    with started(home, *words) as program:
        wait_for(lambda: list(home.data.glob("harvests/*/0000.npz")))
        assert home.run("dimension", "rename", shipped[0], "first").returncode == 0  # what others do is not undone
        said, errors = program.communicate(timeout=280)
    assert program.returncode == 0, errors
    assert "learned" in said
    assert f"added to {home.data / 'models' / 'padlite-tiny' / 'reward-000003.onnx'}" in said
    assert "try: padlite chat --weight merry=1" in errors
    shipped[0] = "first"
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
    base, prompts = tmp_path / "mine.gguf", tmp_path / "prompts.txt"
    shutil.copyfile(random_base, base)
    prompts.write_text("\n".join(f"Tell me about {number}." for number in range(20)), encoding="utf-8")
    words = ["dimension", "add", "pirate", "-s", "Answer like a pirate.", "--model", str(base), *QUICK]
    words += ["--prompts", str(prompts)]
    harvests = home.data / "harvests"
    with started(home, *words) as program:
        wait_for(lambda: list(harvests.glob("*/0000.npz")))
        second = home.run(*words)
        assert second.returncode == 1
        assert "this dimension is being made by another padlite process" in second.stderr
        program.send_signal(signal.SIGKILL)
        program.communicate()
    there = {path: path.stat().st_mtime_ns for path in harvests.glob("*/*.npz")}
    seen: dict[Path, set[int]] = {path: set() for path in there}
    with started(home, *words) as program:
        while program.poll() is None:
            for path in there:
                with contextlib.suppress(FileNotFoundError):
                    seen[path].add(path.stat().st_mtime_ns)
            time.sleep(0.02)
        _, said = program.communicate()
    assert seen == {path: {written} for path, written in there.items()}
    assert program.returncode in {0, 1}  # a random base may have nothing to teach; then it says so
    assert "Traceback" not in said
    if program.returncode:
        assert "try:" in said
    else:
        assert chosen(home, "--model", str(base)) == ["pirate"]
        assert list(harvests.iterdir()) == []


def test_what_cannot_become_a_dimension_is_refused_before_anything_is_answered(
    home_with_model: Home, random_base: Path, tmp_path: Path
) -> None:
    home, prompts = home_with_model, tmp_path / "prompts.txt"
    lines = [f"Tell me about {number}." for number in range(1000)]
    prompts.write_text("\n".join(lines), encoding="utf-8")
    add = ("dimension", "add", "pirate", "-s")
    words = (*add, "Answer like a pirate.", *QUICK, "--prompts", str(prompts))

    long = tmp_path / "long.txt"
    long.write_text("\n".join([*lines[:20], "xyz " * 1000]), encoding="utf-8")
    refused = home.run(*words, "--prompts", str(long))
    assert refused.returncode == 2
    assert "prompt 21 (xyz xyz" in refused.stderr
    assert len(refused.stderr) < 300

    refused = home.run(*add, "xyz " * 450, *QUICK)
    assert refused.returncode == 2
    assert "the sentence of 'pirate' has" in refused.stderr

    refused = home.run(*add, "Be \udcff.")
    assert refused.returncode == 2
    assert "the sentence of 'pirate' is not valid UTF-8" in refused.stderr

    refused = home.run(*words, "--seed", str(seed_with_nothing_to_judge_by(tuple(lines), answers=60)))
    assert refused.returncode == 2
    assert "60 answers are too few" in refused.stderr

    elsewhere = tmp_path / "a copy of it" / "noise"
    shutil.copytree(home.data / "models" / "noise", elsewhere)
    refused = home.run(*words, "--model", str(elsewhere))
    assert refused.returncode == 2
    assert "try: change that one: --model noise" in refused.stderr
    assert home.run("dimension", "rename", "alpha", "first", "--model", str(elsewhere)).returncode == 2

    head = home.data / "models" / "noise" / "reward.onnx"
    home.profile().write_text(f'base = "{random_base}"\nreward = "{head}"\n', encoding="utf-8")
    refused = home.run(*words)
    assert refused.returncode == 2
    assert "the profile has a reward model of its own" in refused.stderr
    assert list((home.data / "harvests").iterdir()) == []


def seed_with_nothing_to_judge_by(prompts: tuple[str, ...], *, answers: int) -> int:
    """A seed by which the first prompts aren't for everything, as one of some 300 is."""
    plans = (Plan(base_fingerprint="", sentences=(), prompts=prompts, answers=answers, seed=n) for n in range(10_000))
    return next(plan.seed for plan in plans if len(set(plan.shares()[:answers])) < len(Share))


@contextlib.contextmanager
def started(home: Home, *words: str) -> "Iterator[subprocess.Popen[str]]":
    """A padlite that runs beside the test, and no longer than it."""
    with subprocess.Popen(
        [sys.executable, "-m", "padlite", *words], env=home.environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, encoding="utf-8",
    ) as program:  # fmt: skip
        try:
            yield program
        finally:
            program.kill()


def wait_for(found: Callable[[], object], *, timeout_s: float = 120) -> None:
    """Wait until there is what is *found*."""
    deadline = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
