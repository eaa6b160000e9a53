"""`padlite profile …`, `padlite paths` as a person types them."""

import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pexpect
import pytest

from tests.command_line import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(folder=tmp_path)
    home.install_model()
    return home


def read(path: Path) -> dict[str, object]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def test_a_profile_is_made_shown_changed_and_checked(home: Home) -> None:
    made = home.run(
        "profile", "new", "--model", "tiny", "--name", "Ada", "--set", "friendly=0.8", "--about", "I keep bees."
    )
    assert (made.returncode, made.stdout, made.stderr) == (0, f"wrote {home.profile()}\n", "try: padlite chat\n")
    written = read(home.profile())
    assert (written["name"], written["model"], written["about"]) == ("Ada", "tiny", "I keep bees.")
    assert written["preferences"] == {"friendly": 0.8}
    assert "# witty = 0.5" in home.profile().read_text(encoding="utf-8")

    changed = home.run("profile", "set", "friendly=-0.5", "witty=1", "strength=1.5")
    assert changed.returncode == 0
    assert changed.stderr == ""
    assert "# warm and kind" in home.profile().read_text(encoding="utf-8")

    shown = json.loads(home.run("profile", "show", "--json").stdout)
    assert shown["preferences"] == {"friendly": -0.5, "witty": 1.0}
    assert shown["decoding"] == {"strength": 1.5}
    assert "friendly ·····█████│·········· -0.50" in home.run("profile", "show").stdout

    checked = home.run("profile", "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "2 of the model's 2 dimensions: friendly, witty" in checked.stdout


def test_a_path_works_where_a_name_does(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "my profiles" / "ada.toml"
    assert home.run("profile", "new", str(path), "--model", "tiny").returncode == 0
    assert home.run("profile", "set", str(path), "witty=0.5").returncode == 0
    assert home.run("profile", "set", "friendly=0.5", "--profile", str(path)).returncode == 0
    assert read(path)["preferences"] == {"witty": 0.5, "friendly": 0.5}
    for command in ("show", "check", "path"):
        run = home.run("profile", command, str(path))
        assert (run.returncode, run.stderr) == (0, "")
        assert str(path) in run.stdout


def test_a_new_profile_replaces_none_unless_forced(home: Home) -> None:
    assert home.run("profile", "new", "--model", "tiny", "--set", "witty=1").returncode == 0
    again = home.run("profile", "new", "--model", "tiny")
    assert again.returncode == 2
    assert again.stderr == f"padlite: {home.profile()} exists already\ntry: padlite profile edit me, or add --force\n"
    assert read(home.profile())["preferences"] == {"witty": 1}
    assert home.run("profile", "new", "--model", "tiny", "--force").returncode == 0
    assert read(home.profile())["preferences"] == {}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("new", "--model", "tiny", "--set", "frendly=1"), 2, "no dimension 'frendly' — did you mean 'friendly'?"),
        (
            ("new", "--model", "tiny", "--set", "friendly=much"),
            2,
            "the value of 'friendly' is not a number",
        ),
        (("new", "--model", "tiny", "--set", "friendly=nan"), 2, "the weight of 'friendly' is not a finite number"),
        (("new", "--model", "tiny", "--set", "friendly"), 2, "'friendly' is not of the form KEY=VALUE"),
        (("new", "--model", "tny"), 3, "there is no model 'tny' — did you mean 'tiny'?"),
        (("new", ".hidden"), 2, "can't be the name of a profile"),
        (("show",), 3, "there is no profile 'me'"),
        (("check", "none.toml"), 3, "there is no profile at"),
        (("edit", "ada"), 3, "there is no profile 'ada'"),
        (("set",), 2, "say what to change"),
        (("set", "ada", "witty=1", "--profile", "me"), 2, "two profiles are named"),
        (("set", "witty=1"), 3, "there is no profile 'me'"),
    ],
)
def test_a_mistake_is_one_line_a_remedy_and_an_exit_code(
    words: tuple[str, ...], code: int, message: str, home: Home
) -> None:
    run = home.run("profile", *words)
    assert (run.returncode, run.stdout) == (code, "")
    first, second = run.stderr.splitlines()
    assert first.startswith("padlite: ")
    assert message in first
    assert second.startswith("try: ")
    assert not home.profile().exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("frendly=1",), "no dimension 'frendly' — did you mean 'friendly'?"),
        (("friendly=11",), "out of range"),
        (("friendly=inf",), "not a finite number"),
        (("temperature=-1",), "out of range"),
        (("=1",), "not of the form KEY=VALUE"),
        (("friendly=1", "witty"), "not of the form KEY=VALUE"),
        (("--unset", "about"), "doesn't set 'about'"),
        (("base=x.gguf",), "both 'model' and 'base'"),
    ],
)
def test_a_change_that_makes_no_sense_changes_nothing(words: tuple[str, ...], message: str, home: Home) -> None:
    home.run("profile", "new", "--model", "tiny", "--set", "witty=1")
    before = home.profile().read_bytes()
    run = home.run("profile", "set", *words)
    assert run.returncode == 2
    assert message in run.stderr
    assert home.profile().read_bytes() == before


def test_check_names_file_line_and_those_there_are(home: Home) -> None:
    path = home.profile("bad")
    path.parent.mkdir(parents=True)
    path.write_text('model = "tiny"\n[preferences]\nwitty = 1\nfrendly = 1\n', encoding="utf-8")
    run = home.run("profile", "check", "bad")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == (
        f"padlite: {path}, line 4: the model has no dimension 'frendly' — did you mean 'friendly'?\n"
        "try: use one of: friendly, witty\n"
    )


