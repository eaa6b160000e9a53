from pathlib import Path

import pytest

from padlite.errors import NotFoundError, ProfileError, UsageError
from padlite.options import DecodingOptions, OverflowPolicy
from padlite.profile import (
    Profile,
    check_dimensions,
    chosen_profile,
    list_profiles,
    load_profile,
    parse_profile,
    profile_path,
)
from padlite.seams import Dimension
from padlite.settings import Paths

FULL = """\
name = "Ada"
model = "padlite-tiny"
reward = "heads/mine.onnx"
about = "I keep bees."
system = "Be brief."
[preferences]
friendly = 0.8
witty = -1
[decoding]
strength = 2
candidates = 5
seed = 7
stop = ["END"]
[engine]
context_length = 512
threads = 3
gpu_layers = 0
[context]
overflow = "drop-oldest"
"""
SOURCE = Path("/somewhere/me.toml")


def refusal(text: str) -> ProfileError:
    with pytest.raises(ProfileError) as raised:
        parse_profile(text, source=SOURCE)
    return raised.value


def test_every_key_of_a_profile_is_read() -> None:
    profile = parse_profile(FULL, source=SOURCE)
    assert (profile.name, profile.model, profile.base) == ("Ada", "padlite-tiny", None)
    assert profile.reward == Path("/somewhere/heads/mine.onnx")
    assert dict(profile.preferences) == {"friendly": 0.8, "witty": -1.0}
    assert (profile.context_length, profile.threads, profile.gpu_layers) == (512, 3, 0)
    assert profile.overflow is OverflowPolicy.DROP_OLDEST
    assert profile.decoding == {"strength": 2, "candidates": 5, "seed": 7, "stop": ("END",)}


def test_decoding_options_are_the_defaults_with_what_the_profile_sets() -> None:
    profile = parse_profile("[decoding]\ntemperature = 0.5\n")
    defaults = DecodingOptions(strength=3.0, temperature=0.1)
    assert profile.decoding_options(defaults) == DecodingOptions(strength=3.0, temperature=0.5)


def test_what_a_profile_leaves_out_is_as_without_a_profile() -> None:
    profile = parse_profile('name = "Ada"\n')
    assert profile == Profile(name="Ada")


def test_a_profile_without_a_name_is_named_after_its_file() -> None:
    assert parse_profile('model = "m"\n', source=SOURCE).name == "me"


def test_only_system_and_about_reach_the_prompt() -> None:
    assert parse_profile(FULL).system_text() == "Be brief.\n\nI keep bees."
    assert parse_profile('name = "Ada"\n[preferences]\nfriendly = 1\n').system_text() == ""


def test_relative_paths_start_at_the_profiles_folder() -> None:
    profile = parse_profile('base = "models/b.gguf"\n', source=SOURCE)
    assert profile.base == Path("/somewhere/models/b.gguf")


def test_a_byte_order_mark_is_no_part_of_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "me.toml"
    path.write_bytes(b"\xef\xbb\xbfname = 'Ada'\n")
    assert load_profile(str(path)).name == "Ada"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "the profile is empty"),
        ("# nothing\n", None, "the profile is empty"),
        ("name = 'a'\nx = = 2\n", 2, "not valid TOML"),
        ("name = 'a'\nabout = '''never ends\n\n", 2, "not valid TOML"),
        ("name = 'a'\nname = 'b'\n", 2, "not valid TOML"),
        ("name = 'a'\nmodle = 'b'\n", 2, "unknown key 'modle' — did you mean 'model'?"),
        ("name = 'a'\ntemprature = 1\n", 2, "did you mean 'temperature' under [decoding]?"),
        ("[decoding]\n\ntemprature = 1\n", 3, "unknown key 'temprature' in [decoding] — did you mean 'temperature'?"),
        ("[context]\noverflow = 'drop-oldst'\n", 2, "did you mean 'drop-oldest'?"),
        ("[preferences]\nfriendly = 'x'\n", 2, "the weight of 'friendly' must be a number, not text"),
        ("[preferences]\nfriendly = true\n", 2, "must be a number, not true or false"),
        ("[preferences]\nfriendly = nan\n", 2, "not a finite number"),
        ("[preferences]\nfriendly = -inf\n", 2, "not a finite number"),
        ("[preferences]\nfriendly = 10.5\n", 2, "out of range"),
        ("[preferences.friendly]\nx = 1\n", 1, "must be a number, not a section"),
        ("preferences = 3\n", 1, "preferences must be a section, not a whole number"),
        ("name = 'a'\n[decoding]\ncandidates = 2.5\n", 3, "candidates must be a whole number"),
        ("[decoding]\ntemperature = -1\n", 2, "temperature: -1 is out of range"),
        ("[decoding]\nstop = ['']\n", 2, "empty stop string"),
        ("[decoding]\nstop = [1]\n", 2, "stop must be a list of texts"),
        ("[engine]\nthreads = 'all'\n", 2, "threads must be a whole number, not text"),
        ("[engine]\nbatch_size = 8\n", 2, "unknown key 'batch_size' in [engine]"),
        ("name = 3\n", 1, "name must be text, not a whole number"),
        ("name = ' '\n", 1, "name is empty"),
        ("name = 'a'\nbase = '~nobody-of-this-name/b.gguf'\n", 2, "no home folder"),
        ("model = 'm'\nbase = 'b.gguf'\n", 2, "both 'model' and 'base'"),
    ],
)
def test_a_broken_profile_is_refused_with_its_line(text: str, line: int | None, words: str) -> None:
    error = refusal(text)
    assert words in error.message
    assert error.message.startswith(f"{SOURCE}, line {line}: " if line else f"{SOURCE}: ")
    assert error.remedy
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("name = 'a'\ntemperature = 1\n", "move temperature under [decoding]"),
        ("[decoding]\nabout = 'x'\n", "move about to the top of the file"),
        ("friendly = 0.5\n", "dimensions belong under [preferences]"),
        ("[engine]\nx = 1\n", "use one of: context_length, threads, gpu_layers, device"),
    ],
)
def test_a_misplaced_key_is_told_where_it_belongs(text: str, remedy: str) -> None:
    assert remedy in refusal(text).remedy


