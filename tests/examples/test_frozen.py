"""The assistant frozen by PyInstaller: padlite's hook finds everything, and what comes out is small and runs alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import REPOSITORY

pytest.importorskip("PyInstaller", reason="needs PyInstaller: pip install pyinstaller")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_frozen_assistant_is_small_and_answers_where_there_is_no_python(tmp_path: Path) -> None:
    build = REPOSITORY / "examples" / "frozen" / "build.py"
    done = subprocess.run([sys.executable, str(build), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    size, *said = done.stdout.splitlines()
    assert float(size.rsplit(" ", 2)[1]) <= 150
    assert said[:2] == ["I will remember that.", "I like tea"]