def test_check_names_a_missing_model_and_a_missing_file(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('base = "none.gguf"\n', encoding="utf-8")
    run = home.run("profile", "check", str(path))
    assert run.returncode == 3
    assert f"base names a file that isn't there: {tmp_path}/none.gguf" in run.stderr
    path.write_text('model = "tny"\n', encoding="utf-8")
    assert home.run("profile", "check", str(path)).returncode == 3


def test_a_profile_for_a_bare_model_has_no_dimensions(home: Home, tmp_path: Path) -> None:
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    path = tmp_path / "own.toml"
    path.write_text('base = "b.gguf"\n', encoding="utf-8")
    assert home.run("profile", "check", str(path)).returncode == 0
    path.write_text('base = "b.gguf"\n[preferences]\nwitty = 1\n', encoding="utf-8")
    run = home.run("profile", "check", str(path))
    assert run.returncode == 2
    assert "no reward model" in run.stderr


def test_the_list_shows_broken_profiles_too(home: Home) -> None:
    assert home.run("profile", "list").stdout == ""
    home.run("profile", "new", "ada", "--model", "tiny", "--set", "witty=-0.3")
    home.profile("broken").write_text("x = = 1", encoding="utf-8")
    run = home.run("profile", "list")
    first, second = run.stdout.splitlines()
    assert first == "ada     tiny   witty -0.3"
    assert second.startswith("broken  can't be used: ")
    assert [entry["name"] for entry in json.loads(home.run("profile", "list", "--json").stdout)] == ["ada", "broken"]


def test_edit_opens_the_editor_and_checks_afterwards(home: Home) -> None:
    home.run("profile", "new", "--model", "tiny", "--set", "witty=1")
    good = home.run("profile", "edit", environment={"VISUAL": "sed -i s/witty/friendly/", "EDITOR": "false"})
    assert (good.returncode, good.stdout) == (0, f"{home.profile()}: good\n")
    assert read(home.profile())["preferences"] == {"friendly": 1}
    bad = home.run("profile", "edit", environment={"VISUAL": "sed -i s/friendly/frendly/"})
    assert bad.returncode == 2
    assert "did you mean 'friendly'?" in bad.stderr
    assert "frendly" in home.profile().read_text(encoding="utf-8"), "what the person wrote stays"


def test_an_editor_that_is_missing_is_an_error_and_no_crash(home: Home) -> None:
    home.run("profile", "new", "--model", "tiny")
    run = home.run("profile", "edit", environment={"VISUAL": "no-such-editor"})
    assert run.returncode == 1
    assert "no-such-editor" in run.stderr
    assert "bug" not in run.stderr


def test_no_colour_reaches_a_pipe(home: Home) -> None:
    home.run("profile", "new", "--model", "tiny", "--set", "witty=1")
    assert "\x1b" not in home.run("profile", "show").stdout


def in_a_terminal(home: Home, *words: str, environment: Mapping[str, str] | None = None) -> "pexpect.spawn[str]":
    """Start padlite in a pseudo-terminal."""
    return pexpect.spawn(
        sys.executable,
        ["-m", "padlite", *words],
        env={**home.environment, "TERM": "xterm", **(environment or {})},
        encoding="utf-8",
        timeout=60,
    )


def test_in_a_terminal_new_asks_a_few_questions(home: Home) -> None:
    terminal = in_a_terminal(home, "profile", "new")
    for question, answer in [
        (r"Your name \[me\]", "Ada"),
        (r"Model \[padlite-tiny\]", "tiny"),
        (r"friendly \[0.0\]", "0.5"),
        (r"witty \[0.0\]", "7 of 10"),
        (r"is not a valid float.*witty \[0.0\]", "-0.25"),
        (r"About you", "I keep bees."),
    ]:
        terminal.expect(question)
        terminal.sendline(answer)
    terminal.expect("wrote .*me.toml")
    terminal.expect(pexpect.EOF)
    assert terminal.wait() == 0
    assert read(home.profile())["preferences"] == {"friendly": 0.5, "witty": -0.25}
    assert read(home.profile())["about"] == "I keep bees."


@pytest.mark.parametrize("key", ["c", "d"])
def test_leaving_at_a_question_writes_nothing(key: str, home: Home) -> None:
    terminal = in_a_terminal(home, "profile", "new")
    terminal.expect("Your name")
    terminal.sendcontrol(key)
    terminal.expect("padlite: interrupted")
    terminal.expect(pexpect.EOF)
    assert terminal.wait() == 130
    assert "Traceback" not in (terminal.before or "")
    assert not home.profile().exists()


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_reaches_a_terminal_unless_it_is_not_wanted(no_color: str, *, coloured: bool, home: Home) -> None:
    home.run("profile", "new", "--model", "tiny", "--set", "witty=1")
    terminal = in_a_terminal(home, "profile", "show", environment={"NO_COLOR": no_color})
    terminal.expect(pexpect.EOF)
    assert "██████████" in terminal.before
    assert ("\x1b[32m" in terminal.before) == coloured


def test_paths_are_those_of_this_person(home: Home) -> None:
    paths = json.loads(home.run("paths", "--json").stdout)
    assert paths["sessions"] == str(home.store)
    assert paths["profiles"] == str(home.profile().parent)
    assert Path(paths["bundled_models"]).name == "models"
    text = home.run("paths").stdout
    assert f"{home.store}   (not there yet)" in text
    assert not home.store.exists(), "asking creates nothing"
