"""`padlite chat`: its options, what they change in the profile, and which kind of chat follows.

Imports the engine only when a chat begins, so that `padlite chat --help` is quick.
"""

import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

import click

from padlite import settings
from padlite.cli.asked import Output, read_prompt
from padlite.cli.completion import complete_models, complete_profiles, complete_sessions
from padlite.cli.sections import SectionedCommand
from padlite.errors import NotFoundError, StoreError, UsageError
from padlite.naming import check_name
from padlite.options import DEVICES, DecodingOptions, EngineOptions, OverflowPolicy
from padlite.profile import Decoding, Profile, chosen_profile

if TYPE_CHECKING:
    from padlite.cli.conversation import Conversation
    from padlite.cli.screen import Screen
    from padlite.opening import OpenChat
    from padlite.store import SessionStore, StoredMessage

SECTIONS: dict[str, tuple[str, ...]] = {
    "Who and what": ("profile", "model", "reward", "system"),
    "What you prefer": ("weight", "strength", "plain"),
    "Conversations": ("continue_latest", "session", "no_save", "overflow"),
    "One answer, for pipes and scripts": ("prompt", "json_output", "trace", "no_stream"),
    "Decoding": (
        "temperature", "top_p", "min_p", "repetition_penalty", "candidates", "seed", "max_tokens", "stop",
    ),
    "Engine": ("device", "threads", "context_length", "gpu_layers"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says instead of the profile; None and empty mean: as the profile has it."""

    model: str | None = None
    reward: Path | None = None
    weights: tuple[tuple[str, float], ...] = ()
    plain: bool = False
    system: str | None = None
    overflow: str | None = None
    decoding: Decoding
    threads: int | None = None
    context_length: int | None = None
    gpu_layers: int | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Which kept conversation to go on with, and whether to keep this one."""

    latest: bool
    name: str | None
    save: bool


def apply(profile: Profile, overrides: Overrides) -> Profile:
    """Return *profile* as *overrides* change it. Raises UsageError or NotFoundError."""
    if overrides.model is not None:
        profile = profile.on_model(overrides.model)
    if overrides.reward is not None:
        profile = replace(profile, reward=overrides.reward.expanduser().absolute())
    if overrides.weights:
        profile = replace(profile, preferences=MappingProxyType({**profile.preferences, **dict(overrides.weights)}))
    if overrides.system is not None:
        profile = replace(profile, system=overrides.system, about="")
    if overrides.overflow is not None:
        profile = replace(profile, overflow=OverflowPolicy(overrides.overflow))
    decoding: Decoding = {**profile.decoding, **overrides.decoding}
    if overrides.plain:
        decoding["strength"] = 0.0
    DecodingOptions(**decoding)  # refuses what is out of range before anything is loaded
    return _with_engine(replace(profile, decoding=decoding), overrides)


def _with_engine(profile: Profile, overrides: Overrides) -> Profile:
    if overrides.device is not None:
        profile = profile.on_device(overrides.device)
    changed = replace(
        profile,
        threads=profile.threads if overrides.threads is None else overrides.threads,
        context_length=profile.context_length if overrides.context_length is None else overrides.context_length,
        gpu_layers=profile.gpu_layers if overrides.gpu_layers is None else overrides.gpu_layers,
    )
    EngineOptions(
        threads=changed.threads, context_length=changed.context_length, gpu_layers=changed.gpu_layers,
        device=changed.device,
    )  # fmt: skip
    return changed


def _weight(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, float], ...]:
    weights: list[tuple[str, float]] = []
    for value in values:
        name, _, number = value.partition("=")
        try:
            weights.append((name.strip(), float(number)))
        except ValueError:
            raise UsageError(f"--weight {value!r} is not NAME=NUMBER", remedy="--weight friendly=0.5") from None
    return tuple(weights)


@click.command(cls=SectionedCommand, sections=SECTIONS)
@click.option(
    "--profile",
    "-P",
    metavar="NAME|FILE",
    shell_complete=complete_profiles,
    help="The profile to follow. Default: the one named 'me', if there is one.",
)
@click.option(
    "--model",
    "-m",
    metavar="NAME|PATH",
    shell_complete=complete_models,
    help="A model bundle, its folder (./NAME) or a GGUF file, instead of the profile's.",
)
@click.option("--reward", metavar="FILE", type=click.Path(path_type=Path), help="The reward model (ONNX) for it.")
@click.option("--system", metavar="TEXT", help="The system message, instead of the profile's texts.")
@click.option(
    "--weight",
    "-w",
    metavar="NAME=NUMBER",
    multiple=True,
    callback=_weight,
    help="How much of a dimension you want, from -1 to 1: -w friendly=0.5. Repeatable.",
)
@click.option("--strength", metavar="NUMBER", type=float, help="How hard the weights push; 0 is the base model.")
@click.option("--plain", is_flag=True, help="The base model alone: the same as --strength 0.")
@click.option("--continue", "-c", "continue_latest", is_flag=True, help="Go on with the latest conversation.")
@click.option(
    "--session",
    "-s",
    metavar="NAME",
    shell_complete=complete_sessions,
    help="Go on with this conversation, or begin it.",
)
@click.option("--no-save", is_flag=True, help="Keep nothing of this chat, not even what you type.")
@click.option(
    "--overflow",
    type=click.Choice([policy.value for policy in OverflowPolicy]),
    help="When the context is full: stop, or leave out the oldest turns and say so.",
)
@click.option("--prompt", "-p", metavar="TEXT", help="Answer this and leave, with stdin below it. '-': stdin alone.")
@click.option("--json", "json_output", is_flag=True, help="Print one JSON object: answer, usage, timings …")
@click.option("--trace", is_flag=True, help="With --json: how each token was chosen.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is complete.")
@click.option("--temperature", "-t", metavar="NUMBER", type=float, help="0 (the default) takes the best token.")
@click.option("--top-p", metavar="NUMBER", type=float, help="Sample from the likeliest tokens up to this share.")
@click.option("--min-p", metavar="NUMBER", type=float, help="Sample from tokens this likely, relative to the best.")
@click.option("--repetition-penalty", metavar="NUMBER", type=float, help="Above 1 avoids what was just said.")
@click.option("--candidates", "-k", metavar="COUNT", type=int, help="How many tokens the base model proposes.")
@click.option("--seed", metavar="COUNT", type=int, help="Makes sampling repeatable.")
@click.option("--max-tokens", "-n", metavar="COUNT", type=int, help="End the answer after so many tokens.")
@click.option("--stop", metavar="TEXT", multiple=True, help="End the answer before this text. Repeatable.")
@click.option("--device", type=click.Choice(DEVICES), help="Where the models run. auto: a GPU where it can be used.")
@click.option("--threads", metavar="COUNT", type=int, help="CPU threads. Default: one per physical core.")
@click.option("--context-length", metavar="COUNT", type=int, help="Tokens that the conversation may take.")
@click.option("--gpu-layers", metavar="COUNT", type=int, help="Layers on the GPU. Default: as many as fit.")
def chat(
    *,
    profile: str | None,
    model: str | None,
    reward: Path | None,
    system: str | None,
    weight: tuple[tuple[str, float], ...],
    plain: bool,
    continue_latest: bool,
    session: str | None,
    no_save: bool,
    overflow: str | None,
    prompt: str | None,
    json_output: bool,
    trace: bool,
    no_stream: bool,
    device: str | None,
    threads: int | None,
    context_length: int | None,
    gpu_layers: int | None,
    **numbers: object,
) -> int:
    """Chat with a local model that follows your profile, offline.

    Without -p and on a terminal this is a conversation; /help in it shows what it can do. With -p, or with text on
    stdin, it prints one answer:

    \b
        padlite chat --profile examples/me.toml
        cat notes.txt | padlite chat -p "summarize"
        padlite chat -p "a haiku" --json --trace

    Exit codes: 0 done, 1 failed while running, 2 used wrongly, 3 something named isn't there, 4 the context is full,
    5 a model can't be loaded or run, 130 interrupted.
    """
    keeping = Keeping(latest=continue_latest, name=session, save=not no_save)
    one_shot = prompt is not None or not _is_terminal(sys.stdin)
    _refuse_contradictions(keeping, one_shot=one_shot, one_shot_only=json_output or trace or no_stream)
    if trace and not json_output:
        raise UsageError("--trace is a part of --json", remedy="padlite chat -p TEXT --json --trace")
    overrides = Overrides(
        model=model, reward=reward, weights=weight, plain=plain, system=system, overflow=overflow,
        decoding=cast("Decoding", _given(numbers, Decoding.__annotations__)),
        threads=threads, context_length=context_length, gpu_layers=gpu_layers, device=device,
    )  # fmt: skip
    wanted = apply(chosen_profile(profile), overrides)
    if not one_shot:
        return _talk(wanted, keeping)
    text = read_prompt(prompt, _piped(sys.stdin))
    return _answer(wanted, keeping, text, Output(json=json_output, trace=trace, stream=not no_stream))


def _given(numbers: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    """Return those of *names* that were given on the command line."""
    return {name: numbers[name] for name in names if numbers.get(name) not in {None, ()}}


def _refuse_contradictions(keeping: Keeping, *, one_shot: bool, one_shot_only: bool) -> None:
    if keeping.latest and keeping.name is not None:
        raise UsageError("--continue and --session name two conversations", remedy="use one of them")
    if one_shot_only and not one_shot:
        raise UsageError("--json, --trace and --no-stream are for one answer", remedy="add -p TEXT")


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _piped(stream: TextIO | None) -> BinaryIO | None:
    """Return the bytes that were piped in; None if a person sits there."""
    if _is_terminal(stream):
        return None
    return io.BytesIO() if stream is None or stream.closed else stream.buffer


def _answer(profile: Profile, keeping: Keeping, prompt: str, output: Output) -> int:
    """Print one answer and return the exit code."""
    with ExitStack() as stack:
        chat, screen = stack.enter_context(_opened(profile, keeping))
        from padlite.cli.one_shot import answer_once

        return answer_once(chat, screen, prompt, output)


def _talk(profile: Profile, keeping: Keeping) -> int:
    """Hold a conversation on the terminal and return the exit code."""
    with ExitStack() as stack:
        chat, screen = stack.enter_context(_opened(profile, keeping))
        from padlite.cli.commands import COMMANDS
        from padlite.cli.keyboard import Keyboard
        from padlite.cli.repl import Repl

        repl = Repl(chat, screen)
        keyboard = Keyboard(
            commands=COMMANDS,
            words=lambda command: command.complete(chat) if command.complete else (),
            status=repl.status,
            history=chat.paths.input_history if keeping.save else None,
            interrupts=chat.interrupts,
            color=settings.color_wanted(),
        )
        repl.run(keyboard)
    return 0


@contextmanager
def _opened(profile: Profile, keeping: Keeping) -> "Iterator[tuple[Conversation, Screen]]":
    """Load what *profile* names, find the kept conversation, and yield the chat; signals are handled meanwhile."""
    from padlite.cli.interrupts import Interrupts

    interrupts = Interrupts()
    with ExitStack() as stack:
        stack.enter_context(interrupts.listening())
        with interrupts.loading():
            from padlite.cli.conversation import Conversation
            from padlite.cli.recorder import Recorder, restored
            from padlite.cli.screen import open_screen

            screen = open_screen()
            store = stack.enter_context(_store(keeping, screen))
            name, messages = _kept(keeping, store)
            opened = stack.enter_context(_loaded(profile, screen))
        recorder = Recorder(
            store if keeping.save else None,
            model=opened.model_name,
            profile=profile.name,
            notify=screen.warn,
            name=name,
        )
        if messages and name is not None:
            opened.session.restore(restored(messages))
            recorder.resume(name, messages)
        yield (
            Conversation(
                session=opened.session,
                recorder=recorder,
                store=store,
                profile=opened.profile,
                read=opened.models.read,
                model_name=opened.model_name,
                defaults=opened.source.defaults,
                paths=settings.paths(),
                interrupts=interrupts,
            ),
            screen,
        )


@contextmanager
def _loaded(profile: Profile, screen: "Screen") -> "Iterator[OpenChat]":
    """Open the models, with a sign of life if that takes a while."""
    from padlite.cli.interrupts import silent_typing
    from padlite.cli.waiting import waiting

    with ExitStack() as stack:
        with silent_typing(), waiting(screen.notes.file, "loading the model …"):
            from padlite.opening import open_chat

            opened = stack.enter_context(open_chat(profile))
        yield opened


@contextmanager
def _store(keeping: Keeping, screen: "Screen") -> "Iterator[SessionStore | None]":
    """Yield the store, or None when nothing shall be kept or read, or when (said once) it can't be opened."""
    if not (keeping.save or keeping.latest or keeping.name is not None):
        yield None
        return
    from padlite.store import SessionStore

    try:
        store = SessionStore.open(settings.paths().sessions)
    except StoreError as error:
        if keeping.latest or keeping.name is not None:
            raise
        screen.warn(f"The conversation can't be saved: {error.message}. The chat goes on.")
        yield None
        return
    with store:
        yield store


def _kept(keeping: Keeping, store: "SessionStore | None") -> "tuple[str | None, tuple[StoredMessage, ...]]":
    """Return the name and the messages of the conversation to go on with; no messages if it is new."""
    if store is None:
        return None, ()
    if keeping.latest:
        latest = store.latest()
        if latest is None:
            raise NotFoundError("there is no conversation to go on with", remedy="padlite chat")
        return latest.name, store.messages(latest.name)
    if keeping.name is None:
        return None, ()
    try:
        return keeping.name, store.messages(keeping.name)
    except NotFoundError:
        return check_name(keeping.name, kind="session"), ()
