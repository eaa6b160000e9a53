import contextlib
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from padlite.errors import ProfileError
from padlite.profile import new_profile_text, parse_profile
from padlite.profile.lines import line_of_key
from padlite.profile.writing import changed_text
from padlite.seams import Dimension

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
names = texts.filter(lambda text: bool(text.strip()))
weights = st.floats(-10, 10)
preferences = st.dictionaries(names, weights, max_size=5)


@given(name=names, about=texts, weights=preferences, spare=st.lists(names, unique=True, max_size=3))
def test_a_new_profile_reads_back_what_was_put_in(
    name: str, about: str, weights: dict[str, float], spare: list[str]
) -> None:
    dimensions = [Dimension(name=dimension, description=about) for dimension in spare]
    text = new_profile_text(name=name, model="m", dimensions=dimensions, preferences=weights, about=about)
    profile = parse_profile(text)
    assert profile.name == name
    assert dict(profile.preferences) == weights


@given(before=preferences, changes=preferences, about=names)
def test_changing_some_weights_changes_nothing_else(
    before: dict[str, float], changes: dict[str, float], about: str
) -> None:
    text = new_profile_text(name="Ada", model="m", preferences=before, about=about)
    changed = changed_text(text, {f"preferences.{name}": weight for name, weight in changes.items()})
    assert dict(parse_profile(changed).preferences) == {**before, **changes}
    assert parse_profile(changed).about == parse_profile(text).about
    assert [line for line in changed.splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith("#")
    ]


@given(text=st.one_of(st.text(), st.from_regex(r"(\[[a-z.]*\]|[a-z.\"']+ ?= ?[-0-9a-z.\"'\[{]+|\n)*", fullmatch=True)))
def test_any_text_is_a_profile_or_a_profile_error(text: str) -> None:
    with contextlib.suppress(ProfileError):
        parse_profile(text, source=Path("/x/me.toml"))


pieces = st.sampled_from(
    [
        "# a = 1\n",
        "\n",
        "about = '''\nwanted = 1\n[preferences]\n'''\n",
        'system = """\nwanted = 1 # " \\""""\n',
        "stop = [ # wanted = 1\n  'wanted = 1', ']',\n]\n",
        'x = { y = "wanted = 1", z = [1, 2] }\n',
        '"a # b" = "c # d"\n',
        "[section]\n",
        "a.b.c = 1\n",
        '  quoted."wanted" = 1   # text\n',
    ]
)


@given(before=st.lists(pieces, unique=True), after=st.lists(pieces, unique=True), quoted=st.booleans())
def test_a_keys_line_is_found_wherever_it_stands(before: list[str], after: list[str], *, quoted: bool) -> None:
    key = "'wanted'" if quoted else "wanted"
    text = "".join(before) + "[preferences]\n" + f" {key} = 0.5\n" + "".join(after)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    line = line_of_key(text, ("preferences", "wanted"))
    assert line == "".join(before).count("\n") + 2


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("\npreferences = { wanted = 1 }\n", ("preferences", "wanted"), 2),
        ("a = 1\n\npreferences.wanted = 1\n", ("preferences", "wanted"), 3),
        ("[preferences.wanted]\n", ("preferences", "wanted"), 1),
        ("[[preferences]]\nwanted = 1\n", ("preferences", "wanted"), 2),
        ("a = 1\r\nwanted = 1\r\n", ("wanted",), 2),
        ("a = 1\n", ("wanted",), None),
    ],
)
def test_a_keys_line_is_found_in_every_layout(text: str, path: tuple[str, ...], line: int | None) -> None:
    assert line_of_key(text, path) == line
