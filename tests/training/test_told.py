"""The bundle's text map: it finds the style that a text asks for, and is judged on texts that it wasn't fitted to."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from padlite.backends.onnx_head_arrays import load_arrays
from padlite.bundle import find_bundle
from padlite.opening import open_chat
from padlite.profile import Profile
from padlite.text_map import Reaction
from padlite_training.facts import TextFacts
from padlite_training.told import WISHED, Told, add_text_map, fit, judge

NAMES = ("a", "b", "c")
WIDTH = 12


def planted(count: int = 90, *, noise: float = 0.2) -> Told:
    """Texts whose style, or none, shows in one place of the hidden state, among *noise*; the signature says nothing."""
    rng = np.random.default_rng(5)
    asked = np.arange(count) % 4 - 1
    hidden = noise * rng.standard_normal((count, WIDTH))
    hidden[np.arange(count)[asked >= 0], asked[asked >= 0]] += 2.0
    signatures = rng.standard_normal((count, len(NAMES)))
    reactions = [
        Reaction(signature=s.astype(np.float32), hidden=h.astype(np.float32))
        for s, h in zip(signatures, hidden, strict=True)
    ]
    return Told(reactions=reactions, asked=asked, everyday=np.arange(count) % 3 > 0)


def test_a_text_gets_the_weights_of_the_style_that_it_asks_for() -> None:
    told = planted()
    text_map = fit(told, NAMES)
    for reaction, style in zip(told.reactions, told.asked, strict=True):
        weights = list(text_map.weights(reaction).values())
        wanted = [WISHED if number == style else 0.0 for number in range(len(NAMES))]
        assert weights == pytest.approx(wanted, abs=0.35)


def test_it_is_judged_on_everyday_texts_only_and_never_on_what_it_was_fitted_to() -> None:
    clear = judge(planted(), NAMES)
    assert (clear.texts, clear.judged, clear.without) == (90, 45, 15)
    assert clear.right == 1.0
    assert clear.quiet > 0.8
    blurred = planted(noise=1000.0)  # nothing to be learned: fitted texts would still come out right
    text_map = fit(blurred, NAMES)
    known = [int(np.argmax(list(text_map.weights(each).values()))) for each in blurred.reactions]
    asking = blurred.asked >= 0
    assert (np.array(known) == blurred.asked)[asking].mean() > judge(blurred, NAMES).right + 0.1


def test_the_bundles_head_gains_a_map_and_keeps_all_else(tmp_path: Path) -> None:
    bundle = find_bundle("padlite-tiny")
    assert bundle.reward is not None
    for file in bundle.reward.parent.glob("reward.onnx*"):  # its large arrays lie beside it
        shutil.copy(file, tmp_path)
    reward = tmp_path / bundle.reward.name
    before = load_arrays(reward)
    facts = add_text_map(bundle.base, reward)
    facts.save(tmp_path / "texts.json")
    assert TextFacts.load(tmp_path / "texts.json") == facts
    assert facts.right > 2 / 8, "chance is one in eight"
    after = load_arrays(reward)
    assert after.text_map is not None
    assert after.text_map.names == tuple(dimension.name for dimension in after.dimensions)
    assert np.array_equal(before.table, after.table)
    assert np.array_equal(before.maps, after.maps)
    text = "I love jokes."
    with open_chat(Profile(base=bundle.base, reward=reward, preference_text=text, threads=1)) as chat:
        assert set(chat.profile.text_weights) == set(after.text_map.names)
