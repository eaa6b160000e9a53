"""The contrast teacher: steps the base model with and without the sentences, and shows every state to a pupil.

Shapes: k candidates, m sentences, d width of the hidden state. Log-probabilities and rewards in nats. Knows neither
what the answers are for nor who chooses their tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from padlite.contrast import ContrastReward
from padlite.prompt import prompt_tokens
from padlite.scoring import log_normalizer, top_k
from padlite.seams import BaseState, Dimension, FloatArray, Message, Step, TokenArray, Tokenizer
from padlite.streams import ManySequences, Streams
from padlite.template import ChatTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class TaughtState:
    """One state: *hidden* (d,), *candidates* (k,), their log-probabilities *base* (k,), rewards *features* (k, m)."""

    hidden: FloatArray
    candidates: TokenArray
    base: FloatArray
    features: FloatArray


class ContrastTeacher:
    """Answers on sequence 0 of *base*; each of *sentences* needs one of the sequences from 1 on."""

    def __init__(
        self,
        base: ManySequences,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        sentences: Sequence[str],
        *,
        candidates: int,
    ) -> None:
        self.tokenizer: Tokenizer = tokenizer
        self.candidates: int = candidates
        self._template, self._streams = template, Streams(base)
        named = [(Dimension(name=str(number)), text) for number, text in enumerate(sentences)]
        self._contrast = ContrastReward(
            self._streams, tokenizer, template, named, sequences=range(1, len(sentences) + 1)
        )  # fmt: skip
        self._everything = np.ones(len(sentences), dtype=np.float32)
        self._scratch = np.empty(base.vocabulary_size, dtype=np.float32)
        self._context: list[int] = []

    @property
    def reserved_tokens(self) -> int:
        """How much longer than a plain prompt the longest with a sentence is."""
        return self._contrast.reserved_tokens

    @property
    def context_length(self) -> int:
        """How many tokens each of its contexts holds."""
        return self._streams.context_length

    def prompt_room(self, *, answer_tokens: int) -> int:
        """Return how many tokens each of two prompts in a row may have, beside both answers and any sentence."""
        word = Message(role="user", content="Hello.")
        frame = prompt_tokens(self._template, self.tokenizer, [word, Message(role="assistant", content="Hello."), word])
        words = 3 * len(self.tokenizer.encode("Hello.", special=False))
        return (self.context_length - self.reserved_tokens - (len(frame) - words) - 2 * answer_tokens) // 2

    def begin(self, messages: Sequence[Message]) -> TaughtState:
        """Return the state in which the answer to *messages* begins."""
        self._context = prompt_tokens(self._template, self.tokenizer, messages)
        state = self._streams.prefill(self._context)
        self._contrast.begin(messages, self._context, _never)
        return self._look(state)

    def step(self, token: int) -> TaughtState:
        """Return the state after *token*."""
        self._context.append(token)
        return self._look(self._streams.step(token))

    def _look(self, state: BaseState) -> TaughtState:
        """Return what is to be learned from *state*, copied: the contrast steps the engine, in whose memory it lies."""
        candidates = top_k(state.logits, self.candidates)
        logits, hidden = state.logits[candidates], state.hidden.copy()
        base: FloatArray = logits - np.float32(log_normalizer(state.logits, self._scratch, peak=logits[0]))
        step = Step(
            context=self._context, candidates=candidates, base_logits=logits, hidden=hidden, weights=self._everything
        )  # fmt: skip
        return TaughtState(hidden=hidden, candidates=candidates, base=base, features=self._contrast.features(step))


def _never() -> bool:
    return False
