"""Means of figures with standard errors that know what isn't independent: the answers and pairs of one group.

Pairs of a group reuse the same few answers, and all dimensions answer the same prompts. So an error is that of a mean
over groups, in which everything that belongs to a group moves together. Knows neither rivals nor dimensions by name.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Figures of single answers or pairs, *values*, with the group that each belongs to."""

    values: tuple[float, ...]
    groups: tuple[str, ...]

    @classmethod
    def of_shares(cls, right: Iterable[bool], groups: Iterable[str]) -> Self:
        """Return 1 for each that is *right* and 0 for the others: their mean is a share."""
        return cls(values=tuple(map(float, right)), groups=tuple(groups))

    def __post_init__(self) -> None:
        if len(self.values) != len(self.groups):
            raise ValueError(f"{len(self.values)} values, but {len(self.groups)} groups")


def mean_and_error(parts: Sequence[Values]) -> tuple[float | None, float | None]:
    """Return the mean over *parts* of the mean of each one's values, and its standard error over groups.

    In each part every value counts the same, whatever the size of its group. The error is the clustered one: with r_g
    the sum of what all values of group g, in all parts, add to the distance from the mean, it is √(G/(G−1) Σ r_g²) for
    G groups; for groups of equal size that of the mean of their means. Parts without values don't count. None: there
    are no values, or, for the error, fewer than two groups.
    """
    used = [part for part in parts if part.values]
    if not used:
        return None, None
    means = [float(np.mean(part.values)) for part in used]
    moved: dict[str, float] = {}
    for part, mean in zip(used, means, strict=True):
        for value, group in zip(part.values, part.groups, strict=True):
            moved[group] = moved.get(group, 0.0) + (value - mean) / (len(part.values) * len(used))
    count = len(moved)
    error = math.sqrt(count / (count - 1) * sum(each**2 for each in moved.values())) if count > 1 else None
    return float(np.mean(means)), error


def with_error(value: float | None, error: float | None) -> str:
    """Return *value* with its *error* as they are printed, with a dash for what isn't known."""
    return "–" if value is None else f"{value:.2f} ±{'–' if error is None else f'{error:.2f}'}"
