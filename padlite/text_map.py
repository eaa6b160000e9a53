"""From what a person says of themselves to preference weights: the map that a reward head's second stage learned.

    w = tanh(M [s, Δh, 1])          for the map's m dimensions

s (m,) and Δh (d,) say how the base model reacts to the text (`padlite.reaction`); M (m, m + d + 1). PAD's w_p, for
preferences that nobody trained on. Knows neither how a reaction comes about nor files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from padlite.seams import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reaction:
    """What a text in its prompt changes in a base model, on average over the probes.

    *signature* s (m,): its next words, in terms of a head's dimensions (in nats per weight); *hidden* Δh (d,): its
    hidden state.
    """

    signature: FloatArray
    hidden: FloatArray

    @property
    def vector(self) -> FloatArray:
        """[s, Δh, 1], (m + d + 1,)."""
        return np.concatenate([self.signature, self.hidden, np.ones(1, dtype=np.float32)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextMap:
    """The map: the *names* of its dimensions, in the order of a reaction's signature, and *matrix* M (m, m + d + 1)."""

    names: tuple[str, ...]
    matrix: FloatArray

    def weights(self, reaction: Reaction) -> dict[str, float]:
        """Return the weight of each dimension, between -1 and 1, in hundredths as a person would write it."""
        wanted = np.tanh(self.matrix @ reaction.vector)
        return {name: round(float(weight), 2) + 0.0 for name, weight in zip(self.names, wanted, strict=True)}

    def renamed(self, old: str, new: str) -> "TextMap":
        """Return the map with its dimension *old*, if it has it, called *new*."""
        return replace(self, names=tuple(new if name == old else name for name in self.names))

    def without(self, name: str) -> "TextMap | None":
        """Return the map without the dimension *name*, or None if nothing is left of it."""
        if name not in self.names:
            return self
        place = self.names.index(name)
        kept = tuple(each for each in self.names if each != name)
        matrix = np.delete(np.delete(self.matrix, place, axis=0), place, axis=1)
        return TextMap(names=kept, matrix=matrix) if kept else None


def problem_of(text_map: TextMap, dimensions: Sequence[str], width: int) -> str:
    """Return why *text_map* can't belong to a head with *dimensions* and hidden states of *width*, or ''."""
    count = len(text_map.names)
    if not count or len(set(text_map.names)) != count or not set(text_map.names) <= set(dimensions):
        return "its text map isn't for dimensions that it has"
    if text_map.matrix.shape != (count, count + width + 1) or text_map.matrix.dtype != np.float32:
        return f"its text map isn't ({count}, {count + width + 1}) float32"
    return "" if bool(np.isfinite(text_map.matrix).all()) else "its text map holds a number that isn't finite"
