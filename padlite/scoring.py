"""The decoding rule on plain arrays: the base model's best tokens, the guided score, the choice.

Shapes: V vocabulary, k candidates, m dimensions. float32 in and out, log-probabilities in nats, arguments are never
written to. Candidates come best first; equal logits are ordered by token id, lowest first, and NaN logits count as
minus infinity. Knows no model, no text and no person.
"""

import math
from collections.abc import Sequence

import numpy as np

from padlite.errors import BackendError
from padlite.seams import Constraint, FloatArray, TokenArray

_COLUMNS = 512  # of the block-maximum search; 512 floats span whole cache lines and SIMD registers
_FEW_COLUMNS = 128  # for vocabularies up to _LARGE: fewer maxima to search, a little more to sort
_SMALL = 4 * _COLUMNS  # below this a plain sort is as fast
_LARGE = 32_768
_SAFE_PEAK = 60.0  # e^60 times the largest vocabulary is well inside float32, and so is e^-60


def top_k(logits: FloatArray, k: int) -> TokenArray:
    """Return the ids of the *k* largest of *logits* (V,), best first; the lower id wins a tie.

    Exact, and faster than `numpy.argpartition` by a multiple: at least k logits reach the k-th largest of the maxima of
    512 (or 128) strided blocks, so only those that do are sorted. Few numpy calls: each costs a small model dear.
    """
    size = logits.shape[0]
    k = min(k, size)
    columns = _FEW_COLUMNS if size <= _LARGE and k * 4 <= _FEW_COLUMNS else _COLUMNS
    rows = size // columns
    if size < _SMALL or k * 4 > columns:
        return _stable_best(logits, k)
    maxima = np.maximum.reduce(logits[: rows * columns].reshape(rows, columns), axis=0)
    maxima.partition(columns - k)
    ids = (logits >= maxima[columns - k]).nonzero()[0]
    if len(ids) < k:  # NaN among the logits
        return _stable_best(logits, k)
    best: TokenArray = ids[(-logits[ids]).argsort(kind="stable")[:k]]
    return best


def _stable_best(logits: FloatArray, k: int) -> TokenArray:
    """Return the ids of the *k* largest *logits*, best first, by sorting all of them."""
    return np.argsort(np.where(np.isnan(logits), np.inf, -logits), kind="stable")[:k]


def log_normalizer(logits: FloatArray, scratch: FloatArray, *, peak: np.float32) -> float:
    """Return log Σ exp(logits), which turns *logits* (V,) into log-probabilities; *scratch* (V,) is overwritten.

    *peak* is about the largest of them: any number near it keeps the sum in range.
    """
    shift = float(peak)
    if abs(shift) <= _SAFE_PEAK:  # one pass less over the vocabulary
        np.exp(logits, out=scratch)
        return math.log(np.add.reduce(scratch))
    np.subtract(logits, peak, out=scratch)
    np.exp(scratch, out=scratch)
    return shift + math.log(np.add.reduce(scratch))


def penalize_repetition(logits: FloatArray, recent: Sequence[int], penalty: float) -> FloatArray:
    """Return *logits* with every token of *recent* made less likely, as llama.cpp's `repeat_penalty` does.

    Positive logits are divided by *penalty*, others multiplied. A penalty of 1 returns *logits* itself, one below 1
    favours repetition.
    """
    if penalty == 1.0 or not recent:
        return logits
    ids = np.unique(np.asarray(recent, dtype=np.int64))
    penalized = logits.copy()
    values = logits[ids]
    penalized[ids] = np.where(values > 0, values / np.float32(penalty), values * np.float32(penalty))
    return penalized


def penalize_said(logits: FloatArray, said: Sequence[int], *, frequency: float, presence: float) -> FloatArray:
    """Return *logits* less *frequency* for each time that a token is in *said*, and less *presence* once.

    Both 0, or nothing said, returns *logits* itself. As OpenAI defines the two.
    """
    if not said or (frequency == 0.0 and presence == 0.0):
        return logits
    ids, counts = np.unique(np.asarray(said, dtype=np.int64), return_counts=True)
    penalized = logits.copy()
    penalized[ids] -= np.asarray(counts * frequency + presence, dtype=np.float32)
    return penalized


