"""The Python API: `padlite.open` loads a model and gives a `Chat`; more of them share it by `new` and `fork`.

A chat is a conversation. Its methods may be called from any thread and, with an `a` before their name, from an event
loop; the model itself runs on one thread of its own (`padlite.engine`). Prints nothing, handles no signals, keeps no
global state. Knows conversations through `Session`, and models through `opening`.
"""

import contextlib
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from padlite.chat_file import read_conversation, write_conversation
from padlite.engine import AHEAD, Engine, Job, Over
from padlite.errors import PadliteError, UsageError
from padlite.mailbox import LoopMailbox, ThreadMailbox
from padlite.opening import OpenModels, open_models
from padlite.options import DecodingOptions
from padlite.profile import Profile, load_profile
from padlite.seams import Dimension, Message
from padlite.sequences import Seat, Sequences
from padlite.session import Answer, Event, Finished, Session, Token

MOST_PARALLEL = 16
PACE_S = 0.01  # between two groups of `aregenerate_in_groups`


def open(  # noqa: A001 — `padlite.open` is what the caller writes
    profile: str | Path | Profile | None = None,
    *,
    model: str | Path | None = None,
    device: str | None = None,
    parallel: int = 1,
    waiting: int | None = None,
    sentences: int | None = None,
) -> "Chat":
    """Load a model and return a chat on it; close it, or use it in a `with` block.

    *profile* is the name of one of the person's profiles, a file, a `Profile`, or None for no preferences. *model* is
    the name of a bundle or a GGUF file, and *device* where both models run (auto, cpu or cuda), instead of the
    profile's. Up to *parallel* conversations are answered in turns, each with a whole context of its own in memory, the
    others wait; more than *waiting* that wait are refused (None: never). Each has room for so many *sentences* of a
    profile (None: as many as *profile* has).

    Raises NotFoundError for a profile or a model that isn't there, ProfileError, and BackendError for models that can't
    be used or a device that can't be had, UsageError for a *parallel* below 1 or above 16 or an unknown device.
    """
    if not 1 <= parallel <= MOST_PARALLEL:
        raise UsageError(
            f"parallel must be from 1 to {MOST_PARALLEL}, not {parallel!r}", remedy="padlite.open(…, parallel=2)"
        )
    chosen = profile if isinstance(profile, Profile) else load_profile(str(profile)) if profile else Profile()
    if model is not None:
        chosen = chosen.on_model(str(model.absolute() if isinstance(model, Path) else model))
    if device is not None:
        chosen = chosen.on_device(device)
    engine = Engine(slots=parallel, limit=waiting)
    models = engine.load(open_models(chosen, parallel=parallel, sentences=sentences))
    return Chat(Opened(engine, models), chosen, owner=True)


class Opened:
    """Loaded models with the engine that runs them; closed when nobody has it any more."""

    def __init__(self, engine: Engine, models: OpenModels) -> None:
        self.engine: Engine = engine
        self.models: OpenModels = models
        self.sequences: Sequences = Sequences(models.base, models.sequences)
        self._finalizer = weakref.finalize(self, engine.stop)

    def read(self, profile: Profile) -> Profile:
        """Return *profile* with the weights that its preference text stands for; a new text waits for the engine."""
        if not self.models.has_read(profile):
            box = ThreadMailbox()
            reading = Job(events=self._reading(profile), deliver=box.put, stop=lambda: None)
            self.engine.submit(reading)
            over = box.take()[-1]  # the only thing that it delivers
            if isinstance(over, Over) and over.error is not None:
                raise over.error
        return self.models.read(profile)

    def _reading(self, profile: Profile) -> Iterator[Event]:
        """Read *profile* on the engine's thread; nothing is to be delivered."""
        self.models.read(profile)
        yield from ()

    def close(self) -> None:
        """Stop the engine, which frees the models."""
        self._finalizer()


