"""The commands of the chat, on a fake model: what they change, what they show, and what they say when they can't."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from padlite.cli.commands import COMMANDS
from padlite.cli.keyboard import CommandCompleter, private_history
from padlite.cli.repl import Repl
from padlite.cli.slash import is_command, message_text, parse
from padlite.cli.status import Status, status_line
from padlite.errors import NotFoundError, PadliteError, UsageError
from padlite.options import OverflowPolicy
from tests.chats import Stage, stage
from tests.fakes import liking

ISSUE = {
    "help", "exit", "clear", "undo", "regen", "edit", "save", "load", "history", "profile", "weights", "system", "set",
    "stats", "why", "context", "copy",
}  # fmt: skip


class Typing:
    """A reader of lines typed beforehand; remembers what was in each line already."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.offered: list[str] = []

    def read(self, typed: str = "") -> str:
        self.offered.append(typed)
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)


def talk(chat: Stage, *lines: str) -> Typing:
    """Type *lines* into the chat and leave."""
    typing = Typing(*lines)
    Repl(chat.chat, chat.screen).run(typing)
    return typing


def run(chat: Stage, line: str) -> object:
    call = parse(line, COMMANDS)
    return call.command.run(chat.chat, chat.screen, call.argument)


def test_every_command_that_was_promised_is_there() -> None:
    assert not ISSUE - {command.name for command in COMMANDS}


