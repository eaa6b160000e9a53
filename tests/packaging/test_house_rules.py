"""Rules of the house that no linter knows: who reads the environment, what modules are called, what importing does."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import REPOSITORY

RUNTIME = sorted((REPOSITORY / "padlite").rglob("*.py"))
EVERYTHING = [
    *RUNTIME,
    *sorted((REPOSITORY / "training").rglob("*.py")),
    *sorted((REPOSITORY / "benchmarks").rglob("*.py")),
]


def _names(path: Path) -> set[str]:
    """Return every dotted name that *path* uses, like `os.environ`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)}


def test_only_the_settings_read_the_environment() -> None:
    allowed = {REPOSITORY / "padlite" / "settings.py", REPOSITORY / "padlite" / "__init__.py"}
    reading = {path for path in RUNTIME if _names(path) & {"os.environ", "os.getenv", "environ", "getenv"}}
    assert reading <= allowed
    assert REPOSITORY / "padlite" / "settings.py" in reading


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_module_is_named_after_a_concept_and_says_what_it_is_for(path: Path) -> None:
    assert path.stem not in {"utils", "util", "common", "helpers", "helper", "misc"}
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "no module docstring"


def test_importing_padlite_switches_telemetry_off_and_loads_no_engine() -> None:
    program = "import os, sys, padlite; print(os.environ['ORT_DISABLE_TELEMETRY'], *sorted(sys.modules))"
    outcome = subprocess.run([sys.executable, "-c", program], env={}, check=True, capture_output=True, text=True)
    telemetry, *modules = outcome.stdout.split()
    assert telemetry == "1"
    assert not {"numpy", "llama_cpp", "onnxruntime", "click", "rich"} & set(modules)


def test_somebody_who_wants_telemetry_can_have_it() -> None:
    program = "import os, padlite; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {"ORT_DISABLE_TELEMETRY": "0"}
    outcome = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert outcome.stdout == "0\n"
