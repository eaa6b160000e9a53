"""The decoding rule on plain arrays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from padlite.errors import BackendError
from padlite.scoring import (
    choose,
    combine,
    distribution,
    log_normalizer,
    pad_rewards,
    penalize_repetition,
    permitted,
    top_k,
)
from padlite.seams import BoolArray, TokenArray

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "pad_greedy_choices.json").read_text())["cases"]


def float32(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_there_are_108_recorded_decisions() -> None:
    assert len(RECORDED) == 108


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"V{case['V']}-w{case['w']}-k{case['k']}")
def test_the_released_pad_step_made_the_same_choice(case: dict[str, Any]) -> None:
    base, reward = float32(*case["base_logits"]), float32(*case["reward_logits"])
    vocabulary = np.full(case["V"], -1e9, dtype=np.float32)
    vocabulary[case["candidates"]] = base
    candidates = top_k(vocabulary, case["k"])
    assert candidates.tolist() == case["candidates"]
    scores = combine(vocabulary[candidates], pad_rewards(reward, base), float32(case["w"]))
    assert candidates[choose(scores, temperature=0.0, top_p=1.0, min_p=0.0, draw=0.0)] == case["chosen"]


def test_the_lower_id_wins_a_tie() -> None:
    assert top_k(np.zeros(50_000, dtype=np.float32), 3).tolist() == [0, 1, 2]


def test_nan_logits_are_never_candidates() -> None:
    logits = np.arange(5000, dtype=np.float32)
    logits[4999] = np.nan
    assert top_k(logits, 2).tolist() == [4998, 4997]


def test_more_candidates_than_tokens_gives_all_tokens() -> None:
    assert top_k(float32(1, 3, 2), 10).tolist() == [1, 2, 0]


@pytest.mark.parametrize("center", [-1000.0, -60.0, 0.0, 60.0, 1000.0])
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("below", [0.0, 5.0])
def test_log_normalizer_makes_probabilities_sum_to_one(center: float, scale: float, below: float) -> None:
    logits = (np.random.default_rng(0).normal(size=1000) * scale + center).astype(np.float32)
    normalizer = log_normalizer(logits, np.empty_like(logits), peak=np.float32(logits.max() - below))
    assert np.exp(logits.astype(np.float64) - normalizer).sum() == pytest.approx(1.0, abs=1e-3)


class Only:
    """Allows these tokens and no other (`Constraint`); counts how many it was asked about."""

    def __init__(self, *tokens: int) -> None:
        self.tokens, self.asked = tokens, 0

    def allowed(self, candidates: TokenArray) -> BoolArray:
        self.asked += len(candidates)
        return np.isin(candidates, self.tokens)

    def accept(self, token: int) -> None:
        """Nothing changes."""


def test_a_constraint_leaves_those_of_the_candidates_that_it_allows() -> None:
    logits, only = float32(9, 8, 7, 6, 5), Only(1, 2, 4)
    assert permitted(top_k(logits, 3), logits, only).tolist() == [1, 2]
    assert only.asked == 3, "the rest of the vocabulary is not looked at"


def test_where_a_constraint_rejects_every_candidate_the_best_of_the_whole_vocabulary_are_taken() -> None:
    logits = float32(9, 8, 7, 6, 5, 4)
    assert permitted(top_k(logits, 2), logits, Only(3, 4, 5)).tolist() == [3, 4]
    assert permitted(top_k(logits, 3), logits, Only(5)).tolist() == [5]
    with pytest.raises(BackendError, match="no token"):
        permitted(top_k(logits, 2), logits, Only())


def test_combine_adds_each_dimension_by_its_push() -> None:
    scores = combine(float32(0, 0), np.array([[1, 2], [3, 4]], dtype=np.float32), float32(2, -1))
    assert scores.tolist() == [0.0, 2.0]
    assert scores.dtype == np.float32


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = float32(2, -2, 1)
    assert penalize_repetition(logits, [0, 1, 1], 2.0).tolist() == [1.0, -4.0, 1.0]
    assert logits.tolist() == [2.0, -2.0, 1.0]


def test_repetition_penalty_of_one_copies_nothing() -> None:
    logits = float32(1, 2)
    assert penalize_repetition(logits, [0], 1.0) is logits


def test_distribution_is_the_softmax_at_temperature_one() -> None:
    got = distribution(np.log(float32(0.7, 0.2, 0.1)), temperature=1.0, top_p=1.0, min_p=0.0)
    assert got == pytest.approx([0.7, 0.2, 0.1], abs=1e-6)


def test_low_temperature_sharpens_and_high_flattens() -> None:
    scores = np.log(float32(0.7, 0.2, 0.1))
    assert distribution(scores, temperature=0.5, top_p=1.0, min_p=0.0) == pytest.approx(
        [0.9074, 0.0741, 0.0185], abs=1e-4
    )
    assert distribution(scores, temperature=2.0, top_p=1.0, min_p=0.0) == pytest.approx(
        [0.5228, 0.2795, 0.1976], abs=1e-4
    )


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    got = distribution(np.log(float32(0.2, 0.7, 0.1)), temperature=1.0, top_p=0.8, min_p=0.0)
    assert got == pytest.approx([0.2222, 0.7778, 0.0], abs=1e-4)


def test_top_p_zero_keeps_the_best() -> None:
    assert distribution(float32(0, 1), temperature=1.0, top_p=0.0, min_p=0.0).tolist() == [0.0, 1.0]


def test_min_p_is_relative_to_the_best() -> None:
    got = distribution(np.log(float32(0.6, 0.25, 0.15)), temperature=1.0, top_p=1.0, min_p=0.3)
    assert got == pytest.approx([0.7059, 0.2941, 0.0], abs=1e-4)


def test_the_draw_walks_through_the_distribution() -> None:
    scores = np.log(float32(0.5, 0.3, 0.2))
    draws = [
        choose(scores, temperature=1.0, top_p=1.0, min_p=0.0, draw=u) for u in (0.0, 0.49, 0.51, 0.79, 0.81, 0.999)
    ]
    assert draws == [0, 0, 1, 1, 2, 2]


def test_greedy_takes_the_first_of_equals() -> None:
    assert choose(float32(1, 2, 2), temperature=0.0, top_p=1.0, min_p=0.0, draw=0.9) == 1
