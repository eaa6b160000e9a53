"""A conversation: what was said, what fits the context, and the answer being decoded.

Turns messages into prompts, keeps the person's weights and options, and reports every answer as a stream of events.
Knows the models only through `padlite.seams`; knows no file, no store and no terminal.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from padlite.decode import End, FinishReason, Guidance, Token, decode
from padlite.errors import ContextFullError, PadliteError, UsageError, did_you_mean
from padlite.options import LARGEST_WEIGHT, DecodingOptions, OverflowPolicy
from padlite.prompt import prompt_tokens
from padlite.seams import BaseModel, Constraint, Dimension, RewardModel, Tokenizer
from padlite.template import ChatTemplate, Message

__all__ = [
    "Answer", "Dropped", "Event", "FinishReason", "Finished", "Message", "Session", "Timings", "Token", "Usage",
]  # fmt: skip

_ANSWER_ROOM = 128  # tokens kept free for an answer whose length is not limited, at most a quarter of the context
_KEEP_AFTER_DROP = 0.75  # of the context: dropping a little more than needed keeps it from happening at every turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one answer; only *evaluated_tokens* of the prompt were evaluated, the others were in the cache."""

    prompt_tokens: int
    evaluated_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds: until the first token was decided, and from then to the end."""

    first_token_s: float
    decode_s: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One finished answer, with the seed that repeats it."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    trace: tuple[Token, ...]
    seed: int | None

    @property
    def changed(self) -> int:
        """How many tokens were chosen because of the profile."""
        return sum(token.trace.changed for token in self.trace)

    @property
    def fallbacks(self) -> int:
        """At how many tokens the rewards were unusable and the base model decided."""
        return sum(token.trace.fallback for token in self.trace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """So many of the oldest exchanges no longer fit and were left out for good."""

    turns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last event of an answer."""

    answer: Answer


Event: TypeAlias = Dropped | Token | Finished


@dataclass(slots=True)
class _Clock:
    """When an answer was asked for and when its first token came, in seconds."""

    asked: float = field(default_factory=time.perf_counter)
    first: float = 0.0

    def tick(self) -> None:
        self.first = time.perf_counter()

    def timings(self, tokens: int) -> Timings:
        now = time.perf_counter()
        first = self.first or now
        spent = now - first
        rate = (tokens - 1) / spent if tokens > 1 and spent > 0 else 0.0
        return Timings(first_token_s=first - self.asked, decode_s=spent, tokens_per_s=rate)


