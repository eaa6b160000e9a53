"""Dimensions that join, leave and are renamed: what the others compute stays bit for bit the same."""

from pathlib import Path

import numpy as np
import pytest

from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_head_arrays import HeadArrays, load_arrays
from padlite.dimensions.stacking import origin, place_of, refuse_existing, renamed, stacked, without
from padlite.errors import NotFoundError, UsageError
from padlite.seams import Dimension, FloatArray, Step
from tests.heads import NAMES, SHA256, probe


def head(width: int, vocabulary_size: int, rank: int, *, seed: int = 1) -> HeadArrays:
    rng = np.random.default_rng(seed)
    return HeadArrays(
        table=rng.standard_normal((vocabulary_size, rank)).astype(np.float16),
        maps=rng.standard_normal((len(NAMES), width, rank)).astype(np.float32),
        dimensions=tuple(Dimension(name=name, description=f"more {name}", scale=0.5) for name in NAMES),
        tokenizer_sha256=SHA256, probe=probe(width), provenance={"made": "for a test"},
    )  # fmt: skip


def joined(first: HeadArrays, *, rank: int = 5, name: str = "pirate") -> HeadArrays:
    rng = np.random.default_rng(9)
    return stacked(
        first,
        rng.standard_normal((first.table.shape[0], rank)).astype(np.float16),
        rng.standard_normal((1, first.maps.shape[1], rank)).astype(np.float32),
        [Dimension(name=name, description="Arr.")],
        {name: '{"sentence": "Arr."}'},
    )


def features(path: Path, arrays: HeadArrays, *, states: int = 200) -> FloatArray:
    """What a saved head computes for random states, (states, k, m)."""
    arrays.save(path)
    rng = np.random.default_rng(3)
    vocabulary_size, width = arrays.table.shape[0], arrays.maps.shape[1]
    with OnnxHead.open(path, device="cpu") as opened:
        return np.stack(
            [
                opened.features(
                    Step(
                        context=(),
                        candidates=rng.integers(0, vocabulary_size, 10),
                        base_logits=np.zeros(10, dtype=np.float32),
                        hidden=rng.standard_normal((1, width)).astype(np.float32)[0],
                        weights=np.ones(len(arrays.dimensions), dtype=np.float32),
                    )
                ).copy()
                for _ in range(states)
            ]
        )


@pytest.mark.parametrize(
    ("width", "rank", "more"), [(6, 3, 5), (64, 12, 24), (256, 12, 24), (576, 8, 7), (2048, 32, 24)]
)
def test_the_other_dimensions_stay_bit_for_bit_when_one_joins_and_when_it_leaves(
    width: int, rank: int, more: int, tmp_path: Path
) -> None:
    first = head(width, 500, rank)
    both = joined(first, rank=more)
    before, after = features(tmp_path / "a.onnx", first), features(tmp_path / "b.onnx", both)
    assert after.shape[2] == len(NAMES) + 1
    assert np.array_equal(before, after[:, :, : len(NAMES)])
    again = without(both, "pirate")
    assert again is not None
    assert again.table.shape == first.table.shape
    assert np.array_equal(before, features(tmp_path / "c.onnx", again))


def test_a_dimension_that_joins_computes_what_it_would_alone(tmp_path: Path) -> None:
    first = head(64, 500, 12)
    both = joined(first)
    alone = without(both, NAMES[0])
    assert alone is not None
    alone = without(alone, NAMES[1])
    assert alone is not None
    assert alone.names == ("pirate",)
    assert alone.table.shape[1] == 12 + 5
    among, by_itself = features(tmp_path / "a.onnx", both)[:, :, -1:], features(tmp_path / "b.onnx", alone)
    assert np.allclose(among, by_itself, atol=1e-4)  # one column is summed in another order than three
    assert without(alone, "pirate") is None


def test_a_saved_head_reads_back_whole(tmp_path: Path) -> None:
    both = joined(head(64, 30_000, 24))  # its table lies beside the file
    both.save(tmp_path / "head.onnx")
    assert (tmp_path / "head.onnx.data").exists()
    read = load_arrays(tmp_path / "head.onnx")
    assert np.array_equal(read.table, both.table)
    assert np.array_equal(read.maps, both.maps)
    assert (read.dimensions, read.tokenizer_sha256) == (both.dimensions, both.tokenizer_sha256)
    assert read.probe.text == both.probe.text
    assert read.provenance == {"made": "for a test", "dimension.pirate": '{"sentence": "Arr."}'}


def test_renaming_changes_the_name_alone() -> None:
    both = joined(head(6, 50, 3))
    after = renamed(both, "pirate", "sailor")
    assert after.names == (*NAMES, "sailor")
    assert origin(after, "sailor") == origin(both, "pirate") != origin(after, "pirate")
    assert after.table is both.table


def test_names_that_are_taken_or_unknown_are_refused_with_a_remedy() -> None:
    both = joined(head(6, 50, 3))
    with pytest.raises(UsageError, match="'pirate' already") as taken:
        refuse_existing(both, ["poet", "pirate"])
    assert "padlite dimension rm pirate" in taken.value.remedy
    with pytest.raises(UsageError, match="'alpha' already"):
        renamed(both, "pirate", "alpha")
    with pytest.raises(NotFoundError, match="'pirat' — did you mean 'pirate'"):
        place_of(both, "pirat")
