"""The plugin in the real `llm`: its command line in a process of its own, and its Python API."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import padlite

llm = pytest.importorskip("llm", reason="needs llm: pip install integrations/llm-padlite")
pytest.importorskip("llm_padlite", reason="needs the plugin: pip install integrations/llm-padlite")

QUESTION = "What should I do today?"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the profile `ada`, who wants it caring."""
    for name in ("PADLITE_CONFIG_DIR", "PADLITE_DATA_DIR", "LLM_USER_PATH", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "ada.toml").write_text("[preferences]\ncaring = 1.0\n", encoding="utf-8")
    return tmp_path


def _llm(*words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "llm", *words]
    return subprocess.run(
        command, input=stdin, env=os.environ, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def plain() -> str:
    with padlite.open() as chat:
        return chat.reply(QUESTION).text


@pytest.fixture(scope="module")
def caring() -> str:
    with padlite.open(padlite.Profile(preferences={"caring": 1.0})) as chat:
        return chat.reply(QUESTION).text


def test_each_profile_is_a_model(home: Path) -> None:
    listed = _llm("models").stdout
    assert ": padlite (" in listed or ": padlite\n" in listed
    assert "padlite@ada" in listed


@pytest.mark.parametrize("words", [["-m", "padlite@ada"], ["-m", "padlite", "-o", "weights", "caring=1"]])
def test_a_profile_and_weights_steer_the_answer(home: Path, words: list[str], plain: str, caring: str) -> None:
    assert plain != caring
    done = _llm("prompt", *words, QUESTION)
    assert (done.returncode, done.stdout, done.stderr) == (0, caring + "\n", "")
    assert _llm("prompt", "-m", "padlite", "--no-stream", QUESTION).stdout == plain + "\n"


def test_llm_chat_goes_on_from_what_was_said(home: Path) -> None:
    done = _llm("chat", "-m", "padlite", stdin=f"{QUESTION}\nThanks!\nquit\n")
    assert done.returncode == 0, done.stderr
    with padlite.open() as chat:
        first, second = chat.reply(QUESTION).text, chat.reply("Thanks!").text
        chat.clear()
        assert second != chat.reply("Thanks!").text, "pick another question: this one tells nothing"
    assert first in done.stdout
    assert second in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "weights", "carring=1"], "did you mean 'caring'"),
        (["-o", "weights", "caring"], "is no dimension=number"),
        (["-o", "temperature", "-3"], "temperature"),
        (["-o", "humour", "1"], "humour"),
        (["--schema", "name str, age int"], "does not support schemas"),
    ],
)
def test_what_cannot_be_done_is_one_line(home: Path, words: list[str], said: str) -> None:
    done = _llm("prompt", "-m", "padlite", *words, QUESTION)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_in_a_program_answers_come_with_usage_and_a_system_text_is_heard(home: Path, plain: str) -> None:
    model = llm.get_model("padlite")
    response = model.prompt(QUESTION, max_tokens=3)
    text = response.text()
    assert plain.startswith(text)
    assert response.usage().output == 3
    with padlite.open() as chat:
        chat.system = "Be witty."
        assert model.prompt(QUESTION, system="Be witty.").text() == chat.reply(QUESTION).text


def test_an_event_loop_gets_the_same_answer(home: Path, caring: str) -> None:
    async def ask() -> str:
        response = await llm.get_async_model("padlite").prompt(QUESTION, weights="caring=1")
        return str(await response.text())

    assert asyncio.run(ask()) == caring
