"""Laws of the decoding rule that hold for every input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from padlite.decode import Guidance, TokenTrace, decide
from padlite.options import DecodingOptions
from padlite.scoring import choose, combine, distribution, top_k
from padlite.seams import BaseState, Step
from tests.fakes import FunctionReward

finite = st.floats(-50, 50, width=32)
vectors = hnp.arrays(np.float32, st.integers(1, 40), elements=finite)
# Few distinct values, so that ties are common; sizes on both sides of the block search's threshold.
tied = hnp.arrays(
    np.float32,
    st.sampled_from([1, 7, 2047, 2048, 2049, 5000]),
    elements=st.sampled_from([-1.0, 0.0, 2.0]),
    fill=st.sampled_from([-3.0, 0.5]),
)


def plain_top_k(logits: np.ndarray, k: int) -> list[int]:
    """The slow, obvious reference."""
    return sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:k]


def run(
    logits: np.ndarray, reward: FunctionReward | None, weights: list[float], seed: int = 0, **options: float
) -> TokenTrace:
    return decide(
        BaseState(logits=logits, hidden=np.zeros(2, dtype=np.float32)),
        reward,
        [1, 2],
        options=DecodingOptions(**options),  # type: ignore[arg-type]
        guidance=Guidance(weights=np.array(weights, dtype=np.float32), strength=options.get("strength", 1.0)),
        rng=np.random.default_rng(seed),
        scratch=np.empty_like(logits),
    )


@given(tied, st.integers(1, 20))
def test_top_k_equals_a_stable_sort(logits: np.ndarray, k: int) -> None:
    assert top_k(logits, k).tolist() == plain_top_k(logits, k)


@given(st.integers(0, 2**32 - 1), st.sampled_from([2048, 4096, 4099, 49_152]), st.sampled_from([1, 10, 128, 129]))
def test_top_k_of_random_logits_equals_a_stable_sort(seed: int, size: int, k: int) -> None:
    logits = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    assert top_k(logits, k).tolist() == np.argsort(-logits, kind="stable")[:k].tolist()


@given(vectors, st.floats(-5, 5, width=32), st.floats(-3, 3, width=32))
def test_a_constant_reward_never_changes_the_choice(logits: np.ndarray, constant: float, weight: float) -> None:
    rounded = np.round(logits, 1)
    reward = FunctionReward(lambda step: np.full((len(step.candidates), 1), round(constant, 1)), ["x"])
    trace = run(rounded, reward, [weight])
    assert trace.base_scores[trace.chosen] == trace.base_scores[trace.base_choice]


@given(
    vectors,
    st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.8]),
)
def test_strength_zero_is_the_base_even_with_broken_rewards(
    logits: np.ndarray, weights: list[float], seed: int, temperature: float
) -> None:
    broken = FunctionReward(lambda step: np.full((len(step.candidates), 2), np.nan), ["x", "y"])
    off = run(logits, broken, weights, seed, strength=0.0, temperature=temperature)
    base = run(logits, None, [], seed, temperature=temperature)
    assert off.candidates[off.chosen] == base.candidates[base.chosen]
    assert not off.fallback
    assert broken.calls == 0


@given(vectors, st.sampled_from([np.nan, np.inf, -np.inf]))
def test_rewards_that_are_not_finite_leave_the_choice_to_the_base(logits: np.ndarray, bad: float) -> None:
    def partly(step: Step) -> np.ndarray:
        features = np.ones((len(step.candidates), 1))
        features[-1] = bad
        return features

    trace = run(logits, FunctionReward(partly, ["x"]), [1.0])
    assert trace.fallback
    assert trace.chosen == trace.base_choice == 0
    assert not trace.contributions.any()


@given(vectors, st.integers(0, 2**31), st.integers(0, 2**31))
def test_temperature_zero_ignores_the_seed(logits: np.ndarray, one: int, other: int) -> None:
    reward = FunctionReward(lambda step: np.sin(step.candidates.astype(np.float32) * 3)[:, None], ["x"])
    assert run(logits, reward, [1.0], one).chosen == run(logits, reward, [1.0], other).chosen


@given(vectors, st.integers(0, 39), st.floats(0, 10, width=32))
def test_raising_one_candidates_reward_never_lowers_its_rank(base: np.ndarray, index: int, by: float) -> None:
    index %= len(base)
    features = np.zeros((len(base), 1), dtype=np.float32)
    push = np.ones(1, dtype=np.float32)
    before = combine(base, features, push)
    features[index] = by
    after = combine(base, features, push)
    assert (after > after[index]).sum() <= (before > before[index]).sum()


@given(vectors, st.floats(0.05, 5), st.floats(0, 1), st.floats(0, 1))
def test_a_distribution_sums_to_one_and_keeps_the_best(
    scores: np.ndarray, temperature: float, top_p: float, min_p: float
) -> None:
    got = distribution(scores, temperature=temperature, top_p=top_p, min_p=min_p)
    assert got.sum() == pytest.approx(1.0, abs=1e-4)
    assert got[scores.argmax()] == got.max() > 0
    assert (got >= 0).all()


@given(vectors, st.floats(0, 0.9999), st.floats(0.1, 3), st.floats(0.1, 1), st.floats(0, 0.5))
def test_only_what_the_filters_kept_is_ever_drawn(
    scores: np.ndarray, draw: float, temperature: float, top_p: float, min_p: float
) -> None:
    chosen = choose(scores, temperature=temperature, top_p=top_p, min_p=min_p, draw=draw)
    assert distribution(scores, temperature=temperature, top_p=top_p, min_p=min_p)[chosen] > 0


@given(st.integers(0, 2**31), st.sampled_from([0.5, 1.0, 1.5, 4.0]))
def test_base_scores_are_log_probabilities_with_and_without_a_repetition_penalty(seed: int, penalty: float) -> None:
    logits = (np.random.default_rng(seed).normal(size=30) * 3).astype(np.float32)
    trace = run(logits, None, [], candidates=30, repetition_penalty=penalty)
    assert np.exp(trace.base_scores).sum() == pytest.approx(1.0, abs=1e-4)


def test_seeded_draws_fit_the_softmax() -> None:
    scores = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
    draws = np.random.default_rng(7).random(20_000)
    counts = np.bincount([choose(scores, temperature=1.0, top_p=1.0, min_p=0.0, draw=u) for u in draws], minlength=4)
    assert counts / 20_000 == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.015)


@given(vectors, st.integers(0, 2**31))
def test_contributions_explain_the_choice_exactly(logits: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reward = FunctionReward(lambda step: rng.normal(size=(len(step.candidates), 3)).astype(np.float32), ["x", "y", "z"])
    trace = run(logits, reward, [0.5, -1.0, 0.25])
    scores = trace.base_scores.astype(np.float64) + trace.contributions.sum(axis=1)
    assert scores[trace.chosen] == pytest.approx(scores.max(), abs=1e-4)
