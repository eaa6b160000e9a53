"""Text under [preferences.text]: read strictly, turned into weights by the head's map, never in front of one's own."""

import asyncio
import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from click.testing import CliRunner

import padlite
from padlite.backends import onnx_schema as onnx
from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_head_arrays import load_arrays
from padlite.backends.onnx_head_reader import read_head
from padlite.cli.profile import profile as profile_command
from padlite.dimensions.stacking import renamed, without
from padlite.errors import BackendError, ProfileError, UsageError
from padlite.opening import open_chat, open_models
from padlite.profile import Profile, parse_profile
from padlite.profile.writing import changed_text, parse_value
from padlite.text_map import TextMap
from tests import heads

SOURCE = Path("/somewhere/me.toml")
NAMES = ("gamma", "alpha")  # not all of the head's dimensions, in an order of their own


@pytest.fixture(scope="module")
def told_head(random_head: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`random_head` with a random text map for two of its three dimensions."""
    head = load_arrays(random_head)
    size = (len(NAMES), len(NAMES) + head.maps.shape[1] + 1)
    matrix = np.random.default_rng(4).standard_normal(size).astype(np.float32)
    matrix[:, -1] = 0
    path = tmp_path_factory.mktemp("told") / "reward.onnx"
    dataclasses.replace(head, text_map=TextMap(names=NAMES, matrix=0.3 * matrix)).save(path)
    return path


def profile_on(base: Path, reward: Path, text: str = "I love jokes.", **weights: float) -> Profile:
    return Profile(base=base, reward=reward, preference_text=text, preferences=weights, threads=1)


def test_the_text_is_read_and_stands_in_no_prompt() -> None:
    profile = parse_profile('[preferences]\nfriendly = 0.5\n[preferences.text]\nabout = " I love jokes. "\n')
    assert profile.preference_text == "I love jokes."
    assert profile.preferences == profile.weights == {"friendly": 0.5}
    assert profile.system_text() == ""


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("[preferences]\ntext = 0.5", "text must be a section, not a number with a point"),
        ("[preferences]\ntext = 'I keep bees.'", "text must be a section, not text"),
        ("[preferences.text]\n", "has no text in about"),
        ("[preferences.text]\nabout = ' '", "has no text in about"),
        ("[preferences.text]\nabout = 3", "has no text in about"),
        ("[preferences.text]\nabuot = 'I keep bees.'", "unknown key 'abuot' under [preferences.text] — did you mean"),
        ("[preferences.text]\nabout = 'I keep bees." + "!" * 2000 + "'", "2,000"),
    ],
)
def test_a_text_that_makes_no_sense_is_refused_with_its_line(lines: str, problem: str) -> None:
    with pytest.raises(ProfileError) as raised:
        parse_profile(lines, source=SOURCE)
    assert problem in raised.value.message
    assert f"{SOURCE}, line " in raised.value.message
    assert "bees" not in raised.value.message + raised.value.remedy


def test_the_text_is_set_and_taken_out_by_its_key() -> None:
    key = "preferences.text.about"
    assert parse_value(key, "42") == "42"
    text = changed_text("[preferences]\nfriendly = 0.5  # a bit\n", {key: "I love jokes."})
    assert "# a bit" in text
    assert parse_profile(text).preference_text == "I love jokes."
    assert parse_profile(changed_text(text, {}, removals=[key]) + "[context]").preference_text == ""


def test_a_head_keeps_its_map_when_it_is_written_renamed_and_made_smaller(told_head: Path, tmp_path: Path) -> None:
    head = load_arrays(told_head)
    head.save(tmp_path / "again.onnx")
    again = load_arrays(tmp_path / "again.onnx").text_map
    assert head.text_map is not None
    assert again is not None
    assert again.names == NAMES
    assert np.array_equal(again.matrix, head.text_map.matrix)
    called = renamed(head, "alpha", "omega").text_map
    assert called is not None
    assert called.names == ("gamma", "omega")
    smaller = without(head, "alpha")
    assert smaller is not None
    assert smaller.text_map is not None
    assert smaller.text_map.names == ("gamma",)
    smaller.save(tmp_path / "smaller.onnx")
    with OnnxHead.open(tmp_path / "smaller.onnx", device="cpu") as opened:
        assert opened.text_map is not None


def _numbers(values: object) -> str:
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode()


GOOD = _numbers(np.zeros((2, 2 + heads.D + 1)))


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("nonsense", "no JSON"),
        ([], "isn't {dimensions, matrix}"),
        ({"dimensions": ["alpha", 3], "matrix": GOOD}, "isn't {dimensions, matrix}"),
        ({"dimensions": ["alpha", "beta"], "matrix": "?" + GOOD}, "no base64"),
        ({"dimensions": ["alpha", "beta"], "matrix": GOOD[:8]}, "isn't (2, 9) float32"),
        ({"dimensions": ["alpha", "delta"], "matrix": GOOD}, "isn't for dimensions that it has"),
        ({"dimensions": ["alpha", "alpha"], "matrix": GOOD}, "isn't for dimensions that it has"),
        ({"dimensions": [], "matrix": ""}, "isn't for dimensions that it has"),
        ({"dimensions": ["alpha", "beta"], "matrix": _numbers(np.full((2, 9), np.nan))}, "isn't finite"),
    ],
)
def test_a_broken_map_is_refused(tmp_path: Path, entry: object, problem: str) -> None:
    def change(model: onnx.Model) -> None:
        added = model.metadata_props.add()
        added.key, added.value = "padlite.text_map", entry if isinstance(entry, str) else json.dumps(entry)

    path = heads.edit(heads.write_small_head(tmp_path / "reward.onnx"), change)
    with pytest.raises(BackendError) as raised:
        read_head(onnx.parse_model(path.read_bytes()))
    assert problem in raised.value.message


def test_a_map_of_another_head_is_not_written(random_head: Path, tmp_path: Path) -> None:
    head = load_arrays(random_head)
    strange = TextMap(names=("alpha",), matrix=np.zeros((1, 5), dtype=np.float32))
    with pytest.raises(UsageError, match="text map"):
        dataclasses.replace(head, text_map=strange).save(tmp_path / "reward.onnx")


def test_a_chat_weighs_what_the_text_stands_for_and_own_weights_go_first(random_base: Path, told_head: Path) -> None:
    with open_chat(profile_on(random_base, told_head)) as chat:
        told = chat.profile.text_weights
        assert set(told) == set(NAMES)
        assert all(abs(weight) >= 0.01 for weight in told.values())
        assert chat.session.weights == pytest.approx({**told, "beta": 0.0})
        prompt = chat.session.system
        assert prompt == ""
    with open_chat(profile_on(random_base, told_head, gamma=0.25)) as chat:
        assert chat.session.weights == pytest.approx({"alpha": told["alpha"], "beta": 0.0, "gamma": 0.25})
    with open_chat(profile_on(random_base, told_head, "Something else entirely.")) as chat:
        assert chat.profile.text_weights != told


def test_a_text_is_read_once_and_leaves_the_conversation_alone(random_base: Path, told_head: Path) -> None:
    profile = profile_on(random_base, told_head)
    with open_models(profile) as models:
        evaluated = models.base.evaluated_tokens
        first = models.read(profile)
        assert models.base.evaluated_tokens == evaluated
        again = models.read(dataclasses.replace(profile, preference_text="Another one."))
        assert models.base.evaluated_tokens > evaluated
        assert again.text_weights != first.text_weights
        assert models.read(Profile()).text_weights == {}


def test_a_model_without_a_map_says_so_and_how_to_go_on(random_base: Path, random_head: Path) -> None:
    with pytest.raises(ProfileError, match="no text map") as raised, open_chat(profile_on(random_base, random_head)):
        pass
    assert "--unset preferences.text.about" in raised.value.remedy
    assert "jokes" not in raised.value.message


def test_the_api_reads_texts_on_the_models_own_thread(random_base: Path, told_head: Path) -> None:
    profile = dataclasses.replace(profile_on(random_base, told_head), decoding={"max_tokens": 4})
    with padlite.open(profile) as chat:
        told = dict(chat.weights)
        assert any(told.values())
        other = chat.new(dataclasses.replace(profile, preference_text="I am in a hurry."))
        assert dict(other.weights) != told
        assert other.reply("hello").text
        assert dict(chat.fork().weights) == told

        async def ask() -> str:
            return (await chat.areply("hello")).text

        assert asyncio.run(ask())


def shown(path: Path, *options: str) -> str:
    outcome = CliRunner().invoke(profile_command, ["show", str(path), *options])
    if outcome.exception is not None:
        raise outcome.exception
    return outcome.output


@pytest.fixture
def written(random_base: Path, tmp_path: Path) -> Callable[[Path, str], Path]:
    def write(reward: Path, weights: str) -> Path:
        path = tmp_path / "me.toml"
        path.write_text(
            f"base = {json.dumps(str(random_base))}\nreward = {json.dumps(str(reward))}\n"
            f'[preferences]\n{weights}\n[preferences.text]\nabout = "I love jokes."\n',
            encoding="utf-8",
        )
        return path

    return write


def test_profile_show_lists_the_weights_so_that_they_can_be_corrected(
    written: Callable[[Path, str], Path], told_head: Path
) -> None:
    path = written(told_head, "gamma = 0.5")
    lines = shown(path).splitlines()
    assert "in words     I love jokes." in lines
    told = cast("dict[str, dict[str, dict[str, float]]]", json.loads(shown(path, "--json")))["text"]["weights"]
    assert set(told) == set(NAMES)
    alpha, gamma = (next(line for line in lines if line.startswith(name)) for name in ("alpha", "gamma"))
    assert alpha.endswith(f"{told['alpha']:+.2f}  from your text")
    assert gamma.endswith(f"+0.50  your own; your text would say {told['gamma']:+.2f}")
    assert "becomes weights" in CliRunner().invoke(profile_command, ["check", str(path)]).output


def test_profile_show_and_check_refuse_a_model_without_a_map(
    written: Callable[[Path, str], Path], random_head: Path
) -> None:
    path = written(random_head, "")
    for command in ("show", "check"):
        error = CliRunner().invoke(profile_command, [command, str(path)]).exception
        assert isinstance(error, ProfileError)
        assert "no text map" in error.message