def add_bias(logits: FloatArray, bias: Sequence[tuple[int, float]]) -> FloatArray:
    """Return *logits* with each (id, nats) of *bias* added; *logits* itself if there is none."""
    if not bias:
        return logits
    biased = logits.copy()
    for token, nats in bias:
        biased[token] += np.float32(nats)
    return biased


def permitted(candidates: TokenArray, logits: FloatArray, constraint: Constraint) -> TokenArray:
    """Return those of *candidates* (k,) that *constraint* allows, or if it allows none the k best of all that it does.

    Raises BackendError if nothing at all is allowed.
    """
    kept: TokenArray = candidates[constraint.allowed(candidates)]
    if len(kept):
        return kept
    everything = np.arange(logits.shape[0], dtype=np.int64)
    allowed = constraint.allowed(everything)
    if not allowed.any():
        raise BackendError("no token of this model fits the grammar here", remedy="use another grammar or model")
    best = top_k(np.where(allowed, logits, np.float32(-np.inf)), len(candidates))
    return best[allowed[best]]


def combine(base: FloatArray, features: FloatArray, push: FloatArray) -> FloatArray:
    """Return the guided score of each candidate, (k,): *base* + *features* @ *push*.

    *base* (k,) are logits or log-probabilities of the candidates (they differ by a constant), *features* (k, m),
    *push* (m,) the preference weights times the guidance strength β.
    PAD, guided decoding rule (docs/paper-map.md).
    """
    scores: FloatArray = np.add(base, features @ push, dtype=np.float32)
    return scores


def pad_rewards(reward_logits: FloatArray, base_logits: FloatArray) -> FloatArray:
    """Return the features (k, 1) that PAD's released step derives from a reward LM.

    The reward of a candidate is its log-probability under the reward LM minus the one under the base model, both
    normalized over the k candidates, whose logits are *reward_logits* (k,) and *base_logits* (k,).
    """
    reward = reward_logits - np.logaddexp.reduce(reward_logits)
    base = base_logits - np.logaddexp.reduce(base_logits)
    return np.asarray(reward - base, dtype=np.float32)[:, np.newaxis]


def distribution(scores: FloatArray, *, temperature: float, top_p: float, min_p: float) -> FloatArray:
    """Return the probability with which each candidate is drawn, (k,).

    As in llama.cpp: *top_p* keeps the fewest best candidates whose probabilities reach it, *min_p* those at least
    *min_p* times as likely as the best, both before *temperature* sharpens (below 1) or flattens what is left.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    probabilities = _softmax(ranked)
    keep = np.cumsum(probabilities) - probabilities < top_p
    keep &= probabilities >= min_p * probabilities[0]
    keep[0] = True
    drawn = np.zeros_like(scores)
    drawn[order[keep]] = _softmax(ranked[keep] / np.float32(temperature))
    return drawn


def choose(scores: FloatArray, *, temperature: float, top_p: float, min_p: float, draw: float) -> int:
    """Return the index of the chosen candidate.

    Temperature 0 takes the largest score (the first of equals, that is the one the base model prefers) and looks at
    nothing else. Otherwise *draw*, uniform in [0, 1), picks from `distribution`: the same draw on the base model's own
    scores tells what would have been said without the profile.
    """
    if temperature == 0.0:
        return int(scores.argmax())
    cumulative = np.cumsum(distribution(scores, temperature=temperature, top_p=top_p, min_p=min_p), dtype=np.float64)
    return min(int(np.searchsorted(cumulative, draw * cumulative[-1], side="right")), len(scores) - 1)


def _softmax(scores: FloatArray) -> FloatArray:
    """Return exp(scores) normalized to 1."""
    exponentials = np.exp(scores - scores.max())
    return np.asarray(exponentials / exponentials.sum(), dtype=np.float32)
