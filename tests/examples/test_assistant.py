"""The offline assistant in examples/assistant, driven through a pipe as a person would."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

import padlite
from tests.command_line import REPOSITORY, Home

ASSISTANT = REPOSITORY / "examples" / "assistant" / "assistant.py"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(folder=tmp_path)


def _talk(home: Home, lines: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ASSISTANT), *(arguments or ("facts.txt",))],
        input=lines, cwd=home.folder, env=home.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_it_fits_on_one_screen_and_uses_the_public_names_alone() -> None:
    text = ASSISTANT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    imports = [line for line in text.splitlines() if line.startswith(("import", "from"))]
    assert imports == ["import sys", "from pathlib import Path", "import padlite"]


def test_it_remembers_lists_and_forgets_in_a_file_of_the_persons_own(home: Home) -> None:
    done = _talk(
        home,
        "Remember that my sister is called Ann\nremember that I like tea\n\nWhat do you remember?\n"
        "forget TEA\nwhat do you remember?\n",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "I will remember that.", "I will remember that.", "my sister is called Ann", "I like tea", "Forgotten: 1.",
        "my sister is called Ann",
    ]  # fmt: skip
    file = home.folder / "facts.txt"
    assert file.read_text(encoding="utf-8") == "my sister is called Ann\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_model_is_told_the_facts_that_stand_in_the_file(home: Home) -> None:
    (home.folder / "facts.txt").write_text("I work at night.\n", encoding="utf-8")
    done = _talk(home, "What should I do today?\nThanks!\n")
    assert (done.returncode, done.stderr) == (0, "")
    with padlite.open() as chat:
        chat.system = "I work at night."
        assert done.stdout == f"{chat.reply('What should I do today?').text}\n{chat.reply('Thanks!').text}\n"


def test_what_does_not_fit_is_said_and_the_assistant_goes_on(home: Home) -> None:
    done = _talk(home, f"{'word ' * 5000}\nHello!\n")
    assert done.returncode == 0
    assert "1,024" in done.stderr
    assert "begin anew" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("arguments", [("facts.txt", "nobody"), ("nobody/facts.txt",)])
def test_a_profile_or_a_folder_that_is_not_there_is_said_without_a_traceback(
    home: Home, arguments: tuple[str, ...]
) -> None:
    done = _talk(home, "remember that it rains\n", *arguments)
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert "Traceback" not in done.stderr
