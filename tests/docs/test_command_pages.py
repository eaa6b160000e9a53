"""docs/cli.md, docs/profile.md and docs/models.md say what the program does."""

import re
from collections.abc import Iterator

import click
import pytest

from padlite import errors
from padlite.cli import cli
from padlite.profile import parse_profile
from padlite.profile.keys import SECTIONS, TOP_LEVEL
from padlite.pulling import wanted
from tests.docs.reading import REPOSITORY, marked

PAGE = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
PROFILES = (REPOSITORY / "docs" / "profile.md").read_text(encoding="utf-8")


def commands(group: click.Group, path: str) -> Iterator[tuple[str, str]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield path, name


@pytest.mark.parametrize(("path", "name"), list(commands(cli, "padlite")))
def test_every_command_is_in_the_table(path: str, name: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{path} ")]
    assert [row for row in rows if re.search(rf"`(padlite )?([a-z]+ )?{name}`", row)]


def test_every_exit_code_of_an_error_is_in_the_table() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, flags=re.MULTILINE)}
    raised = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.PadliteError)
    }
    assert raised <= documented
    assert {0, 129, 130, 141, 143} <= documented


@pytest.mark.parametrize("key", [*TOP_LEVEL, *(key for keys in SECTIONS.values() for key in keys)])
def test_every_key_of_a_profile_is_explained(key: str) -> None:
    assert re.search(rf"^\|[^|]*`{key}`", PROFILES, flags=re.MULTILINE)


def test_the_models_that_are_recommended_are_named_as_pull_takes_them() -> None:
    page = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
    named = re.findall(r"^\|.*`padlite models pull (\S+)` \|$", page, flags=re.MULTILINE)
    assert len({wanted(name).repository for name in named}) == len(named) > 4


def test_the_example_is_a_profile() -> None:
    assert parse_profile(marked("docs/profile.md", "profile").text).preferences["friendly"] == 0.8