class Weights(Mapping[str, float]):
    """How much of each dimension the person wants: assign to change it, and the next token that is decoded uses it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> float:
        return self._session.weights[name]

    def __setitem__(self, name: str, value: float) -> None:
        """Set one weight. Raises UsageError for a dimension that the model lacks or a value out of range."""
        with self._lock:
            self._session.set_weight(name, value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._session.weights)

    def __len__(self) -> int:
        return len(self._session.dimensions)

    def __repr__(self) -> str:
        return repr(self._session.weights)

    def update(self, weights: Mapping[str, float]) -> None:
        """Set several weights."""
        for name, value in weights.items():
            self[name] = value


@dataclass(slots=True)
class _Turn:
    """Whether the answer being decoded was cancelled, and its job once it is handed in."""

    cancelled: bool = False
    job: Job | None = None

    def cancel(self) -> None:
        self.cancelled = True
        if self.job is not None:
            self.job.cancel()


class Chat:
    """One conversation with a loaded model. Made by `padlite.open`, `new` and `fork`.

    One answer at a time: a second one raises UsageError until the first was read to its end, cancelled or left. The
    model works at most a few tokens ahead of the reader, unless somebody else waits for it.
    """

    def __init__(self, opened: Opened, profile: Profile, *, owner: bool, client: str = "") -> None:
        self._opened, self._owner, self._client = opened, owner, client
        self._engine = opened.engine
        self.profile: Profile = opened.read(profile)
        self._seat = Seat(opened.sequences)
        self._session = opened.models.session(self.profile, base=self._seat)
        self._lock = threading.Lock()
        self._turn: _Turn | None = None
        self._closed = False
        self.weights: Weights = Weights(self._session)
        """The weight of each dimension; assign to it at any time, also while an answer is being decoded."""

    # answers

    def stream(self, text: str) -> Generator[str, None, None]:
        """Yield the answer to *text*, piece by piece; leaving the loop ends the answer, and what was said is kept.

        Raises UsageError for an empty message, a closed chat or a second answer at the same time, ContextFullError when
        it doesn't fit, BackendError when the model fails.
        """
        return _pieces(self.events(text))

    def reply(self, text: str) -> Answer:
        """Return the whole answer to *text*, with usage, timings and the trace of every token; raises as `stream`."""
        return _last(self.events(text))

    def events(self, text: str) -> Generator[Event, None, None]:
        """Yield what happens: `Token` with its text and trace, `Dropped`, and at the end `Finished` with the answer."""
        return self._read(lambda: self._session.say(text))

    def regenerate(self) -> Generator[Event, None, None]:
        """Yield the events of another answer to the last message, in place of the last answer."""
        return self._read(self._session.regenerate)

    def astream(self, text: str) -> AsyncGenerator[str, None]:
        """Yield the answer to *text*, piece by piece, in an event loop; raises as `stream`."""
        return _apieces(self.aevents(text))

    async def areply(self, text: str) -> Answer:
        """Return the whole answer to *text*; cancelling the task cancels the answer. Raises as `stream`."""
        answer: Answer | None = None
        async with contextlib.aclosing(self.aevents(text)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    answer = event.answer
        if answer is None:
            raise _no_end()
        return answer

    def aevents(self, text: str) -> AsyncGenerator[Event, None]:
        """Yield what `events` yields, in an event loop."""
        return self._aread(lambda: self._session.say(text))

    def aregenerate(self) -> AsyncGenerator[Event, None]:
        """Yield what `regenerate` yields, in an event loop."""
        return self._aread(self._session.regenerate)

    def aregenerate_in_groups(self) -> AsyncGenerator[Sequence[Event], None]:
        """Yield what `aregenerate` yields, those together that come within a hundredth of a second: for a server.

        The model goes on to the end whether anybody reads or not.
        """
        box = LoopMailbox(rest_s=PACE_S, many=sys.maxsize)
        return self._agroups(self._session.regenerate, box, ahead=None)

    def cancel(self) -> None:
        """End the answer being decoded, whether it waits, reads its prompt or speaks; from any thread.

        Its reader gets what was said, with the finish reason ``cancelled``. Without an answer nothing happens.
        """
        turn = self._turn
        if turn is not None:
            turn.cancel()

    def require_room(self) -> None:
        """Raise ContextFullError unless what was said fits the context with room for an answer."""
        with self._between_answers():
            self._session.require_room()

    @property
    def position(self) -> int:
        """How many answers begin before this chat's, counting it: 0 when it is being decoded or none was asked for."""
        turn = self._turn
        return self._engine.position(turn.job) if turn is not None and turn.job is not None else 0

    # the conversation

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was said, without the system message."""
        return self._session.messages

    @property
    def options(self) -> DecodingOptions:
        """How answers are decoded; assign a changed copy (`dataclasses.replace`)."""
        return self._session.options

    @options.setter
    def options(self, options: DecodingOptions) -> None:
        self._session.options = options

    @property
    def system(self) -> str:
        """What the model is told before the conversation."""
        return self._session.system

    @system.setter
    def system(self, text: str) -> None:
        with self._between_answers():
            self._session.system = text

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions that the model's rewards have."""
        return self._session.dimensions

    @property
    def model_name(self) -> str:
        """The bundle's name, or the file name of a bare GGUF."""
        return self._opened.models.source.name

    @property
    def context_length(self) -> int:
        """Tokens that the conversation may take."""
        return self._session.context_length

    @property
    def context_used(self) -> int:
        """Tokens that the conversation takes as it stands."""
        with self._between_answers():
            return self._session.context_used

    def describe_token(self, token: int) -> str:
        """Return the text of one token id, such as a candidate's in a `TokenTrace`."""
        self._engine.require_usable()
        return self._session.describe_token(token)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token id: it may be a part of a character."""
        self._engine.require_usable()
        return self._opened.models.base.tokenizer.piece(token)

    def undo(self) -> bool:
        """Forget the last message and its answer; false if there is none."""
        with self._between_answers():
            return self._session.undo()

    def clear(self) -> None:
        """Begin anew; weights, options and the system message stay."""
        with self._between_answers():
            self._session.clear()

    def restore(self, conversation: str | Path | Iterable[Message]) -> None:
        """Go on from *conversation*: a file that `save` wrote, or messages.

        The model goes on exactly as it would have, if it is the one that gave the answers. Raises NotFoundError, and
        StoreError for a file that holds no conversation.
        """
        messages = read_conversation(Path(conversation)) if isinstance(conversation, str | Path) else conversation
        with self._between_answers():
            self._session.restore(list(messages))

    def save(self, path: str | Path) -> None:
        """Write the conversation to the file *path*, readable by its owner alone, whole or not at all.

        Raises StoreError if it can't be written.
        """
        with self._between_answers():
            messages = self._session.messages
        write_conversation(Path(path), messages, model=self.model_name)

    def fork(self) -> "Chat":
        """Return a second conversation that begins as this one stands; its prompt is not evaluated again."""
        with self._between_answers():
            chat = Chat(self._opened, self.profile, owner=False)
            chat._session.restore(self._session.messages)
            chat._session.system = self._session.system
            chat._session.options = self._session.options
            chat.weights.update(self._session.weights)
        return chat

    @property
    def load(self) -> tuple[int, int]:
        """How many answers are being decoded on the loaded model, and how many wait."""
        return self._engine.running, self._engine.waiting

    def new(self, profile: str | Path | Profile | None = None, *, client: str = "") -> "Chat":
        """Return a new conversation on the same loaded model, for the same *profile* or another one.

        *client* names who asks, for a program that serves several: they are answered in rounds.

        Raises UsageError if that one is for another model, ProfileError if it weighs a dimension that this one lacks.
        """
        self._require_open()
        chosen = self.profile
        if profile is not None:
            chosen = profile if isinstance(profile, Profile) else load_profile(str(profile))
        if not chosen.has_model_of(self.profile):
            raise UsageError(
                f"this profile is for another model than {self.model_name}",
                remedy="open it on its own: padlite.open(profile)",
            )
        return Chat(self._opened, chosen, owner=False, client=client)

    def close(self) -> None:
        """End the conversation; the chat that `padlite.open` gave frees the model, for all that share it."""
        self._closed = True
        if self._owner:
            self._opened.close()
        else:
            self.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # inside

    def _require_open(self) -> None:
        if self._closed:
            raise UsageError("this chat is closed", remedy="open it again: padlite.open(…)")
        self._engine.require_usable()

    @contextlib.contextmanager
    def _between_answers(self) -> Iterator[None]:
        """Do something to the conversation that no answer may change meanwhile."""
        self._require_open()
        with self._lock:
            if self._turn is not None:
                raise _answering()
            yield

    def _read(self, events: Callable[[], Iterator[Event]]) -> Generator[Event, None, None]:
        """Let the engine decode *events* and yield them."""
        box = ThreadMailbox()
        over: Over | None = None
        with self._turn_of(events, box.put, AHEAD) as job:
            try:
                while over is None:
                    group, over = _until_over(box.take())
                    yield from group
                    job.took(len(group))
            except BaseException:  # the reader left: what was said was said, once the engine is through with it
                job.cancel()
                while over is None:
                    _, over = _until_over(box.take())
                raise
            if over.error is not None:
                raise over.error

    async def _aread(self, events: Callable[[], Iterator[Event]]) -> AsyncGenerator[Event, None]:
        """Let the engine decode *events* and yield them to an event loop."""
        async with contextlib.aclosing(self._agroups(events, LoopMailbox(), ahead=AHEAD)) as groups:
            async for group in groups:
                for event in group:
                    yield event

    async def _agroups(
        self, events: Callable[[], Iterator[Event]], box: LoopMailbox, *, ahead: int | None
    ) -> AsyncGenerator[Sequence[Event], None]:
        """Let the engine decode *events* into *box* and yield what is taken from it."""
        over: Over | None = None
        with self._turn_of(events, box.put, ahead) as job:
            try:
                while over is None:
                    group, over = _until_over(await box.take())
                    if group:
                        yield group
                    job.took(len(group))
            except BaseException:
                job.cancel()
                while over is None:
                    _, over = _until_over(await box.take())
                raise
            if over.error is not None:
                raise over.error

    @contextlib.contextmanager
    def _turn_of(
        self, events: Callable[[], Iterator[Event]], deliver: Callable[[Event | Over], None], ahead: int | None
    ) -> Iterator[Job]:
        """Hand an answer to the engine; until it is through, this conversation takes no other."""
        self._require_open()
        turn = _Turn()
        with self._lock:
            if self._turn is not None:
                raise _answering()
            self._turn = turn
        try:
            job = Job(
                events=self._answering(events, turn),
                deliver=deliver,
                stop=self._session.cancel,
                client=self._client,
                ahead=ahead,
            )
            turn.job = job
            if turn.cancelled:
                job.cancel()
            self._engine.submit(job)
            yield job
        finally:
            self._turn = None

    def _answering(self, events: Callable[[], Iterator[Event]], turn: _Turn) -> Iterator[Event]:
        """Yield the events on the engine's thread, with a sequence of the model that is given back at the end."""
        self._seat.stopped = lambda: turn.cancelled
        try:
            yield from events()
        finally:
            self._seat.release()


