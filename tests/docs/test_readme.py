"""What the documents tell people to type works, and what they point at exists."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from padlite import settings
from padlite.profile import parse_profile
from tests.docs.reading import REPOSITORY, blocks, commands, marked, transcript

DOCUMENTS = [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md",
    *sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").glob("*.md")),
]  # fmt: skip


@pytest.mark.parametrize("name", ["install", "test", "training", "export", "integrations", "checks"])
def test_ci_types_what_the_documents_say(name: str) -> None:
    printed = _ci_prints(name)
    document = "CONTRIBUTING.md" if name in {"integrations", "checks"} else "README.md"
    assert printed.stdout == marked(document, f"ci: {name}").text


def _ci_prints(name: str) -> subprocess.CompletedProcess[str]:
    command = [".ci/run", "--print", name]
    return subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)


def test_installing_and_testing_are_one_line_each() -> None:
    assert marked("README.md", "ci: install").text == "pip install . && padlite chat --profile examples/me.toml\n"
    assert marked("README.md", "ci: test").text == "pip install -e '.[test]' && pytest\n"


def test_ci_refuses_a_name_that_no_document_marks() -> None:
    outcome = subprocess.run(
        [".ci/run", "--print", "nothing"], cwd=REPOSITORY, check=False, capture_output=True, text=True
    )
    assert outcome.returncode != 0
    assert "ci: nothing" in outcome.stderr


def _type(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run *command* in a shell as somebody whose home folder is *home*, in a folder that has the examples."""
    (home / "examples").symlink_to(REPOSITORY / "examples")
    environment = {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(("command", "printed"), transcript("README.md"))
def test_the_answers_in_the_readme_are_the_ones_that_the_model_gives(
    command: str, printed: str, tmp_path: Path
) -> None:
    outcome = _type(command, tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert outcome.stdout.strip() == printed


def test_the_readme_shows_what_each_weight_changes() -> None:
    answers = [printed for _, printed in transcript("README.md")]
    assert len(answers) == len(set(answers)) == 4


@pytest.mark.parametrize("command", commands("README.md"))
def test_a_command_of_the_readme_works(command: str, tmp_path: Path) -> None:
    outcome = _type(command, tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    answers = [path for path in tmp_path.iterdir() if path.suffix == ".json"]
    assert outcome.stdout.strip() or answers


def test_the_profile_in_the_readme_is_the_example_without_its_comments() -> None:
    shown = tomllib.loads(marked("README.md", "profile").text)
    example = tomllib.loads((REPOSITORY / "examples" / "me.toml").read_text(encoding="utf-8"))
    assert shown == {key: value for key, value in example.items() if key in shown}
    assert shown["decoding"] == example["decoding"]


def test_every_key_that_the_example_keeps_in_a_comment_is_a_key_that_padlite_knows() -> None:
    text = (REPOSITORY / "examples" / "me.toml").read_text(encoding="utf-8")
    uncommented = re.sub(r"^# (?=(\w+ = |\[\w+\]))", "", text, flags=re.MULTILINE)
    assert len(tomllib.loads(uncommented)["decoding"]) == 10
    uncommented = re.sub(r"^model = .*\n", "", uncommented, flags=re.MULTILINE)  # a profile has a bundle or a base
    profile = parse_profile(uncommented, source=REPOSITORY / "examples" / "me.toml")
    assert profile.preferences["friendly"] == 0.8


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_inside_the_repository_lead_somewhere(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)", text):
        assert ((REPOSITORY / document).parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_a_heading_find_it(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", text):
        page = (REPOSITORY / document).parent / target if target else REPOSITORY / document
        headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert anchor in {_anchor(heading) for heading in headings}, f"{target}#{anchor}"


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub gives *heading*."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_document_is_left_half_written(document: str) -> None:
    assert "TODO" not in (REPOSITORY / document).read_text(encoding="utf-8")


def test_the_readme_names_every_command() -> None:
    from padlite.cli import COMMANDS

    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [command.name for command in COMMANDS if f"`padlite {command.name}" not in text] == []


def test_the_readme_states_every_exit_code() -> None:
    from padlite import errors

    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.PadliteError)
    }
    (sentence,) = re.findall(
        r"^Exit codes: (.*)$", (REPOSITORY / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert codes | {0} <= {int(code) for code in re.findall(r"\d+", sentence)}


def test_the_model_that_the_readme_promises_is_there() -> None:
    assert (settings.bundled_models() / "padlite-tiny" / "bundle.toml").is_file()


def test_marked_blocks_are_the_kinds_that_the_tests_know() -> None:
    checked = ("install", "test", "training", "export", "integrations", "checks")
    kinds = {"run", "run: output", "profile", *(f"ci: {name}" for name in checked)}
    assert {block.marker for document in DOCUMENTS for block in blocks(document)} - {""} <= kinds


def test_the_installation_page_explains_every_dependency() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]}  # type: ignore[index]
    page = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\| package \| why it is there \|\n\|---\|---\|\n((?:\|.*\n)+)", page)
    listed = {name for row in table.splitlines() for name in row.split("|")[1].strip().split(", ")}
    assert listed == names
