"""Laws of a reward head: which dimensions are wanted decides what is computed, never what comes out of it."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from padlite.backends.onnx import OnnxHead
from padlite.seams import FloatArray, Step
from tests import heads

M = 5
SHAPES = {  # width, rank, vocabulary
    "whole in its file": (6, 3, heads.V),
    "maps beside it": (1024, 64, heads.V),
    "table beside it": (6, 32, 20_000),
    "both beside it": (1024, 64, 20_000),
}


@pytest.fixture(scope="module", params=SHAPES)
def head(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnnxHead]:
    with OnnxHead.open(_write(tmp_path_factory.mktemp("head") / "reward.onnx", request.param)) as opened:
        yield opened


def _write(path: Path, shape: str, *, seed: int = 1) -> Path:
    width, rank, vocabulary_size = SHAPES[shape]
    heads.write_head_of(path, dimensions=M, width=width, rank=rank, vocabulary_size=vocabulary_size, seed=seed)
    assert path.with_name("reward.onnx.data").exists() is (shape != "whole in its file")
    return path


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


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("happens", ["removed", "replaced"])
def test_an_open_head_goes_on_when_its_files_are_gone(tmp_path: Path, shape: str, happens: str) -> None:
    path = _write(tmp_path / "reward.onnx", shape)
    some = np.array([0, 1, 1, 0, 0], dtype=np.float32)
    with OnnxHead.open(path) as head:
        step = _step(head, np.ones(M, dtype=np.float32), seed=1, candidates=3)
        whole = head.features(step)
        if happens == "replaced":
            _write(path, shape, seed=2)
        else:
            for each in tmp_path.iterdir():
                each.unlink()
        np.testing.assert_array_equal(head.features(step._replace(weights=some)), whole * some)


def test_a_head_of_links_as_the_hub_keeps_it_computes_some_dimensions_too(tmp_path: Path) -> None:
    blobs, shown = tmp_path / "blobs", tmp_path / "snapshot"
    for folder in (blobs, shown):
        folder.mkdir()
    _write(blobs / "reward.onnx", "both beside it")
    for name in ("reward.onnx", "reward.onnx.data"):
        (shown / name).symlink_to(blobs / name)
    some = np.array([0, 1, 0, 0, 0], dtype=np.float32)
    with OnnxHead.open(shown / "reward.onnx") as head:
        step = _step(head, np.ones(M, dtype=np.float32), seed=1, candidates=3)
        np.testing.assert_array_equal(head.features(step._replace(weights=some)), head.features(step) * some)
