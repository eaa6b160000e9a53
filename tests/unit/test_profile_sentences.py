"""Sentences in a profile: read strictly, weighed like dimensions, written with comments kept."""

from pathlib import Path

import pytest

from padlite.errors import ProfileError
from padlite.profile import Profile, Sentence, check_dimensions, parse_profile
from padlite.profile.writing import changed_text
from padlite.seams import Dimension

TEXT = """\
name = "Ada"
[preferences]
friendly = 0.5  # a bit
[preferences.sentences]
pirate = { text = "Answer like a pirate.", weight = 0.8 }  # arr
short = { text = "Be brief." }
"""
SOURCE = Path("/somewhere/me.toml")


def with_line(line: str) -> ProfileError:
    with pytest.raises(ProfileError) as raised:
        parse_profile(f"[preferences.sentences]\n{line}\n", source=SOURCE)
    return raised.value


def test_sentences_are_read_with_their_weights_and_lines() -> None:
    profile = parse_profile(TEXT, source=SOURCE)
    assert profile.preferences == {"friendly": 0.5}
    assert profile.sentences == {
        "pirate": Sentence(text="Answer like a pirate.", weight=0.8),
        "short": Sentence(text="Be brief.", weight=1.0),
    }
    assert profile.weights == {"friendly": 0.5, "pirate": 0.8, "short": 1.0}
    assert profile.lines == {"friendly": 3, "pirate": 5, "short": 6}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("pirate = 0.8", "'pirate' must be { text, weight }, not a number with a point"),
        ('pirate = "Arr."', "must be { text, weight }, not text"),
        ("pirate = { weight = 1 }", "'pirate' has no text"),
        ('pirate = { text = "  " }', "'pirate' has no text"),
        ('pirate = { text = "Arr.", wieght = 1 }', "unknown key 'wieght' in the sentence 'pirate' — did you"),
        ('pirate = { text = "Arr.", weight = true }', "must be a number, not true or false"),
        ('pirate = { text = "Arr.", weight = inf }', "not a finite number"),
        ('pirate = { text = "Arr.", weight = 11 }', "out of range"),
        ('pirate = { text = "' + "a" * 2001 + '" }', "2,000"),
    ],
)  # fmt: skip
def test_a_sentence_that_makes_no_sense_is_refused_with_its_line(line: str, problem: str) -> None:
    error = with_line(line)
    assert problem in error.message
    assert f"{SOURCE}, line 2" in error.message
    assert error.remedy
    assert "Arr" not in error.message


def test_too_many_sentences_are_refused() -> None:
    many = "\n".join(f'a{i} = {{ text = "x" }}' for i in range(17))
    assert "17 sentences; 16 are the most" in with_line(many).message


def test_sentences_that_are_no_section_are_refused() -> None:
    with pytest.raises(ProfileError, match="sentences must be a section, not a whole number"):
        parse_profile("[preferences]\nsentences = 1", source=SOURCE)


def test_a_name_cannot_be_a_sentence_and_a_weight() -> None:
    with pytest.raises(ProfileError, match="'pirate' is both a sentence and a weight"):
        parse_profile('[preferences]\npirate = 1\n[preferences.sentences]\npirate = { text = "x" }', source=SOURCE)


def test_a_sentence_cannot_be_called_like_a_dimension_of_the_model() -> None:
    profile = parse_profile(TEXT, source=SOURCE)
    check_dimensions(profile, [Dimension(name="friendly")])
    with pytest.raises(ProfileError, match=r"line 5: the sentence 'pirate' is called like a dimension"):
        check_dimensions(profile, [Dimension(name="friendly"), Dimension(name="pirate")])


def test_a_weight_may_name_a_sentence_and_goes_before_its_own() -> None:
    profile = Profile(preferences={"pirate": 0.1}, sentences={"pirate": Sentence(text="Arr.")})
    check_dimensions(profile, [])
    assert profile.weights == {"pirate": 0.1}
    with pytest.raises(ProfileError, match="no dimension 'pirat' — did you mean 'pirate'"):
        check_dimensions(Profile(preferences={"pirat": 0.1}, sentences=profile.sentences), [])


def test_setting_a_sentences_weight_keeps_its_text_and_the_comments() -> None:
    changed = changed_text(TEXT, {"pirate": 0.5, "short": -1, "witty": 0.2}, removals=[])
    assert 'pirate = { text = "Answer like a pirate.", weight = 0.5 }  # arr' in changed
    profile = parse_profile(changed)
    assert profile.weights == {"friendly": 0.5, "witty": 0.2, "pirate": 0.5, "short": -1.0}
    assert profile.sentences["short"].text == "Be brief."


def test_a_sentence_can_be_taken_out() -> None:
    changed = changed_text(TEXT, {}, removals=["pirate"])
    assert list(parse_profile(changed).sentences) == ["short"]
    assert "friendly = 0.5  # a bit" in changed
