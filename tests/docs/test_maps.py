"""The maps of the code name what is there: functions and tests by their path, and every module."""

import ast
import re

import pytest

from tests.docs.reading import REPOSITORY

REFERENCES = re.findall(r"`([\w/]+\.py)::(\w+)`", (REPOSITORY / "docs" / "paper-map.md").read_text(encoding="utf-8"))


def test_the_paper_map_ties_formulas_to_functions_and_tests() -> None:
    assert {"scoring.py", "decode.py", "test_scoring.py"} <= {path.rsplit("/", 1)[1] for path, _ in REFERENCES}


@pytest.mark.parametrize(("path", "name"), sorted(set(REFERENCES)))
def test_what_the_paper_map_names_exists(path: str, name: str) -> None:
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert name in defined


def test_the_architecture_page_has_a_line_for_every_module() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = {
        str(path.relative_to(REPOSITORY)).replace("/__init__.py", "/")
        for path in (REPOSITORY / "padlite").rglob("*.py")
        if not path.name.startswith("__") or path.read_text(encoding="utf-8").count("\n") > 20
    }
    assert sorted(module for module in modules if f"`{module}`" not in page) == []


def test_the_architecture_page_names_no_module_that_is_gone() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(padlite/[^`]*)`", page, flags=re.MULTILINE)
    assert named
    assert [path for path in named if not (REPOSITORY / path).exists()] == []
