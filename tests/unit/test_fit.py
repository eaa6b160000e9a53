"""Fitting a head to a teacher: its gradients, that it learns what can be learned, and its calibration."""

import numpy as np
import pytest

from padlite.dimensions.fit import (
    FitOptions,
    States,
    explained,
    fit_head,
    gradients,
    mean_shift,
    scale_for_shift,
    teacher_loss,
)
from padlite.errors import PadliteError
from padlite.seams import FloatArray, TokenArray

V, D, K, M, R = 60, 10, 8, 2, 3


def states(count: int, *, seed: int, noise: float = 0.0, table: FloatArray | None = None) -> States:
    """States whose rewards a head of rank 3 can compute, but for *noise*."""
    truth = np.random.default_rng(1)
    projection, maps = truth.standard_normal((D, R)), truth.standard_normal((M, D, R)) / D
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((count, D)).astype(np.float32)
    candidates = np.argsort(rng.random((count, V)), axis=1)[:, :K].astype(np.int64)
    words = (MATRIX @ projection)[candidates]
    features = np.einsum("nkr,nmr->nkm", words, np.einsum("nd,mdr->nmr", hidden, maps))
    features += noise * rng.standard_normal(features.shape)
    base = np.sort(rng.normal(-3, 1, (count, K)), axis=1)[:, ::-1]
    return States(
        hidden=hidden, candidates=candidates, base=base.astype(np.float32), features=features.astype(np.float32)
    )  # fmt: skip


MATRIX = np.random.default_rng(0).standard_normal((V, D)).astype(np.float32)


def rows_of(tokens: TokenArray) -> FloatArray:
    return np.asarray(MATRIX[tokens], dtype=np.float32)


def test_the_gradients_are_those_of_finite_differences() -> None:
    rng = np.random.default_rng(3)
    batch = states(5, seed=4, noise=1.0)
    seen, places = np.unique(batch.candidates, return_inverse=True)
    rows, places = MATRIX[seen].astype(np.float64), places.reshape(batch.candidates.shape)
    projection, maps = rng.standard_normal((D, R)), 0.5 * rng.standard_normal((M, D, R))

    def loss(p: np.ndarray, a: np.ndarray) -> float:
        return gradients(p, a, batch, rows, places, clamp=1.5)[0]  # type: ignore[arg-type]

    _, of_projection, of_maps = gradients(projection, maps, batch, rows, places, clamp=1.5)  # type: ignore[arg-type]
    for which, slope in ((0, of_projection), (1, of_maps)):
        for _ in range(12):
            at = tuple(int(rng.integers(size)) for size in slope.shape)
            moved = [[projection.copy(), maps.copy()] for _ in range(2)]
            moved[0][which][at] += 1e-3
            moved[1][which][at] -= 1e-3
            measured = (loss(*moved[0]) - loss(*moved[1])) / 2e-3
            assert measured == pytest.approx(slope[at], rel=0.02, abs=2e-4)


def test_a_clamped_reward_has_no_slope() -> None:
    batch = states(3, seed=4)
    seen, places = np.unique(batch.candidates, return_inverse=True)
    maps = np.full((M, D, R), 1e4, dtype=np.float32)
    projection = np.ones((D, R), dtype=np.float32)
    _, of_projection, of_maps = gradients(
        projection, maps, batch, MATRIX[seen], places.reshape(batch.candidates.shape), clamp=6.0
    )
    assert not of_projection.any()
    assert not of_maps.any()


def test_a_head_learns_what_a_head_can_compute_and_is_judged_on_other_states() -> None:
    head = fit_head(
        states(1500, seed=1), states(200, seed=2), rows_of, FitOptions(rank=R, rate=1e-2, decay=0.01)
    )  # fmt: skip
    shares = explained(head, states(300, seed=3), rows_of, clamp=6.0)
    assert shares.shape == (M,)
    assert shares.min() > 0.9


def test_the_best_round_on_held_out_states_is_kept() -> None:
    """Few noisy states are soon learned by heart; what is kept must not be the last round."""
    train, held = states(60, seed=1, noise=2.0), states(400, seed=2, noise=2.0)
    options = FitOptions(rank=8, rate=2e-2, decay=0.0, rounds=40)
    head = fit_head(train, held, rows_of, options)
    longer = fit_head(train, train, rows_of, options)
    assert head.rounds < longer.rounds
    assert explained(head, held, rows_of, clamp=6.0).mean() > explained(longer, held, rows_of, clamp=6.0).mean()


def test_equal_seeds_give_equal_heads() -> None:
    train, held = states(200, seed=1), states(50, seed=2)
    one, two = (fit_head(train, held, rows_of, FitOptions(rounds=2, seed=5)) for _ in range(2))
    assert np.array_equal(one.maps, two.maps)


def test_a_loss_that_is_no_number_stops_the_fit_with_its_step() -> None:
    train = states(50, seed=1)
    train.hidden[0, 0] = np.nan
    with pytest.raises(PadliteError, match=r"no longer a number \(step 1\)"):
        fit_head(train, states(50, seed=2), rows_of, FitOptions())


def test_the_loss_is_nothing_for_the_teacher_itself_and_grows_with_the_distance() -> None:
    taught = states(50, seed=1)
    losses = [
        teacher_loss(taught.base, taught.features, taught.features * np.float32(share), clamp=6.0)
        for share in (1.0, 0.5, 0.0)
    ]
    assert losses[0] == pytest.approx(0.0, abs=1e-6)
    assert losses[0] < losses[1] < losses[2]


def test_calibration_shifts_the_base_by_what_was_asked_for() -> None:
    taught = states(200, seed=1)
    features = taught.features[:, :, 0]
    scale = scale_for_shift(taught.base, features, shift=0.3)
    assert mean_shift(taught.base, np.float32(scale) * features) == pytest.approx(0.3, abs=1e-3)