def test_names_and_aliases_are_unique() -> None:
    words = [word for command in COMMANDS for word in (command.name, *command.aliases)]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("typed", "meant"), [("/wieghts", "/weights"), ("/hlep", "/help"), ("/hist", "/history"), ("/exitt", "/exit")]
)
def test_an_unknown_command_says_what_was_probably_meant(typed: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {meant}\\?"):
        parse(typed, COMMANDS)


def test_two_slashes_send_a_message_that_begins_with_one(tmp_path: Path) -> None:
    assert not is_command("//etc/hosts")
    assert message_text("//etc/hosts") == "/etc/hosts"
    chat = stage(tmp_path)
    talk(chat, "//etc is a folder")
    assert chat.kept()[0] == ("user", "/etc is a folder")


def test_an_answer_goes_to_stdout_and_everything_else_to_stderr(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    talk(chat, "hi", "/stats", "/nonsense")
    assert chat.answers == "yes\n"
    assert "tokens/s" in chat.notes
    assert "there is no command /nonsense" in chat.notes


def test_empty_lines_are_not_sent(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    talk(chat, "", "   ", "\n")
    assert chat.chat.session.messages == ()


def test_weights_are_set_together_or_not_at_all(tmp_path: Path) -> None:
    chat = stage(tmp_path, reward=liking("n", by=5.0, names=("friendly", "witty")))
    run(chat, "/weights friendly=0.8, witty=-0.2")
    assert chat.chat.session.weights == pytest.approx({"friendly": 0.8, "witty": -0.2})
    assert "friendly  +0.80  ··········│████████··" in chat.notes
    assert "witty     -0.20  ········██│··········" in chat.notes
    with pytest.raises(UsageError, match="did you mean 'witty'"):
        run(chat, "/weights friendly=0.1 wity=1")
    assert chat.chat.session.weights == pytest.approx({"friendly": 0.8, "witty": -0.2})
    run(chat, "/weights friendly 0.3")
    assert chat.chat.session.weights["friendly"] == pytest.approx(0.3)
    run(chat, "/weights reset")
    assert set(chat.chat.session.weights.values()) == {0.0}


@pytest.mark.parametrize(
    "typed", ["friendly=", "friendly", "=1", "friendly=much", "friendly=nan", "friendly=11", "a b c"]
)
def test_a_weight_that_is_no_weight_is_refused_with_an_example(tmp_path: Path, typed: str) -> None:
    chat = stage(tmp_path, reward=liking("a", by=5.0, names=("friendly",)))
    with pytest.raises(UsageError) as error:
        run(chat, f"/weights {typed}")
    assert error.value.remedy


def test_new_weights_cost_no_prompt_token(tmp_path: Path) -> None:
    chat = stage(tmp_path, reward=liking("a", by=5.0, names=("friendly",)))
    talk(chat, "hi", "/weights friendly=1", "ho")
    last = chat.chat.session.last
    assert last is not None
    assert last.changed
    assert last.usage.evaluated_tokens == len("u?hoa?")


def test_options_are_set_by_name_and_survive_a_bad_value(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    run(chat, "/set temperature=0.5 seed=7 top-p=0.9 max_tokens=12 overflow=drop-oldest strength=2 stop=END")
    options = chat.chat.session.options
    assert (options.temperature, options.seed, options.top_p, options.max_tokens) == (0.5, 7, 0.9, 12)
    assert (options.strength, options.stop) == (2.0, ("END",))
    assert chat.chat.session.overflow is OverflowPolicy.DROP_OLDEST
    for bad in ("temperature=hot", "seed=1.5", "temprature=1", "top_p=2", "overflow=ignore"):
        with pytest.raises(UsageError):
            run(chat, f"/set {bad}")
    assert chat.chat.session.options == options
    run(chat, "/set seed none")
    assert chat.chat.session.options.seed is None


def test_undo_offers_the_text_again(tmp_path: Path) -> None:
    typing = talk(stage(tmp_path), "hi", "/undo")
    assert typing.offered == ["", "", "hi"]


def test_regenerate_and_edit_replace_the_last_turn(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    talk(chat, "hi", "/regen", "/edit ho")
    assert chat.kept() == [("user", "ho"), ("assistant", "yes")]
    assert chat.answers == "yes\n" * 3


@pytest.mark.parametrize("line", ["/undo", "/regen", "/why", "/copy", "/save x"])
def test_what_needs_an_answer_says_so_before_there_is_one(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError) as error:
        run(stage(tmp_path), line)
    assert error.value.remedy


def test_a_full_context_keeps_the_text_and_offers_ways_out(tmp_path: Path) -> None:
    chat = stage(tmp_path, context_length=48, max_tokens=4)
    long = "a" * 60
    typing = talk(chat, long)
    assert typing.offered[-1] == long
    for way in ("/undo", "/clear", "/set overflow=drop-oldest"):
        assert way in chat.notes
    assert chat.chat.session.messages == ()


def test_dropped_turns_are_announced_with_their_number(tmp_path: Path) -> None:
    chat = stage(tmp_path, context_length=64, max_tokens=8, overflow=OverflowPolicy.DROP_OLDEST)
    talk(chat, *(f"message {letter}" for letter in "abcdef"))
    assert "The context is full: the oldest" in chat.notes


def test_clear_keeps_the_old_conversation_and_load_brings_it_back(tmp_path: Path) -> None:
    chat = stage(tmp_path, name="plans")
    talk(chat, "hi", "/clear", "anew", "/load plans", "more")
    assert [text for _, text in chat.kept("plans")] == ["hi", "yes", "more", "yes"]
    assert len(chat.store.list()) == 2


def test_load_without_a_name_lists_and_with_an_unknown_one_suggests(tmp_path: Path) -> None:
    chat = stage(tmp_path, name="plans")
    talk(chat, "hi", "/load")
    assert "plans" in chat.notes
    with pytest.raises(NotFoundError, match="did you mean 'plans'"):
        run(chat, "/load plan")


def test_save_writes_files_and_names(tmp_path: Path) -> None:
    chat = stage(tmp_path, name="one")
    talk(chat, "hi", f"/save {tmp_path}/chat.md", f"/save {tmp_path}/chat.json", "/save two", "more")
    assert (tmp_path / "chat.md").read_text() == "## You\n\nhi\n\n## Answer\n\nyes\n"
    assert json.loads((tmp_path / "chat.json").read_text())[1] == {"role": "assistant", "content": "yes"}
    assert [text for _, text in chat.kept("two")] == ["hi", "yes", "more", "yes"]
    with pytest.raises(PadliteError, match="can't write"):
        run(chat, f"/save {tmp_path}/missing/chat.md")


def test_save_without_keeping_says_what_works(tmp_path: Path) -> None:
    chat = stage(tmp_path, keep=False)
    chat.say("hi")
    for line in ("/save", "/save name"):
        with pytest.raises(PadliteError) as error:
            run(chat, line)
        assert "/save FILE.md" in error.value.remedy


def test_a_profile_can_be_switched_in_the_middle(tmp_path: Path) -> None:
    chat = stage(tmp_path, reward=liking("a", by=5.0, names=("friendly",)))
    profiles = chat.chat.paths.profiles
    profiles.mkdir(parents=True)
    (profiles / "bob.toml").write_text('name = "Bob"\nsystem = "be brief"\n[preferences]\nfriendly = 0.7\n')
    (profiles / "eve.toml").write_text('name = "Eve"\nmodel = "other"\n')
    (profiles / "kim.toml").write_text('name = "Kim"\n[preferences]\nfrendly = 0.7\n')
    talk(chat, "hi")
    run(chat, "/profile bob")
    assert chat.chat.session.weights["friendly"] == pytest.approx(0.7)
    assert chat.chat.session.system == "be brief"
    assert len(chat.chat.session.messages) == 2
    with pytest.raises(UsageError, match="another model"):
        run(chat, "/profile eve")
    with pytest.raises(UsageError, match="friendly"):
        run(chat, "/profile kim")
    run(chat, "/weights friendly=-0.25")
    run(chat, "/profile save")
    assert "friendly = -0.25" in (profiles / "bob.toml").read_text()


def test_help_names_every_command_also_on_narrow_terminals(tmp_path: Path) -> None:
    for width in (40, 80):
        chat = stage(tmp_path / str(width), width=width)
        run(chat, "/help")
        assert all(f"/{command.name}" in chat.notes for command in COMMANDS)
        assert max(map(len, chat.notes.splitlines())) <= width


def test_history_and_context_show_what_was_said_and_what_it_takes(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    talk(chat, "one", "two", "/history 1", "/context")
    assert "› two" in chat.notes
    assert "› one" not in chat.notes
    assert "of 256 tokens" in chat.notes
    run(chat, "/history all")
    assert "› one" in chat.notes


def completions(chat: Stage, text: str) -> list[str]:
    def words(command: object) -> Iterable[tuple[str, str]]:
        complete = next(c.complete for c in COMMANDS if c is command)
        return complete(chat.chat) if complete else ()

    completer = CommandCompleter(COMMANDS, words)
    found = completer.get_completions(Document(text, len(text)), CompleteEvent())
    return [text[: len(text) + item.start_position] + item.text for item in found]


def test_commands_dimensions_options_and_names_are_completed(tmp_path: Path) -> None:
    chat = stage(tmp_path, name="plans", reward=liking("n", by=5.0, names=("friendly", "witty")))
    chat.say("hi")
    assert completions(chat, "/we") == ["/weights "]
    assert completions(chat, "/weights fr") == ["/weights friendly="]
    assert completions(chat, "/weights friendly=1 w") == ["/weights friendly=1 witty="]
    assert completions(chat, "/set temp") == ["/set temperature="]
    assert completions(chat, "/load p") == ["/load plans"]
    assert completions(chat, "hello /we") == []
    assert completions(chat, "//we") == []


def test_what_was_typed_is_kept_in_a_private_file_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "data" / "input_history"
    history = private_history(file)
    history.store_string("hello")
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(private_history(file).load_history_strings()) == ["hello"]
    file.unlink()
    file.mkdir()
    private_history(file).store_string("a folder is in the way, and that is no reason to fail")
    private_history(None).store_string("nowhere")


def test_the_status_line_fits_and_leaves_out_the_least_important_first() -> None:
    status = Status(
        model="padlite-tiny", profile="Ada", weights={"friendly": 0.8, "witty": -0.2, "concise": 0.0}, strength=1.0,
        used=50, length=200, tokens_per_s=123.4, changed=7,
    )  # fmt: skip
    full = status_line(status, 200)
    assert full == "padlite-tiny · Ada · friendly +0.8 witty -0.2 · context 25% · 123 tok/s · 7 changed (/why)"
    assert status_line(status, 70) == "padlite-tiny · Ada · friendly +0.8 witty -0.2 · context 25%"
    assert status_line(status, 45) == "friendly +0.8 witty -0.2 · context 25%"
    for width in range(1, 100):
        assert len(status_line(status, width)) <= width


def test_the_same_answer_again_says_what_varies_it(tmp_path: Path) -> None:
    chat = stage(tmp_path)
    talk(chat, "hi", "/regen")
    assert "(the same answer again; /set temperature=0.8 varies it)" in chat.notes
