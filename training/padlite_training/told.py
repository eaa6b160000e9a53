"""The bundle's text map: from what a person says of themselves to weights of the styles (`padlite.text_map`).

    tanh⁻¹(w) = M [s, Δh, 1]        by ridge regression, w = `WISHED` for the style that a text asks for, 0 for others

It is fitted to texts whose style is known and judged on everyday ones that it wasn't fitted to, fold by fold. (A head
that is trained on pairs learns its map from these instead: `pairs.text_stage`.) Shapes: T texts, m styles, d width.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_head_arrays import load_arrays
from padlite.opening import chat_template
from padlite.reaction import TextReader, features_of
from padlite.text_map import Reaction, TextMap
from padlite_training.base_gguf import open_base
from padlite_training.facts import TextFacts
from padlite_training.preference_texts import EVERYDAY, instructions, read_texts
from padlite_training.reaction_scales import reaction_scales

logger = logging.getLogger(__name__)

WISHED = 0.8
RIDGE = 2.0
FOLDS = 5
QUIET = 0.4
"""A text that asks for nothing should leave every weight below this."""

_SEED = 7

Wanted = npt.NDArray[np.float64]
Chosen = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Texts, read: their *reactions* (T), the style *asked* for (T,) by number or −1, which are *everyday* (T,)."""

    reactions: Sequence[Reaction]
    asked: npt.NDArray[np.int64]
    everyday: Chosen

    def where(self, chosen: Chosen) -> "Told":
        """Return the texts that are *chosen* (T,)."""
        kept = [reaction for reaction, keep in zip(self.reactions, chosen, strict=True) if keep]
        return Told(reactions=kept, asked=self.asked[chosen], everyday=self.everyday[chosen])


def add_text_map(gguf: Path, reward: Path) -> TextFacts:
    """Fit a text map for the head in *reward*, write it there, and return how it does."""
    with open_base(gguf) as base, OnnxHead.open(reward, device="cpu") as head:
        names = tuple(dimension.name for dimension in head.dimensions)
        reader = TextReader(base, base.tokenizer, chat_template(base), features_of(head, names), sequence=1)
        told = _read(reader, names)
    facts = judge(told, names)
    replace(load_arrays(reward), text_map=fit(told, names)).save(reward)
    logger.info("text map: %s", facts)
    return facts


def _read(reader: TextReader, names: Sequence[str]) -> Told:
    """Return the everyday texts and the sentences that the base was taught the styles with, read by *reader*."""
    labelled = [
        (text, names.index(style) if style else -1, everyday)
        for texts, everyday in ((read_texts(EVERYDAY), True), (instructions(), False))
        for style, each in texts.items()
        for text in each
    ]
    return Told(
        reactions=[reader.reaction(text) for text, _, _ in labelled],
        asked=np.array([style for _, style, _ in labelled]),
        everyday=np.array([everyday for _, _, everyday in labelled]),
    )


def fit(told: Told, names: Sequence[str]) -> TextMap:
    """Return the map that ridge regression finds for *told*."""
    signatures = np.stack([each.signature for each in told.reactions])
    hidden = np.stack([each.hidden for each in told.reactions])
    size, spread = reaction_scales(signatures, hidden)
    scales = np.concatenate([np.full(len(names), size), spread])
    known = np.concatenate([signatures, hidden], axis=1) / scales
    wanted = np.arctanh(WISHED) * (told.asked[:, None] == np.arange(len(names)))
    middle, level = known.mean(0), wanted.mean(0)
    centred = known - middle
    # With fewer texts than places, the system of texts is the smaller one.
    shares = np.linalg.solve(centred @ centred.T + RIDGE * np.eye(len(known)), wanted - level)
    matrix = shares.T @ centred
    folded = np.concatenate([matrix / scales, (level - matrix @ middle)[:, None]], axis=1)
    return TextMap(names=tuple(names), matrix=folded.astype(np.float32))


def judge(told: Told, names: Sequence[str]) -> TextFacts:
    """Return how maps do on everyday texts of *told* that they weren't fitted to."""
    right, quiet = list[bool](), list[bool]()
    for held in _folds(told):
        text_map, judged = fit(told.where(~held), names), told.where(held)
        for reaction, style in zip(judged.reactions, judged.asked, strict=True):
            weights = np.array(list(text_map.weights(reaction).values()))
            if style < 0:
                quiet.append(bool(weights.max() < QUIET))
            else:
                right.append(int(weights.argmax()) == style)
    return TextFacts(
        texts=len(told.asked), judged=len(right), right=float(np.mean(right)),
        without=len(quiet), quiet=float(np.mean(quiet)) if quiet else 1.0,
    )  # fmt: skip


def _folds(told: Told) -> Iterator[Chosen]:
    """Yield which texts are held out in each fold; every everyday text is in one of them."""
    places = np.random.default_rng(_SEED).permutation(np.flatnonzero(told.everyday))
    for part in np.array_split(places, FOLDS):
        held = np.zeros(len(told.asked), dtype=np.bool_)
        held[part] = True
        yield held
