"""Scales a head so that a profile means the same on every base model: weight 1 shifts the base by a fixed mean KL.

Measured on what the base says by itself: greedy answers without any guidance. Shapes: N states, k candidates.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from padlite.errors import DecodingCancelled
from padlite.scoring import log_normalizer, top_k
from padlite.seams import BaseModel, FloatArray, TokenArray, Tokenizer
from padlite_training.pairs.fit import FittedHead
from padlite_training.scaling import scale_for

CANDIDATES = 24
ANSWER_TOKENS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainStates:
    """States of plain answers: *hidden* (N, d), *candidates* (N, k), their log-probabilities *scores* (N, k)."""

    hidden: FloatArray
    candidates: TokenArray
    scores: FloatArray


def plain_states(
    base: BaseModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> PlainStates:
    """Return the states of the base's own greedy answers to *prompts* (token ids)."""
    scratch = np.empty(base.vocabulary_size, dtype=np.float32)
    hidden, candidates, scores = [], [], []
    for prompt in prompts:
        state = base.prefill(prompt, cancelled=cancelled)
        room = min(ANSWER_TOKENS, base.context_length - len(prompt))
        for number in range(1, room + 1):
            if cancelled():
                raise DecodingCancelled("stopped", remedy="")
            best = top_k(state.logits, CANDIDATES)
            hidden.append(state.hidden.copy())
            candidates.append(best)
            scores.append(
                state.logits[best] - np.float32(log_normalizer(state.logits, scratch, peak=state.logits[best[0]]))
            )
            token = int(best[0])
            if tokenizer.is_end(token) or number == room:
                break
            state = base.step(token)
    return PlainStates(hidden=np.stack(hidden), candidates=np.stack(candidates), scores=np.stack(scores))


def calibrated(
    head: FittedHead, states: PlainStates, table: FloatArray, *, names: Sequence[str], shift: float
) -> FittedHead:
    """Return *head* scaled so that each dimension at weight 1 shifts the base by *shift* nats per token of *states*.

    *table* (V, d) is the base's output table, *names* (m) are the dimensions'. Raises PadliteError that names a
    dimension which does next to nothing.
    """
    words = table @ head.projection
    projected = np.einsum("nd,mdr->mnr", states.hidden, head.maps)
    scales = np.array(
        [
            scale_for(states.scores, np.einsum("nkr,nr->nk", words[states.candidates], each), shift, name=repr(name))
            for name, each in zip(names, projected, strict=True)
        ],
        dtype=np.float32,
    )  # fmt: skip
    return dataclasses.replace(head, maps=head.maps * scales[:, None, None], scales=head.scales * scales)
