"""What the commands of a chat do to the conversation, and what they show; `COMMANDS` lists them as /help does.

Each takes the conversation, the screen and what was typed behind its name. Errors are PadliteErrors; nothing here reads
the keyboard except through the person's editor.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from padlite.cli import displays
from padlite.cli.clipboard import copy
from padlite.cli.conversation import Conversation
from padlite.cli.editor import edit_text
from padlite.cli.markdown import code_blocks
from padlite.cli.screen import Screen
from padlite.cli.settable import change_option, option_values
from padlite.cli.slash import Command, Outcome
from padlite.cli.transcript import write_transcript
from padlite.cli.why import Explained, explain
from padlite.errors import UsageError
from padlite.profile import list_profiles, load_profile, set_values

_TALK, _STEER, _KEEP, _LOOK = "The conversation", "What you prefer", "Keeping", "Looking into it"
_SHOWN_TURNS = 10
_ROOMY = 70  # cells


def _help(chat: Conversation, screen: Screen, argument: str) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    group = ""
    for command in COMMANDS:
        if command.group != group:
            group = command.group
            table.add_row(Text(group, "bold"))
        takes = f" {command.takes}" if command.takes and screen.notes.width >= _ROOMY else ""
        table.add_row(Text.assemble("  /" + command.name, (takes, "dim")), command.summary)
    table.add_row(Text("Keys", "bold"))
    for key, what in displays.KEYS:
        table.add_row(Text("  " + key), what)
    screen.show(table)


def _exit(chat: Conversation, screen: Screen, argument: str) -> Outcome:
    return Outcome(leave=True)


def _clear(chat: Conversation, screen: Screen, argument: str) -> None:
    kept = chat.recorder.name if chat.recorder.keeping and chat.session.messages else None
    chat.begin_anew()
    screen.note(f"A new conversation. The old one is kept as {kept!r}: /load {kept}" if kept else "A new conversation.")


def _undo(chat: Conversation, screen: Screen, argument: str) -> Outcome | None:
    said = _last_said(chat)
    if not chat.undo():
        raise UsageError("there is nothing to take back", remedy="write something first")
    screen.note("Your last message and its answer are forgotten.")
    return Outcome(typed=said)


def _regen(chat: Conversation, screen: Screen, argument: str) -> Outcome:
    if not _last_said(chat):
        raise UsageError("there is no answer to replace", remedy="write something first")
    answers = [message.content for message in chat.session.messages if message.role == "assistant"]
    return Outcome(events=chat.session.regenerate(), replaced=answers[-1] if answers else None)


def _edit(chat: Conversation, screen: Screen, argument: str) -> Outcome | None:
    before = _last_said(chat)
    text = argument or edit_text(before)
    if not text.strip() or (text == before and not argument):
        screen.note("Nothing was changed.")
        return None
    return Outcome(events=chat.session.edit(text) if before else chat.session.say(text))


def _save(chat: Conversation, screen: Screen, argument: str) -> None:
    if not chat.session.messages:
        raise UsageError("there is nothing to save yet", remedy="write something first")
    path = Path(argument).expanduser() if argument.endswith((".md", ".json")) else None
    if path is not None:
        write_transcript(path, chat.session.messages)
        screen.note(f"Written to {path}.")
    elif argument:
        chat.recorder.branch(argument, chat.session.messages)
        screen.note(f"Saved as {argument!r}; what follows goes there too.")
    elif chat.recorder.keeping:
        screen.note(f"Everything is saved already, as {chat.recorder.name!r}. /save NAME keeps it under another name.")
    else:
        raise UsageError("this chat keeps nothing (--no-save)", remedy="/save FILE.md writes it to a file")


def _load(chat: Conversation, screen: Screen, argument: str) -> None:
    if not argument:
        screen.show(displays.sessions_table(chat.store.list() if chat.store else ()))
        return
    count = chat.load(argument)
    screen.note(f"Going on with {argument!r} ({count} messages).")
    displays.show_turns(screen, chat.session.messages, turns=1)


def _history(chat: Conversation, screen: Screen, argument: str) -> None:
    if not chat.session.messages:
        screen.note("Nothing was said yet.")
        return
    turns = len(chat.session.messages) if argument == "all" else _count(argument, _SHOWN_TURNS, "/history 5")
    displays.show_turns(screen, chat.session.messages, turns=turns)


def _profile(chat: Conversation, screen: Screen, argument: str) -> None:
    if argument == "save":
        _save_weights(chat, screen)
        return
    if argument:
        chat.use_profile(load_profile(argument, chat.paths))
        screen.note(f"Following the profile {argument!r} from the next token on.")
    screen.show(displays.profile_lines(chat))


def _save_weights(chat: Conversation, screen: Screen) -> None:
    source = chat.profile.source
    if source is None:
        raise UsageError("this chat follows no profile file", remedy="padlite profile new me")
    changed = {n: w for n, w in chat.session.weights.items() if w != chat.profile.weights.get(n, 0.0)}
    if not changed:
        screen.note(f"{source} has these weights already.")
        return
    weights = {f"preferences.{name}": round(weight, 4) for name, weight in changed.items()}
    chat.profile = chat.read(set_values(source, weights))
    screen.note(f"Written to {source}: {', '.join(changed)}.")


def _weights(chat: Conversation, screen: Screen, argument: str) -> None:
    if argument == "reset":
        names = [dimension.name for dimension in chat.session.dimensions]
        chat.set_weights({name: chat.profile.weights.get(name, 0.0) for name in names})
    elif argument:
        chat.set_weights(dict(_weight(item) for item in _pairs(argument, "/weights friendly=0.8")))
    if not chat.session.dimensions:
        screen.note("No reward model is loaded, so there is nothing to weigh.")
        return
    screen.show(displays.weights_table(chat.session.weights, chat.session.options.strength, screen.notes.width))


def _weight(pair: tuple[str, str]) -> tuple[str, float]:
    name, value = pair
    try:
        return name, float(value)
    except ValueError:
        raise UsageError(f"the weight of {name} is not a number", remedy=f"/weights {name}=0.5") from None


def _system(chat: Conversation, screen: Screen, argument: str) -> None:
    if argument:
        chat.session.system = "" if argument in {"none", "off"} else argument
        screen.note("The system message counts from the next message on; the conversation is read again with it.")
    elif chat.session.system:
        screen.show(Text(chat.session.system))
    else:
        screen.note("There is no system message. /system TEXT sets one, /system none removes it.")


def _set(chat: Conversation, screen: Screen, argument: str) -> None:
    for name, value in _pairs(argument, "/set temperature=0.8") if argument else ():
        change_option(chat.session, name, value)
    screen.show(displays.options_table(option_values(chat.session), chat.defaults))


def _stats(chat: Conversation, screen: Screen, argument: str) -> None:
    if chat.session.last is None:
        screen.note("There is no answer yet.")
        return
    screen.show(displays.stats_table(chat.session.last))


def _why(chat: Conversation, screen: Screen, argument: str) -> None:
    answer = chat.session.last
    if answer is None:
        raise UsageError("there is no answer to explain yet", remedy="write something, or /regen")
    names = tuple(dimension.name for dimension in chat.session.dimensions)
    subject = Explained(answer=answer, dimensions=names, describe=chat.session.describe_token, width=screen.notes.width)
    screen.show(*explain(subject, argument))


def _context(chat: Conversation, screen: Screen, argument: str) -> None:
    screen.show(displays.context_lines(chat, screen.notes.width))


def _copy(chat: Conversation, screen: Screen, argument: str) -> None:
    answers = [message.content for message in chat.session.messages if message.role == "assistant"]
    if not answers:
        raise UsageError("there is no answer to copy yet", remedy="write something first")
    if argument == "code":
        blocks = code_blocks(answers[-1])
        if not blocks:
            raise UsageError("the last answer holds no code block", remedy="/copy copies all of it")
        screen.note(copy(blocks[-1], screen.answers.file))
    elif argument in {"", "all"}:
        said = (f"{message.role}: {message.content}" for message in chat.session.messages)
        screen.note(copy("\n\n".join(said) if argument else answers[-1], screen.answers.file))
    else:
        raise UsageError(f"/copy can't copy {argument[:30]!r}", remedy="/copy, /copy code or /copy all")


def _last_said(chat: Conversation) -> str:
    return next((message.content for message in reversed(chat.session.messages) if message.role == "user"), "")


def _count(argument: str, default: int, example: str) -> int:
    if argument and not (argument.isdecimal() and int(argument)):
        raise UsageError(f"{argument[:30]!r} is not a number of turns", remedy=example)
    return int(argument) if argument else default


def _pairs(argument: str, example: str) -> list[tuple[str, str]]:
    """Return the NAME=VALUE pairs in *argument*; a single pair may be written NAME VALUE."""
    words = argument.replace(",", " ").split()
    if len(words) == 2 and "=" not in argument:
        words = ["=".join(words)]
    pairs = [word.partition("=") for word in words]
    if any(not name or not value for name, _, value in pairs):
        raise UsageError("this takes NAME=VALUE", remedy=example)
    return [(name, value) for name, _, value in pairs]


def _dimension_words(chat: Conversation) -> Iterable[tuple[str, str]]:
    weights = chat.session.weights
    yield from ((f"{d.name}=", f"{weights[d.name]:+.2f}  {d.description}") for d in chat.session.dimensions)
    yield "reset", "the profile's weights"


def _option_words(chat: Conversation) -> Iterable[tuple[str, str]]:
    return ((f"{name}=", f"now {value}") for name, value in option_values(chat.session).items())


def _session_words(chat: Conversation) -> Iterable[tuple[str, str]]:
    return ((info.name, info.title) for info in (chat.store.list() if chat.store else ()))


def _profile_words(chat: Conversation) -> Iterable[tuple[str, str]]:
    yield from ((name, "") for name in list_profiles(chat.paths))
    yield "save", "write these weights to the profile"


def _words(*words: tuple[str, str]) -> Sequence[tuple[str, str]]:
    return words


COMMANDS: tuple[Command, ...] = (
    Command(
        name="regen", takes="", summary="answer my last message again", run=_regen, group=_TALK, aliases=("retry",)
    ),
    Command(
        name="edit",
        takes="[TEXT]",
        summary="change my last message (in $EDITOR) and answer that",
        run=_edit,
        group=_TALK,
    ),
    Command(name="undo", takes="", summary="take back my last message and its answer", run=_undo, group=_TALK),
    Command(
        name="clear", takes="", summary="begin a new conversation", run=_clear, group=_TALK, aliases=("new", "reset")
    ),
    Command(
        name="history",
        takes="[N|all]",
        summary="show what was said",
        run=_history,
        group=_TALK,
        complete=lambda chat: _words(("all", "everything")),
    ),
    Command(
        name="copy",
        takes="[code|all]",
        summary="put the last answer on the clipboard",
        run=_copy,
        group=_TALK,
        complete=lambda chat: _words(("code", "its last code block"), ("all", "the conversation")),
    ),
    Command(name="help", takes="", summary="this list", run=_help, group=_TALK, aliases=("?", "h")),
    Command(name="exit", takes="", summary="leave", run=_exit, group=_TALK, aliases=("quit", "q")),
    Command(
        name="weights",
        takes="[NAME=N …|reset]",
        summary="show or change how much each dimension counts",
        run=_weights,
        group=_STEER,
        complete=_dimension_words,
        aliases=("w",),
    ),
    Command(
        name="profile",
        takes="[NAME|save]",
        summary="show or switch the profile; save writes the weights to it",
        run=_profile,
        group=_STEER,
        complete=_profile_words,
    ),
    Command(
        name="system",
        takes="[TEXT|none]",
        summary="show or change the system message",
        run=_system,
        group=_STEER,
        complete=lambda chat: _words(("none", "remove it")),
    ),
    Command(
        name="set",
        takes="[NAME=VALUE …]",
        summary="show or change strength, temperature and other options",
        run=_set,
        group=_STEER,
        complete=_option_words,
    ),
    Command(
        name="why",
        takes="[N|WORD|all]",
        summary="explain the last answer, or how one token was chosen",
        run=_why,
        group=_LOOK,
        complete=lambda chat: _words(("all", "every token")),
    ),
    Command(name="stats", takes="", summary="speed and counts of the last answer", run=_stats, group=_LOOK),
    Command(name="context", takes="", summary="how full the model's memory is", run=_context, group=_LOOK),
    Command(
        name="save",
        takes="[NAME|FILE.md|FILE.json]",
        summary="keep the conversation under a name, or write a file",
        run=_save,
        group=_KEEP,
    ),
    Command(
        name="load",
        takes="[NAME]",
        summary="go on with a kept conversation, or list them",
        run=_load,
        group=_KEEP,
        complete=_session_words,
    ),
)
