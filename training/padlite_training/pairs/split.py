"""Divides pairs by group: what is trained on, and what decides when to stop or how good the result is.

The same groups, share and seed always give the same division, in training and in judging: groups are ranked by a hash
of their name, so the order of the file doesn't matter.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from padlite_training.pairs.reading import Pair, PairsError

HELD_OUT_SHARE = 0.15
SPLIT_SEED = 2410


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSplit:
    """Pairs to train on and pairs *held_out*; no group is in both."""

    training: tuple[Pair, ...]
    held_out: tuple[Pair, ...]

    @property
    def held_out_groups(self) -> tuple[str, ...]:
        """The names of the groups that are held out."""
        return tuple(sorted({pair.group for pair in self.held_out}))


def provenance_of(*, share: float, seed: int) -> dict[str, str]:
    """Return how pairs were divided, as a head's provenance records it."""
    return {"held_out_share": f"{share:g}", "split_seed": str(seed)}


def recorded_share(provenance: Mapping[str, str]) -> float | None:
    """Return the share that was held out when a head with this *provenance* was trained; None if it doesn't say so."""
    try:
        return float(provenance["held_out_share"])
    except (KeyError, ValueError):
        return None


def split_by_group(
    path: Path, pairs: Sequence[Pair], *, share: float = HELD_OUT_SHARE, seed: int = SPLIT_SEED
) -> PairSplit:
    """Return *pairs* (of the file *path*) with about *share* of the groups held out.

    More groups are held out where a dimension would otherwise not be judged, fewer where none would be left to learn
    it from. Raises PairsError if there is only
    one group, or if all pairs of a dimension are in one.
    """
    groups = sorted({pair.group for pair in pairs}, key=lambda name: _rank(name, seed))
    problems = _undivided(pairs, groups)
    if problems:
        raise PairsError(path, problems, remedy='give the pairs of different situations different "group" values')
    held = set(groups[: max(1, round(share * len(groups)))])
    by_dimension = _groups_by_dimension(pairs, groups)
    for of_it in by_dimension.values():
        if not held & set(of_it):
            held.add(of_it[0])
    for of_it in by_dimension.values():  # to learn something of each matters more than to judge each
        if set(of_it) <= held:
            held.discard(of_it[-1])
    return PairSplit(
        training=tuple(pair for pair in pairs if pair.group not in held),
        held_out=tuple(pair for pair in pairs if pair.group in held),
    )


def _rank(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest()


def _groups_by_dimension(pairs: Sequence[Pair], groups: Sequence[str]) -> dict[str, list[str]]:
    """Return the groups in which each dimension has pairs, in the order of *groups*."""
    found: dict[str, set[str]] = {}
    for pair in pairs:
        if pair.dimension is not None:
            found.setdefault(pair.dimension, set()).add(pair.group)
    return {name: [group for group in groups if group in found[name]] for name in sorted(found)}


def _undivided(pairs: Sequence[Pair], groups: Sequence[str]) -> list[str]:
    """Return why the pairs can't be divided, one line each."""
    if len(groups) < 2:
        return ["all pairs are in one group, so nothing could be held out to judge by"]
    alone = [name for name, of_it in _groups_by_dimension(pairs, groups).items() if len(of_it) < 2]
    return [f"all pairs of the dimension {name!r} are in one group" for name in alone]
