import stat
import tomllib
from pathlib import Path

import pytest

from padlite.errors import ProfileError, UsageError
from padlite.profile import load_profile, new_profile_text, parse_profile, set_preference, set_values
from padlite.profile.writing import changed_text, parse_value, write_profile
from padlite.seams import Dimension

COMMENTED = """\
# mine
name = "Ada"   # that's me

[preferences]  # what I like
friendly = 0.8 # a lot
# witty = 0.5
"""


def file_with(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "me.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_change_keeps_every_comment_and_the_order(tmp_path: Path) -> None:
    path = file_with(tmp_path, COMMENTED)
    profile = set_preference(path, "friendly", 0.25)
    assert path.read_text(encoding="utf-8") == COMMENTED.replace("0.8", "0.25")
    assert profile.preferences["friendly"] == 0.25
    assert load_profile(str(path)) == profile


def test_a_key_without_its_section_goes_where_it_belongs() -> None:
    text = changed_text(COMMENTED, {"temperature": 0.7, "overflow": "drop-oldest", "about": "hi", "concise": 1})
    assert tomllib.loads(text) == {
        "name": "Ada",
        "about": "hi",
        "preferences": {"friendly": 0.8, "concise": 1},
        "decoding": {"temperature": 0.7},
        "context": {"overflow": "drop-oldest"},
    }


def test_a_dimension_that_is_called_like_an_option_can_be_written_in_full() -> None:
    assert parse_profile(changed_text(COMMENTED, {"preferences.strength": 0.5})).preferences["strength"] == 0.5


def test_a_key_can_be_taken_out() -> None:
    text = changed_text(COMMENTED, {"base": "b.gguf"}, removals=["friendly"])
    assert tomllib.loads(text) == {"name": "Ada", "base": "b.gguf", "preferences": {}}
    with pytest.raises(UsageError, match="doesn't set 'friendly'"):
        changed_text(text, {}, removals=["friendly"])


@pytest.mark.parametrize(
    ("key", "value"),
    [("friendly", float("nan")), ("friendly", 11), ("temperature", -1), ("overflow", "never"), ("candidates", 0)],
)
def test_a_value_that_reading_would_refuse_is_not_written(key: str, value: float | str, tmp_path: Path) -> None:
    path = file_with(tmp_path, COMMENTED)
    with pytest.raises(ProfileError):
        set_values(path, {key: value})
    assert path.read_text(encoding="utf-8") == COMMENTED


def test_a_profile_that_is_already_broken_is_not_touched(tmp_path: Path) -> None:
    path = file_with(tmp_path, "x = = 1\n")
    with pytest.raises(ProfileError, match="line 1"):
        set_preference(path, "friendly", 0.5)
    assert path.read_text(encoding="utf-8") == "x = = 1\n"


def test_a_section_written_in_one_line_can_be_changed() -> None:
    text = changed_text("preferences = { friendly = 0.5 } # short\n", {"friendly": 1, "witty": 0.25})
    assert tomllib.loads(text)["preferences"] == {"friendly": 1, "witty": 0.25}
    assert "# short" in text


def test_a_section_written_with_dots_can_be_changed() -> None:
    text = changed_text("preferences.friendly = 0.5\n", {"friendly": 1, "about": "x"})
    assert tomllib.loads(text) == {"preferences": {"friendly": 1}, "about": "x"}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("friendly", "0.5", 0.5),
        ("friendly", "-1", -1),
        ("seed", "7", 7),
        ("decoding.temperature", ".7", 0.7),
        ("about", "0.5", "0.5"),
        ("stop", "END", ["END"]),
        ("preferences.seed", "0.5", 0.5),
        ("device", "cpu", "cpu"),
        ("gpu_layers", "0", 0),
    ],
)
def test_a_typed_value_is_read_as_its_key_wants_it(key: str, text: str, value: object) -> None:
    assert parse_value(key, text) == value


@pytest.mark.parametrize(("key", "text"), [("friendly", "very"), ("friendly", ""), ("seed", "0.5"), ("threads", "x")])
def test_a_typed_value_that_is_no_number_is_refused(key: str, text: str) -> None:
    with pytest.raises(UsageError):
        parse_value(key, text)


def test_a_new_profile_explains_itself_and_reads_back() -> None:
    dimensions = [Dimension(name="friendly", description="warm\nand kind"), Dimension(name="very dry", description="")]
    text = new_profile_text(
        name='Ada "the first"', model="tiny", dimensions=dimensions, preferences={"friendly": 0.5}, about="a\nb"
    )
    profile = parse_profile(text)
    assert (profile.name, profile.model, profile.about) == ('Ada "the first"', "tiny", "a\nb")
    assert dict(profile.preferences) == {"friendly": 0.5}
    assert "# warm and kind" in text
    assert '# "very dry" = 0.5' in text


def test_a_new_file_is_private_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "me.toml"
    write_profile(path, COMMENTED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o640)
    write_profile(path, COMMENTED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [file.name for file in path.parent.iterdir()] == ["me.toml"]


def test_a_linked_profile_stays_a_link(tmp_path: Path) -> None:
    real = file_with(tmp_path, COMMENTED)
    link = tmp_path / "link.toml"
    link.symlink_to(real)
    set_preference(link, "friendly", 0.1)
    assert link.is_symlink()
    assert load_profile(str(real)).preferences["friendly"] == 0.1


def test_text_that_is_no_unicode_leaves_the_old_profile_in_place(tmp_path: Path) -> None:
    path = file_with(tmp_path, COMMENTED)
    with pytest.raises(ProfileError):
        set_values(path, {"about": "\udcff"})
    assert path.read_text(encoding="utf-8") == COMMENTED
    assert [file.name for file in tmp_path.iterdir()] == ["me.toml"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("", encoding="utf-8")
    with pytest.raises(ProfileError, match="can't write"):
        write_profile(blocker / "me.toml", COMMENTED)
