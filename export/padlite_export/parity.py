"""Proof that an exported reward LM scores as its checkpoint does: with the cache and without, at several lengths.

Also what it costs: file size and milliseconds a step. Scores are logits, or log-probabilities if the graph says so.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from padlite.backends.onnx_lm import OnnxLm
from padlite_export.checkpoint import Checkpoint

CANDIDATES = 20
LENGTHS = (3, 24, 96)  # tokens before the steps that are compared
STEPS = 16
TEXT = (
    "Once upon a time there was a small model that wanted to be as good as the large ones. What do you think, friend?"
)
_TIMED_STEPS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Over *steps* decisions among 20 candidates: largest and mean difference in nats, how often the best agrees.

    *rank_correlation* is Spearman's, averaged.
    """

    steps: int
    largest_error: float
    mean_error: float
    same_best: float
    rank_correlation: float


def compare(checkpoint: Checkpoint, lm: OnnxLm, *, seed: int = 0) -> Parity:
    """Return how far *lm* is from *checkpoint* on a text and on random tokens, each prefilled and then stepped."""
    rng = np.random.default_rng(seed)
    text = checkpoint.tokenizer.encode(TEXT, add_special_tokens=False).ids
    errors: list[float] = []
    best: list[bool] = []
    ranks: list[float] = []
    for length in (each for each in LENGTHS if each + STEPS <= lm.context_length):
        random = rng.integers(0, lm.info.vocabulary_size, length + STEPS).tolist()
        for tokens in (random, _cut(text, length + STEPS)):
            wanted = checkpoint.logits(tokens)
            if lm.info.normalized:
                wanted = torch.log_softmax(wanted, dim=-1)
            for at in range(length, len(tokens) + 1):
                expected, ids = torch.topk(wanted[at - 1], CANDIDATES)
                fresh = at == length
                new, keep = (tokens[:at], 0) if fresh else (tokens[at - 1 : at], at - 1)
                found = lm.scores(new, ids.numpy(), keep=keep)
                errors.append(float(np.abs(found - expected.numpy()).max()))
                best.append(int(found.argmax()) == 0)
                ranks.append(_spearman(found, expected.numpy()))
    return Parity(
        steps=len(errors),
        largest_error=max(errors),
        mean_error=float(np.mean(errors)),
        same_best=sum(best) / len(best),
        rank_correlation=float(np.mean(ranks)),
    )


def step_ms(lm: OnnxLm, context: int) -> float | None:
    """Return the median milliseconds of one step after *context* tokens; None if they don't fit."""
    if context + _TIMED_STEPS > lm.context_length:
        return None
    candidates = np.arange(CANDIDATES, dtype=np.int64)
    tokens = [at % lm.info.vocabulary_size for at in range(context + _TIMED_STEPS)]
    lm.scores(tokens[:context], candidates, keep=0)
    spent: list[float] = []
    for at in range(context, context + _TIMED_STEPS):
        began = time.perf_counter()
        lm.scores(tokens[at : at + 1], candidates, keep=at)
        spent.append(time.perf_counter() - began)
    return 1000 * statistics.median(spent)


def _cut(text: Sequence[int], length: int) -> list[int]:
    """Return *length* tokens of *text*, repeated if need be."""
    return (list(text) * (length // len(text) + 1))[:length]


def _spearman(left: np.ndarray, right: np.ndarray) -> float:
    a, b = (np.argsort(np.argsort(each)).astype(np.float64) for each in (left, right))
    return float(np.corrcoef(a, b)[0, 1])
