"""A head with a dimension more, one less, or one called otherwise; what the others compute stays bit for bit the same.

Two heads become one by putting their tables side by side: (V, r₁) and (V, r₂) give (V, r₁ + r₂), and each map gets
zeros where the other table's columns are. Adding exact zeros to a sum changes no bit of it, one graph and one file stay
enough, and a token still costs one call. Knows no file.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from padlite.backends.onnx_head import HalfArray
from padlite.backends.onnx_head_arrays import HeadArrays
from padlite.errors import NotFoundError, UsageError, did_you_mean
from padlite.seams import Dimension, FloatArray

_PREFIX = "dimension."


def stacked(
    head: HeadArrays, table: HalfArray, maps: FloatArray, dimensions: Sequence[Dimension], origins: Mapping[str, str]
) -> HeadArrays:
    """Return *head* with *dimensions* more, of *table* (V, r₂) and *maps* (m₂, d, r₂); *origins* by name."""
    old, new = head.table.shape[1], table.shape[1]
    return dataclasses.replace(
        head,
        table=np.concatenate([head.table, table], axis=1),
        maps=np.concatenate(
            [np.pad(head.maps, ((0, 0), (0, 0), (0, new))), np.pad(maps, ((0, 0), (0, 0), (old, 0)))]
        ),
        dimensions=(*head.dimensions, *dimensions),
        provenance={**head.provenance, **{_PREFIX + name: text for name, text in origins.items()}},
    )  # fmt: skip


def without(head: HeadArrays, name: str) -> HeadArrays | None:
    """Return *head* without the dimension *name*, or None if it was the last one.

    Columns that nobody uses any more go only from the table's end: others that move would be summed in another order.
    """
    place = place_of(head, name)
    if len(head.dimensions) == 1:
        return None
    maps = np.delete(head.maps, place, axis=0)
    used = np.flatnonzero(maps.any(axis=(0, 1)))
    kept = int(used[-1]) + 1 if len(used) else 1
    return dataclasses.replace(
        head,
        table=np.ascontiguousarray(head.table[:, :kept]),
        maps=np.ascontiguousarray(maps[:, :, :kept]),
        dimensions=tuple(each for each in head.dimensions if each.name != name),
        provenance={key: text for key, text in head.provenance.items() if key != _PREFIX + name},
        text_map=head.text_map.without(name) if head.text_map else None,
    )


def renamed(head: HeadArrays, old: str, new: str) -> HeadArrays:
    """Return *head* with its dimension *old* called *new*."""
    place = place_of(head, old)
    refuse_existing(head, [new])
    dimensions = list(head.dimensions)
    dimensions[place] = dataclasses.replace(dimensions[place], name=new)
    provenance = {(_PREFIX + new if key == _PREFIX + old else key): text for key, text in head.provenance.items()}
    text_map = head.text_map.renamed(old, new) if head.text_map else None
    return dataclasses.replace(head, dimensions=tuple(dimensions), provenance=provenance, text_map=text_map)


def origin(head: HeadArrays, name: str) -> str | None:
    """Return what was noted about the dimension *name* when it was added, or None if it came with the model."""
    return head.provenance.get(_PREFIX + name)


def place_of(head: HeadArrays, name: str) -> int:
    """Return which dimension is called *name*, or raise NotFoundError."""
    if name not in head.names:
        raise NotFoundError(
            f"there is no dimension {name!r}{did_you_mean(name, head.names)}",
            remedy=f"use one of: {', '.join(head.names)}",
        )
    return head.names.index(name)


def refuse_existing(head: HeadArrays, names: Sequence[str]) -> None:
    """Raise UsageError if *head* has one of *names* already."""
    for name in names:
        if name in head.names:
            raise UsageError(
                f"there is a dimension {name!r} already",
                remedy=f"choose another name, or first: padlite dimension rm {name}",
            )
