"""What the decoding loop asks of a base model, a tokenizer and a reward model, and the records that pass between them.

Shapes: V vocabulary, d width of the hidden state, k candidates, m dimensions. Arrays are float32, token ids plain
integers or int64 arrays, log-probabilities in nats. What is made for every token is a named tuple: a frozen dataclass
takes twice as long to make. Knows no library that runs a model.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
TokenArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn: *role* is ``system``, ``user`` or ``assistant``.

    *tokens* are the ids of an answer as they were generated, so that a conversation goes on from exactly these.
    """

    role: str
    content: str
    tokens: tuple[int, ...] = ()


class BaseState(NamedTuple):
    """What the base model knows after its last token: *logits* (V,) and the *hidden* state (d,).

    Both are views into the engine's memory, valid until its next call; *hidden* is empty when the engine was opened
    without hidden states.
    """

    logits: FloatArray
    hidden: FloatArray


class Step(NamedTuple):
    """One decision as a reward model sees it.

    *context* are the token ids so far (prompt and answer), *candidates* (k,) the base model's best, best first,
    *base_logits* (k,) their logits as the base gave them, before any penalty, *hidden* (d,) the base model's last
    hidden state: a view, gone when the engine is called. *weights* (m,) say which dimensions are wanted: one that
    weighs 0 need not be computed, and what its feature is then doesn't matter if only it is finite.
    """

    context: Sequence[int]
    candidates: TokenArray
    base_logits: FloatArray
    hidden: FloatArray
    weights: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One thing a person can prefer more or less of; *scale* is the calibration already contained in the reward."""

    name: str
    description: str = ""
    scale: float = 1.0


class BaseModel(Protocol):
    """A language model that is stepped token by token, with a cache per sequence."""

    @property
    def vocabulary_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    @property
    def evaluated_tokens(self) -> int:
        """Tokens evaluated since the model was opened: how tests and people see that nothing is evaluated twice."""
        ...

    def prefill(
        self, tokens: Sequence[int], *, sequence: int = 0, cancelled: Callable[[], bool] | None = None
    ) -> BaseState:
        """Make *sequence* hold exactly *tokens* (at least one), evaluating only what its cache lacks.

        Raises ContextFullError when they don't fit and DecodingCancelled soon after *cancelled* turns true.
        """
        ...

    def step(self, token: int, *, sequence: int = 0) -> BaseState:
        """Append one token to *sequence* and return the state after it; ContextFullError when there is no room."""
        ...

    def fork(self, source: int, target: int) -> None:
        """Make sequence *target* a copy of *source*: nothing is evaluated."""
        ...


class KnownTexts(Protocol):
    """A base model that evaluates texts that are known beforehand, many tokens at once."""

    @property
    def vocabulary_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def context_length(self) -> int: ...

    def states(
        self, tokens: Sequence[int], *, first: int, sequence: int = 0, cancelled: Callable[[], bool] | None = None
    ) -> Iterator[BaseState]:
        """Make *sequence* hold *tokens* and yield the state after each of them from the one at *first* on.

        Raises what `BaseModel.prefill` raises.
        """
        ...


class PromptTokenizer(Protocol):
    """Text to token ids, for a prompt."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of *text*; control tokens in it are recognized only when *special* is true. Adds no BOS."""
        ...

    @property
    def control_texts(self) -> frozenset[str]:
        """The texts of all control tokens, such as ``<|im_end|>``."""
        ...

    @property
    def beginning(self) -> int | None:
        """The token that must begin every text (BOS), or None if the model wants none."""
        ...


class Tokenizer(PromptTokenizer, Protocol):
    """Text to token ids of the base model and back."""

    def piece(self, token: int) -> bytes:
        """Return the bytes that *token* adds to the text; empty for control tokens."""
        ...

    def is_end(self, token: int) -> bool:
        """Tell whether *token* ends the answer."""
        ...


class RewardModel(Protocol):
    """Scores candidates in each dimension.

    One that keeps a state (a cache of its own) belongs to one conversation; a reward head keeps none and may be shared.
    """

    @property
    def dimensions(self) -> tuple[Dimension, ...]: ...

    @property
    def reserved_tokens(self) -> int:
        """Tokens of the base's context that its own prompt needs on top of the base's, at most; 0 for a head."""
        ...

    def begin(self, messages: Sequence[Message], prompt: Sequence[int], cancelled: Callable[[], bool]) -> None:
        """Note that an answer to *messages* (the system message first) begins, whose base context is *prompt*.

        Evaluates nothing: that waits for `features`, as nobody may ask. The conversation may have gone on, gone back or
        be another one. *cancelled* tells whether the answer was stopped, until the next call.
        """
        ...

    def advance(self, context: Sequence[int], weights: FloatArray) -> None:
        """Note that the base is about to evaluate the last token of *context*; one that evaluates it too may begin now.

        A hint, given only while rewards count: `features` may be asked without it, or not at all. *weights* (m,) say
        which dimensions are wanted. Leaves the engine alone, which is busy with that token.
        """
        ...

    def features(self, step: Step) -> FloatArray:
        """Return the reward of each candidate in each dimension, (k, m), in nats at guidance strength 1.

        Called for tokens in order, but not for all: a weight may turn from 0 in mid-answer. May call the engine, so
        views into its memory are gone afterwards. Raises DecodingCancelled, and ContextFullError when there is no room.
        """
        ...


class Constraint(Protocol):
    """What an answer must look like; follows one answer, token by token."""

    def allowed(self, candidates: TokenArray) -> BoolArray:
        """Tell of each of *candidates* (k,) whether it may come next."""
        ...

    def accept(self, token: int) -> None:
        """Note that *token*, one of those allowed, came."""
        ...
