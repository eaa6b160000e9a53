"""A whole chat on a fake base model: session, store on disk, screen in memory. For tests of what the terminal does."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from padlite.cli.conversation import Conversation
from padlite.cli.interrupts import Interrupts
from padlite.cli.recorder import Recorder
from padlite.cli.screen import Screen
from padlite.options import DecodingOptions, OverflowPolicy
from padlite.profile import Profile
from padlite.seams import FloatArray, RewardModel
from padlite.session import Session
from padlite.settings import Paths
from padlite.store import SessionStore
from padlite.template import ChatTemplate
from tests.fakes import ALPHABET, END, LetterTokenizer, TableBase, spelling

TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}<end>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}a<end>{% endif %}"
)


@dataclass
class Heard:
    """A listener that remembers; *stop_after* characters it cancels."""

    said: str = ""
    dropped_turns: int = 0
    pieces: list[str] = field(default_factory=list)

    def text(self, text: str) -> None:
        self.said += text
        self.pieces.append(text)

    def dropped(self, turns: int) -> None:
        self.dropped_turns += turns


@dataclass
class Stage:
    """A chat and what can be seen of it."""

    chat: Conversation
    screen: Screen
    store: SessionStore
    notices: list[str]

    @property
    def answers(self) -> str:
        """What went to stdout."""
        return _written(self.screen.answers)

    @property
    def notes(self) -> str:
        """What went to stderr."""
        return _written(self.screen.notes)

    def kept(self, name: str | None = None) -> list[tuple[str, str]]:
        """What the store holds of the session *name* (default: this chat's)."""
        found = name or self.chat.recorder.name
        assert found is not None
        return [(message.role, message.content) for message in self.store.messages(found)]

    def say(self, text: str) -> str:
        """Say *text* and return the answer."""
        return self.chat.turn(self.chat.session.say(text), Heard()).text


def stage(
    folder: Path,
    answer: str = "yes",
    *,
    reward: RewardModel | None = None,
    name: str | None = None,
    width: int = 80,
    keep: bool = True,
    context_length: int = 256,
    max_tokens: int = 40,
    overflow: OverflowPolicy = OverflowPolicy.STOP,
) -> Stage:
    """A chat whose base says *answer* to everything and whose store lies in *folder*."""

    def rule(tokens: Sequence[int]) -> FloatArray:
        begin = len(tokens) - list(tokens)[::-1].index(END)
        return spelling(answer, after=begin)(tokens)

    session = Session(
        base=TableBase(rule, vocabulary_size=len(ALPHABET), context_length=context_length),
        tokenizer=LetterTokenizer(),
        template=ChatTemplate(TEMPLATE),
        reward=reward,
        options=DecodingOptions(max_tokens=max_tokens),
        overflow=overflow,
    )
    notices: list[str] = []
    paths = Paths(config=folder / "config", data=folder / "data", cache=folder / "cache")
    store = SessionStore.open(paths.sessions)
    recorder = Recorder(store if keep else None, model="fake", profile="ada", notify=notices.append, name=name)
    chat = Conversation(
        session=session,
        recorder=recorder,
        store=store,
        profile=Profile(name="ada", preferences={}),
        model_name="fake",
        defaults=DecodingOptions(),
        paths=paths,
        interrupts=Interrupts(),
    )
    return Stage(chat=chat, screen=memory_screen(width), store=store, notices=notices)


def memory_screen(width: int = 80) -> Screen:
    """A screen that writes to memory and is no terminal."""
    return Screen(answers=_console(width), notes=_console(width))


def _console(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, highlight=False, emoji=False, markup=False)


def _written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
