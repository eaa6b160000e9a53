"""Proof that an exported reward model scores as its source does in PyTorch: what is compared, and the figures of it.

A reward LM is compared on a text and on random tokens, at several lengths, evaluated afresh and with its cache. Also
what a step costs, in milliseconds. Scores are logits, or log-probabilities if the graph says so; errors in nats.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from padlite.backends.onnx_lm import OnnxLm
from padlite.errors import BackendError
from padlite.seams import FloatArray
from padlite_export.checkpoint import Checkpoint

CANDIDATES = 20
LENGTHS = (3, 24, 96, 384)  # tokens before the first decision that is compared
STEPS = 16
TEXT = (
    "Once upon a time there was a small model that wanted to be as good as the large ones. What do you think, friend?"
)
_CHUNK = 4
_TIMED_STEPS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Over *decisions* on the same *inputs*: largest and mean difference in nats, how often the best one agrees.

    *rank_correlation* of the candidates is Spearman's, averaged.
    """

    inputs: str
    decisions: int
    largest_error: float
    mean_error: float
    same_best: float
    rank_correlation: float

    def row(self) -> str:
        """Return its figures on one line, the number of decisions last."""
        errors = f"{self.largest_error:.3g}, {self.mean_error:.3g} nats"
        return f"{errors}; {self.same_best:.2%}; {self.rank_correlation:.4f} ({self.decisions})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """All comparisons, and the same figures over all of them."""

    steps: int
    largest_error: float
    mean_error: float
    same_best: float
    rank_correlation: float
    comparisons: tuple[Comparison, ...]

    @classmethod
    def of(cls, comparisons: Sequence[Comparison]) -> Self:
        """Return *comparisons* put together."""
        steps = sum(each.decisions for each in comparisons)

        def mean(values: Sequence[float]) -> float:
            return sum(each.decisions * value for each, value in zip(comparisons, values, strict=True)) / steps

        return cls(
            steps=steps,
            largest_error=float(np.max([each.largest_error for each in comparisons])),  # NaN stays NaN
            mean_error=mean([each.mean_error for each in comparisons]),
            same_best=mean([each.same_best for each in comparisons]),
            rank_correlation=mean([each.rank_correlation for each in comparisons]),
            comparisons=tuple(comparisons),
        )

    def require(self, largest: float, same: float, *, remedy: str) -> None:
        """Raise BackendError unless no error is over *largest* and at least the share *same* has the same best."""
        if not (self.largest_error <= largest and self.same_best >= same):
            raise BackendError(
                f"the export doesn't score as its source does: largest error {self.largest_error:.4g} (allowed "
                f"{largest:g}), same best candidate in {self.same_best:.1%} of the decisions (needed {same:.1%})",
                remedy=remedy,
            )

    def rows(self) -> list[tuple[str, str]]:
        """Return it as rows of a table: the whole, then each comparison."""
        return [
            ("compared", f"{self.steps} decisions, {CANDIDATES} candidates each"),
            ("largest, mean error", f"{self.largest_error:.3g}, {self.mean_error:.3g} nats"),
            ("same best candidate", f"{self.same_best:.2%}"),
            ("rank correlation", f"{self.rank_correlation:.4f}"),
            *((f"  {each.inputs}", each.row()) for each in self.comparisons),
        ]


class Comparing:
    """Collects decisions, each a pair of scores (k,): *found* and *wanted*."""

    def __init__(self, inputs: str) -> None:
        self.inputs = inputs
        self._pairs: list[tuple[FloatArray, FloatArray]] = []

    def add(self, found: FloatArray, wanted: FloatArray) -> None:
        """Note one decision."""
        self._pairs.append((found, wanted))

    def result(self) -> Comparison:
        """Return what they amount to."""
        errors = [float(np.abs(found - wanted).max()) for found, wanted in self._pairs]
        return Comparison(
            inputs=self.inputs,
            decisions=len(errors),
            largest_error=float(np.max(errors)),
            mean_error=float(np.mean(errors)),
            same_best=float(np.mean([found.argmax() == wanted.argmax() for found, wanted in self._pairs])),
            rank_correlation=float(np.mean([_spearman(found, wanted) for found, wanted in self._pairs])),
        )


def compare(checkpoint: Checkpoint, lm: OnnxLm, *, seed: int = 0) -> Parity:
    """Return how far *lm* is from *checkpoint* on a text and on random tokens, at several lengths.

    Without its cache: the whole text at every decision. With it: one prefill, then single tokens, then back by a few
    tokens and forward again at once.
    """
    rng = np.random.default_rng(seed)
    text = checkpoint.tokenizer.encode(TEXT, add_special_tokens=False).ids
    found: list[Comparison] = []
    for length in (each for each in LENGTHS if each + STEPS <= lm.context_length):
        random = rng.integers(0, lm.info.vocabulary_size, length + STEPS).tolist()
        for name, tokens in (("random", random), ("text", _cut(text, length + STEPS))):
            wanted = checkpoint.logits(tokens)
            if lm.info.normalized:
                wanted = torch.log_softmax(wanted, dim=-1)
            fresh, cached = (Comparing(f"{name}, {length} tokens, {how} cache") for how in ("without", "with"))
            for at in range(length, len(tokens) + 1, STEPS // 4):
                _decide(lm, tokens, wanted, at=at, keep=0, into=fresh)
            _decide(lm, tokens, wanted, at=length, keep=0, into=cached)
            for at in range(length + 1, len(tokens) + 1):
                _decide(lm, tokens, wanted, at=at, keep=at - 1, into=cached)
            _decide(lm, tokens, wanted, at=len(tokens), keep=len(tokens) - _CHUNK, into=cached)
            found += [fresh.result(), cached.result()]
    return Parity.of(found)


def _decide(lm: OnnxLm, tokens: Sequence[int], wanted: torch.Tensor, *, at: int, keep: int, into: Comparing) -> None:
    """Let *lm* score the best candidates after *at* tokens, the first *keep* of which it holds."""
    scores, ids = torch.topk(wanted[at - 1], CANDIDATES)
    into.add(lm.scores(tokens[keep:at], ids.numpy(), keep=keep), scores.numpy())


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


def _spearman(left: FloatArray, right: FloatArray) -> float:
    """Return the correlation of ranks; 1 where there is nothing to rank."""
    if len(left) < 2:
        return 1.0
    a, b = (np.argsort(np.argsort(each)).astype(np.float64) for each in (left, right))
    return float(np.corrcoef(a, b)[0, 1])
