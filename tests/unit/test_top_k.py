"""Top-k of large vocabularies where its shortcut could go wrong: NaN, infinities, plateaus, odd sizes."""

import numpy as np
import pytest

from padlite.scoring import top_k
from padlite.seams import FloatArray


def by_sorting(logits: FloatArray, k: int) -> list[int]:
    order: list[int] = np.argsort(np.where(np.isnan(logits), np.inf, -logits), kind="stable").tolist()
    return order[:k]


@pytest.mark.parametrize("size", [2047, 2048, 2049, 4096, 4999])
@pytest.mark.parametrize("spoiled", [1, 100, 2000])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_take_their_place(size: int, spoiled: int, value: float) -> None:
    rng = np.random.default_rng(size + spoiled)
    logits = rng.standard_normal(size, dtype=np.float32)
    logits[rng.choice(size, size=spoiled, replace=False)] = value
    assert top_k(logits, 10).tolist() == by_sorting(logits, 10)


@pytest.mark.parametrize("size", [2048, 5000])
def test_on_a_plateau_the_lowest_ids_win(size: int) -> None:
    logits = np.zeros(size, dtype=np.float32)
    logits[[7, 600, size - 1]] = 1
    assert top_k(logits, 6).tolist() == [7, 600, size - 1, 0, 1, 2]


def test_the_best_may_all_lie_in_one_block() -> None:
    logits = np.zeros(4096, dtype=np.float32)
    logits[3::512] = np.arange(1, 9)
    assert top_k(logits, 4).tolist() == [7 * 512 + 3, 6 * 512 + 3, 5 * 512 + 3, 4 * 512 + 3]
