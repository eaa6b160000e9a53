"""Laws of the log-probabilities that the server reports: the guided model's, whatever the scale of a head's rewards."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from padlite.decode import TokenTrace
from padlite.server.answers import guided_logprobs

floats = st.floats(-20, 20, width=32)


def trace(base: list[float], features: list[float], *, strength: float) -> TokenTrace:
    scores = np.sort(np.array(base, dtype=np.float32))[::-1]
    scores = scores - np.logaddexp.reduce(scores) - np.float32(0.1)  # other tokens have a tenth of the probability
    return TokenTrace(
        candidates=np.arange(len(base)), base_scores=scores,
        features=np.array(features, dtype=np.float32)[:, None], push=np.array([strength], dtype=np.float32),
        chosen=0, base_choice=0, fallback=False,
    )  # fmt: skip


@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=12), st.floats(-3, 3), st.floats(-1000, 1000))
def test_what_a_head_adds_to_all_candidates_alike_changes_nothing(
    rows: list[tuple[float, float]], strength: float, offset: float
) -> None:
    base, features = map(list, zip(*rows, strict=True))
    found = guided_logprobs(trace(base, features, strength=strength))
    moved = guided_logprobs(trace(base, [each + offset for each in features], strength=strength))
    assert np.allclose(found, moved, atol=0.02)
    assert np.exp(found).sum() == pytest.approx(np.exp(-0.1), abs=1e-3)


@given(st.lists(st.tuples(floats, floats), min_size=2, max_size=12))
def test_without_strength_they_are_the_base_s_and_with_it_they_differ_by_the_rewards(
    rows: list[tuple[float, float]],
) -> None:
    base, features = map(list, zip(*rows, strict=True))
    plain, guided = (trace(base, features, strength=strength) for strength in (0.0, 1.0))
    assert np.allclose(guided_logprobs(plain), plain.base_scores, atol=1e-5)
    change = guided_logprobs(guided) - guided.base_scores
    assert np.allclose(change - change[0], guided.features[:, 0] - guided.features[0, 0], atol=1e-3)
