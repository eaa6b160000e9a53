"""Fits a low-rank reward head to a contrast teacher with numpy alone, and calibrates it.

φ_i(s, a) = u_aᵀ z_i with u_a = Pᵀ e_a and z_i = A_iᵀ h (e_a the row of the base's output matrix). What is minimized is
KL(teacher ‖ student) over the candidates, both softmax(base + φ_i) with φ clamped, so the numbers need not match where
they don't matter. N states, k candidates, m dimensions, r rank, d width. Gradients are derived by hand (`gradients`)
and checked against finite differences in the tests; the optimizer is Adam with decoupled weight decay, its rate falls
to nothing over the fit.
"""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from padlite.errors import PadliteError
from padlite.seams import FloatArray, TokenArray

_log = logging.getLogger(__name__)

_BATCH = 512
_ROUND = 40  # batches between two looks at the held-out states


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """Taught states: *hidden* (N, d), *candidates* (N, k), *base* log-probabilities (N, k), *features* (N, k, m)."""

    hidden: FloatArray
    candidates: TokenArray
    base: FloatArray
    features: FloatArray

    def __len__(self) -> int:
        return len(self.hidden)

    def of(self, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "States":
        """Return the states that *index* picks."""
        return States(
            hidden=self.hidden[index], candidates=self.candidates[index], base=self.base[index],
            features=self.features[index],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How to fit: *clamp* in nats, *decay* and first *rate* of the optimizer, so many *rounds* of 40 batches."""

    rank: int = 32
    clamp: float = 6.0
    decay: float = 10.0
    rate: float = 1e-3
    rounds: int = 20
    seed: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedHead:
    """A fitted head: *projection* P (d, r), *maps* A (m, d, r), and the *scales* (m,) already contained in the maps.

    It was found after so many *rounds*.
    """

    projection: FloatArray
    maps: FloatArray
    scales: FloatArray
    rounds: int

    def features(self, rows: FloatArray, places: TokenArray, hidden: FloatArray) -> FloatArray:
        """Return φ (n, k, m) for *hidden* (n, d) and candidates whose rows of the matrix are *rows*[*places*]."""
        words = (rows @ self.projection)[places]
        return np.asarray(np.einsum("nkr,nmr->nkm", words, np.einsum("nd,mdr->nmr", hidden, self.maps)), np.float32)

    def scaled(self, factors: FloatArray) -> "FittedHead":
        """Return the head with each dimension times its factor."""
        return dataclasses.replace(
            self, maps=self.maps * factors[:, np.newaxis, np.newaxis], scales=self.scales * factors
        )  # fmt: skip


def gradients(
    projection: FloatArray, maps: FloatArray, batch: States, rows: FloatArray, places: TokenArray, *, clamp: float
) -> tuple[float, FloatArray, FloatArray]:
    """Return the loss of *batch* in nats and its gradients by *projection* (d, r) and *maps* (m, d, r).

    *rows* (n_words, d) are the matrix's rows of the words that occur, *places* (N, k) where each candidate's is.
    With p the teacher's and q the student's distribution, ∂KL(p ‖ q)/∂φ = q − p where φ isn't clamped, and
    φ_nki = u_nk · z_ni gives ∂u_nk = Σ_i g_nki z_ni, ∂z_ni = Σ_k g_nki u_nk, ∂A_i = hᵀ ∂z_i, ∂P = rowsᵀ Σ ∂u.
    """
    count = len(batch) * maps.shape[0]
    words = rows @ projection
    u = words[places]
    z = np.einsum("nd,mdr->nmr", batch.hidden, maps, optimize=True)
    raw = np.einsum("nkr,nmr->nkm", u, z, optimize=True)
    wanted, got = (_log_softmax(batch.base, np.clip(each, -clamp, clamp)) for each in (batch.features, raw))
    p = np.exp(wanted)
    loss = float((p * (wanted - got)).sum() / count)
    g = (np.exp(got) - p) * (np.abs(raw) < clamp) / np.float32(count)
    of_u = np.einsum("nkm,nmr->nkr", g, z, optimize=True).reshape(-1, projection.shape[1])
    of_words = np.zeros_like(words)
    np.add.at(of_words, places.reshape(-1), of_u)
    of_z = np.einsum("nkm,nkr->nmr", g, u, optimize=True)
    of_maps = np.einsum("nd,nmr->mdr", batch.hidden, of_z, optimize=True)
    return loss, np.asarray(rows.T @ of_words, dtype=np.float32), np.asarray(of_maps, dtype=np.float32)


def teacher_loss(base: FloatArray, taught: FloatArray, features: FloatArray, *, clamp: float) -> float:
    """Return the mean KL(softmax(base + taught) ‖ softmax(base + features)) in nats; (N, k) and (N, k, m)."""
    wanted, got = (_log_softmax(base, np.clip(each, -clamp, clamp)) for each in (taught, features))
    return float((np.exp(wanted) * (wanted - got)).sum(axis=1).mean())


def fit_head(
    train: States,
    held: States,
    rows_of: Callable[[TokenArray], FloatArray],
    options: FitOptions,
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> FittedHead:
    """Return the head that explains *held* best of all that were met while fitting *train*.

    *rows_of* gives rows (n, d) of the base's output matrix. *progress* hears which share of the rounds is done. Raises
    PadliteError when a loss isn't finite, naming the step.
    """
    rng = np.random.default_rng(options.seed)
    tokens = np.unique(np.concatenate([train.candidates.reshape(-1), held.candidates.reshape(-1)]))
    rows = rows_of(tokens)
    size_hidden, size_rows = (float(np.sqrt(np.mean(np.square(each)))) or 1.0 for each in (train.hidden, rows))
    rows = rows / np.float32(size_rows)
    width, count = train.hidden.shape[1], train.features.shape[2]
    train, held = (
        dataclasses.replace(
            each, hidden=each.hidden / np.float32(size_hidden), candidates=np.searchsorted(tokens, each.candidates)
        )
        for each in (train, held)
    )
    head = FittedHead(
        projection=(rng.standard_normal((width, options.rank)) / width**0.5).astype(np.float32),
        maps=(0.1 * rng.standard_normal((count, width, options.rank)) / width**0.5).astype(np.float32),
        scales=np.ones(count, dtype=np.float32),
        rounds=0,
    )
    best, best_loss = head, np.inf
    adam = _Adam(options)
    batches = _batches(len(train), rng)
    for number in range(1, options.rounds + 1):
        for index in itertools.islice(batches, _ROUND):
            batch = train.of(index)
            seen, places = np.unique(batch.candidates, return_inverse=True)
            loss, *slopes = gradients(
                head.projection,
                head.maps,
                batch,
                rows[seen],
                places.reshape(batch.candidates.shape),
                clamp=options.clamp,
            )
            if not np.isfinite(loss):
                raise PadliteError(
                    f"the fit broke off: its loss is no longer a number (step {adam.steps + 1})",
                    remedy="try again with other prompts (--prompts FILE), or report it",
                )
            projection, maps = adam.step([head.projection, head.maps], slopes)
            head = dataclasses.replace(head, projection=projection, maps=maps, rounds=number)
        loss = held_loss(head, held, rows, clamp=options.clamp)
        _log.debug("round %d: %.4f nats on the held-out prompts", number, loss)
        if loss < best_loss:
            best, best_loss = head, loss
        progress(number / options.rounds)
    return dataclasses.replace(
        best, projection=best.projection / np.float32(size_rows), maps=best.maps / np.float32(size_hidden)
    )


def held_loss(head: FittedHead, states: States, rows: FloatArray, *, clamp: float) -> float:
    """Return `teacher_loss` of *head* on *states*, whose candidates are places in *rows*; batch by batch."""
    losses = [
        teacher_loss(part.base, part.features, head.features(rows, part.candidates, part.hidden), clamp=clamp)
        * len(part)
        for part in (states.of(np.arange(at, min(at + _BATCH, len(states)))) for at in range(0, len(states), _BATCH))
    ]
    return sum(losses) / max(len(states), 1)


def explained(
    head: FittedHead, states: States, rows_of: Callable[[TokenArray], FloatArray], *, clamp: float
) -> FloatArray:
    """Return for each dimension which share of the teacher's mean KL from the base *head* accounts for, (m,)."""
    tokens, places = np.unique(states.candidates, return_inverse=True)
    features = head.features(rows_of(tokens), places.reshape(states.candidates.shape), states.hidden)
    shares = []
    for i in range(features.shape[2]):
        taught, got = states.features[:, :, i : i + 1], features[:, :, i : i + 1]
        nothing = teacher_loss(states.base, taught, np.zeros_like(got), clamp=clamp)
        shares.append(1 - teacher_loss(states.base, taught, got, clamp=clamp) / nothing if nothing else 0.0)
    return np.array(shares, dtype=np.float32)


def mean_shift(base: FloatArray, features: FloatArray) -> float:
    """Return the mean KL(softmax(base + φ) ‖ softmax(base)) in nats over states; *base* and *features* (N, k)."""
    plain = base - np.logaddexp.reduce(base, axis=1, keepdims=True)
    moved = base + features
    moved = moved - np.logaddexp.reduce(moved, axis=1, keepdims=True)
    return float((np.exp(moved) * (moved - plain)).sum(axis=1).mean())


def scale_for_shift(base: FloatArray, features: FloatArray, *, shift: float) -> float:
    """Return the factor of *features* (N, k) at which the mean shift is *shift* nats, by bisection, at most 64."""
    low, high = 0.0, 64.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_shift(base, np.float32(middle) * features) < shift else (low, middle)
    return (low + high) / 2


class _Adam:
    """Adam with decoupled weight decay, on arrays that are never written to."""

    def __init__(self, options: FitOptions) -> None:
        self._options, self.steps = options, 0
        self._mean: list[FloatArray] = []
        self._square: list[FloatArray] = []

    def step(self, values: list[FloatArray], slopes: list[FloatArray]) -> list[FloatArray]:
        """Return *values* one step down their *slopes*."""
        if not self.steps:
            self._mean, self._square = ([np.zeros_like(each) for each in values] for _ in range(2))
        rate = self._options.rate * (1 - self.steps / (self._options.rounds * _ROUND))
        decay = self._options.decay
        self.steps += 1
        moved: list[FloatArray] = []
        for at, (value, slope) in enumerate(zip(values, slopes, strict=True)):
            self._mean[at] = np.asarray(0.9 * self._mean[at] + 0.1 * slope, dtype=np.float32)
            self._square[at] = np.asarray(0.999 * self._square[at] + 0.001 * slope * slope, dtype=np.float32)
            mean = self._mean[at] / np.float32(1 - 0.9**self.steps)
            size = np.sqrt(self._square[at] / np.float32(1 - 0.999**self.steps)) + np.float32(1e-8)
            moved.append(np.asarray(value * np.float32(1 - rate * decay) - np.float32(rate) * mean / size, np.float32))
        return moved


def _batches(count: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches of places for ever, each place once before any comes again."""
    while True:
        order = rng.permutation(count)
        for at in range(0, count, _BATCH):
            yield order[at : at + _BATCH]


def _log_softmax(base: FloatArray, features: FloatArray) -> FloatArray:
    """Return log softmax over the candidates of *base* (N, k) plus *features* (N, k, m)."""
    scores = base[:, :, np.newaxis] + features
    scores = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)), dtype=np.float32)