class Session:
    """One conversation on one sequence of a base model."""

    def __init__(
        self,
        *,
        base: BaseModel,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        reward: RewardModel | None = None,
        weights: Mapping[str, float] | None = None,
        options: DecodingOptions | None = None,
        system: str = "",
        overflow: OverflowPolicy = OverflowPolicy.STOP,
        sequence: int = 0,
        constrain: Callable[[str], Constraint] | None = None,
    ) -> None:
        self._constrain = constrain
        self._base, self._tokenizer, self._template, self._reward = base, tokenizer, template, reward
        self._sequence = sequence
        self._messages: list[Message] = []
        self._used: int | None = None
        self._cancelled = False
        self._options = options or DecodingOptions()
        self.system = system
        self.overflow = overflow
        self.last: Answer | None = None
        self.dimensions: tuple[Dimension, ...] = reward.dimensions if reward else ()
        self._guidance = Guidance(
            weights=np.zeros(len(self.dimensions), dtype=np.float32), strength=self._options.strength
        )
        for name, value in (weights or {}).items():
            self.set_weight(name, value)

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was said, without the system message."""
        return tuple(self._messages)

    @property
    def context_length(self) -> int:
        """Tokens that fit, beside what the reward model needs for a prompt of its own."""
        return self._base.context_length - (self._reward.reserved_tokens if self._reward else 0)

    @property
    def context_used(self) -> int:
        """Tokens that the conversation takes as it stands, with the scaffolding of the answer to come."""
        if self._used is None:
            self._used = len(self._prompt(self._messages)) if self._messages or self.system else 0
        return self._used

    @property
    def system(self) -> str:
        """What the model is told before the conversation, or an empty string."""
        return self._system

    @system.setter
    def system(self, text: str) -> None:
        self._system, self._used = text, None

    @property
    def options(self) -> DecodingOptions:
        """How answers are decoded; assign a changed copy (`dataclasses.replace`)."""
        return self._options

    @options.setter
    def options(self, options: DecodingOptions) -> None:
        self._options = options
        self._guidance.aim(self._guidance.weights, options.strength)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every dimension, a copy."""
        return {dimension.name: float(w) for dimension, w in zip(self.dimensions, self._guidance.weights, strict=True)}

    def set_weight(self, name: str, value: float) -> None:
        """Set how much of dimension *name* the person wants; the next token uses it."""
        names = [dimension.name for dimension in self.dimensions]
        if name not in names:
            listed = ", ".join(names) or "none, because no reward model is loaded"
            raise UsageError(f"unknown dimension {name!r}{did_you_mean(name, names)}", remedy=f"use one of: {listed}")
        if not math.isfinite(value) or abs(value) > LARGEST_WEIGHT:
            raise UsageError(
                f"the weight of {name} must be a number from -{LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}, not {value!r}",
                remedy=f"{name}=0.5",
            )
        weights = self._guidance.weights.copy()
        weights[names.index(name)] = value
        self._guidance.aim(weights, self._options.strength)

    def cancel(self) -> None:
        """Stop the answer being decoded, also during prefill. May be called from a signal handler or any thread."""
        self._cancelled = True

    def say(self, text: str) -> Iterator[Event]:
        """Yield the events of the answer to *text*, the last one being `Finished`.

        Raises UsageError for an empty message and ContextFullError when it doesn't fit, both before any event and with
        the conversation unchanged. A cancelled or abandoned answer is kept as far as it was said.
        """
        yield from self._answer([*self._messages, _said(text)])

    def regenerate(self) -> Iterator[Event]:
        """Yield the events of another answer to the last message, in place of the last answer."""
        yield from self._answer(self._messages[: self._last_user() + 1])

    def edit(self, text: str) -> Iterator[Event]:
        """Yield the events of the answer to *text* said in place of the last message."""
        yield from self._answer([*self._messages[: self._last_user()], _said(text)])

    def undo(self) -> bool:
        """Forget the last message and its answer; false if there is none."""
        if not any(message.role == "user" for message in self._messages):
            return False
        del self._messages[self._last_user() :]
        self.last = self._used = None
        return True

    def clear(self) -> None:
        """Begin anew; system message, weights and options stay."""
        self._messages.clear()
        self.last = self._used = None

    def restore(self, messages: Sequence[Message]) -> None:
        """Go on from *messages*; with the ids they carry, exactly as the conversation they come from would have.

        Ids that don't spell the message to this model (another one generated them) are left out, so its text counts.
        """
        self._messages = [m if self._spells(m) else dataclasses.replace(m, tokens=()) for m in messages]
        self.last = self._used = None

    def describe_token(self, token: int) -> str:
        """Return the text of one token id, for display."""
        return self._tokenizer.piece(token).decode("utf-8", "replace")

    def _spells(self, message: Message) -> bool:
        """Tell whether the ids that *message* carries are this model's way of saying it."""
        if not all(0 <= token < self._base.vocabulary_size for token in message.tokens):
            return False
        pieces = b"".join(self._tokenizer.piece(token) for token in message.tokens)
        return pieces.decode("utf-8", "replace") == message.content

    def _last_user(self) -> int:
        for at in range(len(self._messages) - 1, -1, -1):
            if self._messages[at].role == "user":
                return at
        raise UsageError("nothing was said yet", remedy="write something first")

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        system = [Message(role="system", content=self.system)] if self.system.strip() else []
        return [*system, *messages]

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        return prompt_tokens(self._template, self._tokenizer, self._with_system(messages))

    def _answer(self, messages: list[Message]) -> Iterator[Event]:
        clock = _Clock()
        self._cancelled = False
        constraint = self._constraint()
        kept, prompt = self._fit(messages)
        if len(kept) < len(messages):
            yield Dropped(turns=_exchanges(messages) - _exchanges(kept))
        before, self._messages, self.last = self._messages, list(kept), None
        answer = _Transcript(prompt_tokens=len(prompt), seed=self._seed(), evaluated=self._base.evaluated_tokens)
        if self._reward is not None:
            self._reward.begin(self._with_system(kept), prompt, lambda: self._cancelled)
        events = decode(
            self._base, self._tokenizer, self._reward, prompt,
            options=self._options, guidance=self._guidance, rng=np.random.default_rng(answer.seed),
            cancelled=lambda: self._cancelled, sequence=self._sequence, constraint=constraint,
        )  # fmt: skip
        try:
            for event in events:
                if not answer.tokens:
                    clock.tick()
                    answer.begin(self._base.evaluated_tokens)
                if isinstance(event, Token):
                    answer.tokens.append(event)
                    yield event
                else:
                    answer.end = event
        except PadliteError:
            self._messages = before
            raise
        except BaseException:  # the caller walked away (GeneratorExit, KeyboardInterrupt): what was said was said
            self._keep(answer, before)
            raise
        self._keep(answer, before)
        self.last = answer.finish(clock)
        yield Finished(answer=self.last)

    def _constraint(self) -> Constraint | None:
        """Return what the next answer must look like. Raises UsageError for options that this model can't follow."""
        size = self._base.vocabulary_size
        if any(not 0 <= token < size for token, _ in self._options.logit_bias):
            raise UsageError(
                f"logit_bias names a token that the model lacks: it has {size:,}",
                remedy=f"use ids from 0 to {size - 1}",
            )
        if not self._options.grammar:
            return None
        if self._constrain is None:
            raise UsageError("this model can't follow a grammar", remedy="leave the grammar out")
        return self._constrain(self._options.grammar)

    def require_room(self) -> None:
        """Raise ContextFullError unless what was said fits the context with room for an answer."""
        prompt = self._prompt(self._messages)
        limit = self.context_length - self._room()
        if len(prompt) > limit:
            raise self._full(len(prompt), limit)

    def _keep(self, answer: "_Transcript", before: list[Message]) -> None:
        """Add *answer* to the conversation; one stopped before its first token never was, nor was its question."""
        if answer.tokens or answer.ended:
            self._messages.append(answer.message())
        else:
            self._messages = before
        self._used = None

    def _seed(self) -> int | None:
        """Return the seed of this answer: what was asked for, or a fresh one that can be asked for again."""
        if self._options.temperature == 0.0 or self._options.seed is not None:
            return self._options.seed
        return int(np.random.default_rng().integers(2**32))

    def _fit(self, messages: list[Message]) -> tuple[list[Message], list[int]]:
        """Return what of *messages* fits with room for an answer, and its prompt."""
        prompt = self._prompt(messages)
        limit = self.context_length - self._room()
        if len(prompt) <= limit:
            return messages, prompt
        if self.overflow is OverflowPolicy.STOP:
            raise self._full(len(prompt), limit)
        kept, size = messages, len(prompt)
        target = int(limit * _KEEP_AFTER_DROP)
        while size > target and (shorter := _without_oldest(kept)):
            kept = shorter
            prompt = self._prompt(kept)
            size = len(prompt)
        if size > limit:
            raise self._full(size, limit)
        return kept, prompt

    def _room(self) -> int:
        """Return how many tokens to keep free for the answer."""
        wanted = self._options.max_tokens or _ANSWER_ROOM
        return min(wanted, self.context_length // 4)

    def _full(self, size: int, limit: int) -> ContextFullError:
        return ContextFullError(
            f"the conversation has {size:,} tokens, but only {limit:,} of {self.context_length:,} are free for it",
            remedy='shorten it, start a new one, or set overflow = "drop-oldest" under [context] in the profile',
        )


def _said(text: str) -> Message:
    """Return *text* as the person's turn. Raises UsageError if there is nothing in it."""
    if not text.strip():
        raise UsageError("the message is empty", remedy="write something")
    return Message(role="user", content=text)


def _exchanges(messages: Sequence[Message]) -> int:
    return sum(message.role == "user" for message in messages)


def _without_oldest(messages: list[Message]) -> list[Message]:
    """Return *messages* without the first exchange, or nothing if there is only one."""
    users = [at for at, message in enumerate(messages) if message.role == "user"]
    return messages[users[1] :] if len(users) > 1 else []


@dataclass(slots=True, kw_only=True)
class _Transcript:
    """An answer as it grows; *evaluated* is the base model's count of tokens before it, then of its prompt."""

    prompt_tokens: int
    seed: int | None
    evaluated: int
    tokens: list[Token] = field(default_factory=list)
    end: End | None = None

    @property
    def ended(self) -> bool:
        """Whether the model itself came to an end, be it at once."""
        return self.end is not None and self.end.reason is not FinishReason.CANCELLED

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens) + (self.end.text if self.end else "")

    def begin(self, evaluated: int) -> None:
        """Note what the prompt cost: the base model's count of tokens was *evaluated* at the first event."""
        self.evaluated = evaluated - self.evaluated

    def message(self) -> Message:
        """Return the answer as a turn; one cut at a stop string no longer matches its ids, so it carries none."""
        cut = self.end is not None and self.end.cut
        return Message(role="assistant", content=self.text, tokens=() if cut else tuple(t.id for t in self.tokens))

    def finish(self, clock: _Clock) -> Answer:
        return Answer(
            text=self.text,
            finish_reason=self.end.reason if self.end else FinishReason.CANCELLED,
            usage=Usage(
                prompt_tokens=self.prompt_tokens,
                evaluated_tokens=self.evaluated,
                completion_tokens=len(self.tokens),
            ),
            timings=clock.timings(len(self.tokens)),
            trace=tuple(self.tokens),
            seed=self.seed,
        )
