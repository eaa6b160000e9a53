"""Distillation finds a head that is really there, and calibration does what it promises."""

from dataclasses import replace

import numpy as np
import pytest

from padlite.dimensions.fit import mean_shift
from padlite.errors import PadliteError
from padlite_training.distill import Head, calibrate, fit_head
from padlite_training.harvest import Harvest
from padlite_training.recipe import HeadTraining
from padlite_training.scaling import scale_for

V, WIDTH, RANK, M, K, N = 300, 32, 3, 2, 12, 4000
PLAN = HeadTraining(rank=RANK, candidates=K, rate=0.02, epochs=40, weight_decay=0.01, seed=1)


@pytest.fixture(scope="module")
def planted() -> tuple[Harvest, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((V, WIDTH)).astype(np.float32)
    head = Head(
        projection=(rng.standard_normal((WIDTH, RANK)) / WIDTH**0.5).astype(np.float32),
        maps=(rng.standard_normal((M, WIDTH, RANK)) / WIDTH**0.5).astype(np.float32),
        scales=np.ones(M, dtype=np.float32),
        explained=0.0,
        epochs=0,
    )
    base = np.sort(rng.standard_normal((N, K)).astype(np.float32) * 2)[:, ::-1]
    harvest = Harvest(
        hidden=3 * rng.standard_normal((N, WIDTH)).astype(np.float32),
        candidates=rng.integers(0, V, (N, K)).astype(np.int32),
        base=base - np.logaddexp.reduce(base, axis=1, keepdims=True),
        features=np.zeros((N, K, M), dtype=np.float32),
        group=np.zeros(N, dtype=np.int32),
        validation=np.arange(N) % 10 == 0,
        plain=np.arange(N) % 20 == 0,
    )
    harvest.features[:] = head.features(table, harvest) / 2
    return harvest, table


def with_noise(harvest: Harvest) -> Harvest:
    """Return *harvest* with a teacher of pure noise."""
    noise = np.random.default_rng(1).standard_normal(harvest.features.shape).astype(np.float32)
    return Harvest(
        hidden=harvest.hidden, candidates=harvest.candidates, base=harvest.base, features=noise,
        group=harvest.group, validation=harvest.validation, plain=harvest.plain,
    )  # fmt: skip


def test_a_planted_head_is_recovered(
    planted: tuple[Harvest, np.ndarray[tuple[int, ...], np.dtype[np.float32]]],
) -> None:
    harvest, table = planted
    assert fit_head(harvest, table, PLAN).explained > 0.9


@pytest.mark.parametrize("rate", [PLAN.rate, 1.0])
def test_what_explains_nothing_is_no_head(
    planted: tuple[Harvest, np.ndarray[tuple[int, ...], np.dtype[np.float32]]], rate: float
) -> None:
    harvest, table = planted
    with pytest.raises(PadliteError, match="taught nothing that holds for held-out scenarios"):
        fit_head(with_noise(harvest), table, replace(PLAN, rate=rate, epochs=2))


def test_every_dimension_shifts_the_base_by_what_was_asked_for(
    planted: tuple[Harvest, np.ndarray[tuple[int, ...], np.dtype[np.float32]]],
) -> None:
    harvest, table = planted
    raw = fit_head(harvest, table, PLAN)
    head = calibrate(raw, harvest, table, shift=0.3)
    chosen = harvest.plain & harvest.validation
    features = head.features(table, harvest)[chosen]
    for dimension in range(M):
        assert mean_shift(harvest.base[chosen], features[:, :, dimension]) == pytest.approx(0.3, abs=1e-3)
    assert np.allclose(head.maps, raw.maps * head.scales[:, None, None])


def test_no_reward_shifts_nothing_and_a_constant_one_neither() -> None:
    base = np.log(np.array([[0.7, 0.2, 0.1]], dtype=np.float32))
    assert mean_shift(base, np.zeros((1, 3), dtype=np.float32)) == pytest.approx(0.0, abs=1e-6)
    assert mean_shift(base, np.full((1, 3), 2.5, dtype=np.float32)) == pytest.approx(0.0, abs=1e-6)
    sure = np.array([[0.0, 50.0, 0.0]], dtype=np.float32)
    assert mean_shift(base, sure) == pytest.approx(-np.log(0.2), abs=1e-4)


def test_the_scale_reaches_to_its_limit_and_beyond_it_is_an_error() -> None:
    base = np.log(np.array([[0.7, 0.2, 0.1]], dtype=np.float32))
    features = np.array([[0.0, 1.0, 0.0]], dtype=np.float32)
    shift = mean_shift(base, np.float32(2.5) * features)
    for weaker in (1.0, 25.0):  # 25: the factor is near the limit of 64
        assert scale_for(base, features / np.float32(weaker), shift, name="'a'") == pytest.approx(
            2.5 * weaker, rel=1e-3
        )
    for weak in (features / np.float32(30), np.zeros_like(features)):
        with pytest.raises(PadliteError, match="'a' was hardly learned"):
            scale_for(base, weak, shift, name="'a'")
