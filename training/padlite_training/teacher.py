"""The contrast teacher: the base model with a style sentence in its system turn against the base model without it.

At every state it gives the k most likely tokens of the plain model and, for each style i, the log-ratio
φ_i(s, a) = log p(a | s, sentence_i) − log p(a | s) in nats. Shapes: k candidates, m styles, d width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from padlite.backends.llama import LlamaModel
from padlite.prompt import prompt_tokens
from padlite.scoring import log_normalizer, top_k
from padlite.seams import BaseState, FloatArray, TokenArray
from padlite.template import ChatTemplate, Message
from padlite_training.chat_format import CHAT_TEMPLATE


@dataclass(frozen=True, slots=True, kw_only=True)
class TaughtState:
    """One state: *hidden* (d,), *candidates* (k,), their log-probabilities *base* (k,), rewards *features* (k, m)."""

    hidden: FloatArray
    candidates: TokenArray
    base: FloatArray
    features: FloatArray


class ContrastTeacher:
    """Steps the base once without a sentence (sequence 0) and once with each of *sentences* (sequences 1 to m)."""

    def __init__(self, base: LlamaModel, sentences: Sequence[str], *, candidates: int) -> None:
        self.base, self.sentences, self.candidates = base, tuple(sentences), candidates
        self.template = ChatTemplate(CHAT_TEMPLATE)
        self._scratch = np.empty(base.vocabulary_size, dtype=np.float32)

    def begin(self, messages: Sequence[Message]) -> TaughtState:
        """Return the state in which the answer to *messages* (no system turn) begins."""
        plain = self._look(self.base.prefill(self._prompt(messages), sequence=0))
        for number, sentence in enumerate(self.sentences):
            prompt = self._prompt([Message(role="system", content=sentence), *messages])
            self._compare(plain, number, self.base.prefill(prompt, sequence=number + 1))
        return plain

    def step(self, token: int) -> TaughtState:
        """Return the state after *token*."""
        plain = self._look(self.base.step(token, sequence=0))
        for number in range(len(self.sentences)):
            self._compare(plain, number, self.base.step(token, sequence=number + 1))
        return plain

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        return prompt_tokens(self.template, self.base.tokenizer, messages)

    def _look(self, state: BaseState) -> TaughtState:
        candidates = top_k(state.logits, self.candidates)
        return TaughtState(
            hidden=state.hidden.copy(),
            candidates=candidates,
            base=self._scores(state, candidates),
            features=np.zeros((len(candidates), len(self.sentences)), dtype=np.float32),
        )

    def _compare(self, plain: TaughtState, number: int, state: BaseState) -> None:
        plain.features[:, number] = self._scores(state, plain.candidates) - plain.base

    def _scores(self, state: BaseState, candidates: TokenArray) -> FloatArray:
        normalizer = log_normalizer(state.logits, self._scratch, peak=state.logits.max())
        scores: FloatArray = state.logits[candidates] - np.float32(normalizer)
        return scores