def _until_over(items: list[Event | Over]) -> tuple[list[Event], Over | None]:
    """Return the events among *items*, and the end if it is there: nothing comes after it."""
    last = items[-1]
    events = [item for item in items if not isinstance(item, Over)]
    return events, last if isinstance(last, Over) else None


def _pieces(events: Generator[Event, None, None]) -> Generator[str, None, None]:
    with contextlib.closing(events):
        heard = 0
        for event in events:
            text = _text_of(event, heard)
            if text:
                heard += len(text)
                yield text


async def _apieces(events: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    async with contextlib.aclosing(events):
        heard = 0
        async for event in events:
            text = _text_of(event, heard)
            if text:
                heard += len(text)
                yield text


def _text_of(event: Event, heard: int) -> str:
    """Return what *event* adds to the *heard* characters of an answer."""
    if isinstance(event, Token):
        return event.text
    return event.answer.text[heard:] if isinstance(event, Finished) else ""


def _last(events: Iterator[Event]) -> Answer:
    answer = next((event.answer for event in events if isinstance(event, Finished)), None)
    if answer is None:
        raise _no_end()
    return answer


def _answering() -> UsageError:
    return UsageError(
        "this conversation is being answered",
        remedy="read that answer to its end or cancel() it; fork() and new() give conversations of their own",
    )


def _no_end() -> PadliteError:
    return PadliteError("the answer ended without a reason", remedy="ask again")
