"""Laws of a reward head: which dimensions are wanted decides what is computed, never what comes out of it."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from padlite.backends.onnx import OnnxHead
from padlite.seams import FloatArray, Step
from tests import heads

M = 5
SHAPES = {"whole in its file": (6, 3), "maps beside it": (1024, 64)}  # width, rank


@pytest.fixture(scope="module", params=SHAPES)
def head(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnnxHead]:
    width, rank = SHAPES[request.param]
    path = tmp_path_factory.mktemp("head") / "reward.onnx"
    with OnnxHead.open(heads.write_head_of(path, dimensions=M, width=width, rank=rank)) as opened:
        assert path.with_name("reward.onnx.data").exists() is (width == 1024)
        yield opened


def _step(head: OnnxHead, weights: FloatArray, *, seed: int, candidates: int) -> Step:
    step = heads.step(list(range(candidates)), width=head.hidden_size, seed=seed)
    return step._replace(weights=weights)


@settings(deadline=None, max_examples=60)
@given(
    weights=st.lists(st.sampled_from([0.0, -0.0, 0.25, -1.5, 2.0]), min_size=M, max_size=M),
    seed=st.integers(0, 2**20),
    candidates=st.integers(1, heads.V),
)
def test_a_wanted_dimension_has_the_same_bits_whatever_else_is_wanted(
    head: OnnxHead, weights: list[float], seed: int, candidates: int
) -> None:
    some = np.array(weights, dtype=np.float32)
    everything = _step(head, np.ones(M, dtype=np.float32), seed=seed, candidates=candidates)
    whole = head.features(everything)
    features = head.features(everything._replace(weights=some))
    assert features.shape == (candidates, M)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[:, some != 0], whole[:, some != 0])


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**20))
def test_every_choice_of_dimensions_can_take_turns_with_every_other(head: OnnxHead, seed: int) -> None:
    """There are more of them than are kept."""
    choices = [np.array(each, dtype=np.float32) for each in itertools.product([0, 1], repeat=M)]
    step = _step(head, choices[-1], seed=seed, candidates=3)
    whole = head.features(step)
    for wanted in [*choices, *reversed(choices)]:
        features = head.features(step._replace(weights=wanted))
        np.testing.assert_array_equal(features * wanted, whole * wanted)


@settings(deadline=None, max_examples=10)
@given(levels=st.lists(st.floats(0.125, 2, width=32), min_size=1, max_size=400))
def test_a_weight_may_take_any_number_of_values(head: OnnxHead, levels: list[float]) -> None:
    first = _step(head, np.ones(M, dtype=np.float32), seed=3, candidates=4)
    whole = head.features(first)
    for level in levels:
        weights = np.array([0, level, 0, 0, 0], dtype=np.float32)
        np.testing.assert_array_equal(head.features(first._replace(weights=weights))[:, 1], whole[:, 1])


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_dimensions_that_weigh_nothing_are_not_computed(head: OnnxHead, wanted: int) -> None:
    weights = np.array([1] * wanted + [0] * (M - wanted), dtype=np.float32)
    features = head.features(_step(head, weights, seed=1, candidates=2))
    assert (features[:, :wanted] != 0).all()
    assert (features[:, wanted:] == 0).all()


def test_a_hidden_state_that_is_not_a_number_is_seen_with_any_weights(head: OnnxHead) -> None:
    for weights in itertools.product([0.0, 1.0], repeat=M):
        step = _step(head, np.array(weights, dtype=np.float32), seed=1, candidates=2)
        step.hidden[0] = np.nan
        assert np.isnan(head.features(step)).all()
