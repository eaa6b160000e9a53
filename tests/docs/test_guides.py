"""The code in the guides runs, in the order in which it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.reading import REPOSITORY


def _code(document: str) -> str:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("document", ["docs/api.md"])
def test_the_code_of_a_guide_runs(document: str, tmp_path: Path) -> None:
    code = _code(document)
    assert code.count("\n") > 20
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "instead of" in done.stdout
    assert "did you mean 'caring'" in done.stdout