@pytest.mark.parametrize(
    ("engine", "message", "remedy"),
    [
        ("device = 'cudda'", "line 2: device: 'cudda' is none — did you mean 'cuda'?", "auto, cpu, cuda"),
        ("device = 0", "line 2: device must be text, not a whole number", 'device = "auto"'),
        ("device = 'cpu'\ngpu_layers = 9", "line 3: gpu_layers: 9 layers on the GPU contradict", "leave out one"),
    ],
)
def test_a_device_that_makes_no_sense_is_refused_with_its_line(engine: str, message: str, remedy: str) -> None:
    error = refusal(f"[engine]\n{engine}\n")
    assert message in error.message
    assert remedy in error.remedy


def test_a_device_is_read() -> None:
    assert parse_profile("[engine]\ndevice = 'cpu'\n").device == "cpu"
    assert parse_profile("[decoding]\nseed = 1\n").device == "auto"


def test_a_message_never_repeats_what_the_person_wrote() -> None:
    for line in ("about = ['secret']\n", "[preferences]\nfriendly = 'secret'\n", "[context]\noverflow = 'secret'\n"):
        error = refusal(line)
        assert "secret" not in error.message + error.remedy


def test_a_hostile_profile_is_refused_without_a_crash() -> None:
    assert "nested too deeply" in refusal("name = " + "[" * 100_000).message
    assert "too long" in refusal("[engine]\nthreads = " + "9" * 10_000).message
    assert "out of range" in refusal("[decoding]\ntemperature = " + "9" * 400).message
    assert "out of range" in refusal("[preferences]\nfriendly = " + "9" * 400).message


def test_a_dimension_that_the_model_lacks_is_refused_with_its_line_and_those_it_has() -> None:
    profile = parse_profile("[preferences]\nwitty = 1\nfrendly = 0.5\n", source=SOURCE)
    with pytest.raises(ProfileError) as raised:
        check_dimensions(profile, [Dimension(name="friendly"), Dimension(name="witty")])
    assert raised.value.message == f"{SOURCE}, line 3: the model has no dimension 'frendly' — did you mean 'friendly'?"
    assert raised.value.remedy == "use one of: friendly, witty"


def test_a_profile_with_preferences_needs_a_reward_model() -> None:
    with pytest.raises(ProfileError, match="no reward model"):
        check_dimensions(parse_profile("[preferences]\nwitty = 1\n"), [])


def test_a_profile_may_leave_dimensions_out() -> None:
    check_dimensions(parse_profile("[preferences]\nwitty = 1\n"), [Dimension(name="friendly"), Dimension(name="witty")])


def paths(tmp_path: Path) -> Paths:
    return Paths(config=tmp_path / "config", data=tmp_path / "data", cache=tmp_path / "cache")


def keep(tmp_path: Path, name: str) -> None:
    folder = paths(tmp_path).profiles
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(f"name = '{name}'\n", encoding="utf-8")


def test_a_name_means_a_file_in_the_persons_folder_and_a_path_itself(tmp_path: Path) -> None:
    assert profile_path("ada", paths(tmp_path)) == tmp_path / "config/profiles/ada.toml"
    assert profile_path("/x/ada.toml", paths(tmp_path)) == Path("/x/ada.toml")
    assert profile_path("ada.toml", paths(tmp_path)) == Path.cwd() / "ada.toml"


@pytest.mark.parametrize("name", ["", " ", ".hidden", "-x", "a:b", "a\nb", "a\x1b[31m", "x" * 101, " a", 'a"b', "a=b"])
def test_a_name_that_could_not_be_a_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        profile_path(name, paths(tmp_path))


def test_named_profiles_are_listed_in_order(tmp_path: Path) -> None:
    assert list_profiles(paths(tmp_path)) == ()
    keep(tmp_path, "me")
    keep(tmp_path, "ada")
    assert list_profiles(paths(tmp_path)) == ("ada", "me")


def test_a_missing_profile_is_not_found_and_the_closest_name_is_offered(tmp_path: Path) -> None:
    keep(tmp_path, "gardener")
    with pytest.raises(NotFoundError, match="did you mean 'gardener'") as raised:
        load_profile("gardner", paths(tmp_path))
    assert raised.value.remedy == "padlite profile new gardner, or one of: gardener"
    with pytest.raises(NotFoundError):
        load_profile(str(tmp_path / "none.toml"), paths(tmp_path))


def test_the_profile_named_me_is_used_where_none_is_named(tmp_path: Path) -> None:
    assert chosen_profile(None, paths(tmp_path)) == Profile()
    keep(tmp_path, "me")
    assert chosen_profile(None, paths(tmp_path)).source == paths(tmp_path).profiles / "me.toml"
    keep(tmp_path, "ada")
    assert chosen_profile("ada", paths(tmp_path)).name == "ada"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"name = 'a'\n\nabout = '\xff'\n", "line 3: this is not UTF-8"), (b"#" * (1 << 20) + b"##", "larger than 1 MiB")],
)
def test_a_file_that_is_no_text_is_no_profile(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "me.toml"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match=words):
        load_profile(str(path))


def test_a_folder_is_no_profile(tmp_path: Path) -> None:
    folder = tmp_path / "me.toml"
    folder.mkdir()
    with pytest.raises(ProfileError, match="directory"):
        load_profile(str(folder))
