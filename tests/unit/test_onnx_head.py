"""A reward head as a file: what is written is what is read, and nothing but a head is accepted."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from padlite.backends import onnx_schema as onnx
from padlite.backends.onnx_head import INLINE_BYTES, HalfArray, Probe, write_head
from padlite.backends.onnx_head_reader import read_head
from padlite.errors import BackendError, UsageError
from padlite.seams import Dimension, FloatArray
from tests import heads


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    info = read_head(onnx.parse_model(heads.write_small_head(tmp_path / "reward.onnx").read_bytes()))
    assert info.dimensions == tuple(Dimension(name=name, description=f"more {name}", scale=0.5) for name in heads.NAMES)
    assert (info.vocabulary_size, info.hidden_size, info.rank) == (heads.V, heads.D, heads.R)
    assert info.tokenizer_sha256 == heads.SHA256
    assert info.probe.text == heads.probe().text
    np.testing.assert_allclose(info.probe.hidden, heads.probe().hidden, atol=1e-6)


def test_the_same_head_gives_the_same_bytes(tmp_path: Path) -> None:
    first = heads.write_large_head(tmp_path / "a.onnx").with_name("a.onnx.data").read_bytes()
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        heads.write_large_head(tmp_path / folder / "reward.onnx")
    assert (tmp_path / "x/reward.onnx").read_bytes() == (tmp_path / "y/reward.onnx").read_bytes()
    assert (tmp_path / "x/reward.onnx.data").read_bytes() == first


def test_arrays_over_a_mebibyte_lie_beside_the_file_under_their_bare_name(tmp_path: Path) -> None:
    path = heads.write_large_head(tmp_path / "reward.onnx")
    table = heads.initializer(onnx.parse_model(path.read_bytes()), "table")
    assert {entry.key: entry.value for entry in table.external_data} == {
        "location": "reward.onnx.data", "offset": "0", "length": str(200_000 * heads.R * 2),
    }  # fmt: skip
    assert path.stat().st_size < 10_000
    assert sorted(each.name for each in tmp_path.iterdir()) == ["reward.onnx", "reward.onnx.data"]


def test_an_array_of_exactly_a_mebibyte_stays_inside(tmp_path: Path) -> None:
    heads.write_small_head(tmp_path / "reward.onnx", vocabulary_size=INLINE_BYTES // 4, rank=2)
    assert [each.name for each in tmp_path.iterdir()] == ["reward.onnx"]


def test_a_smaller_head_in_the_same_place_leaves_no_data_file_behind(tmp_path: Path) -> None:
    heads.write_large_head(tmp_path / "reward.onnx")
    heads.write_small_head(tmp_path / "reward.onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["reward.onnx"]


def test_a_write_that_is_cut_off_never_leaves_one_heads_graph_over_anothers_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = heads.write_large_head(tmp_path / "reward.onnx")
    replace = Path.replace

    def cut_off(self: Path, target: Path) -> Path:
        if self.name == "reward.onnx.partial":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", cut_off)
    with pytest.raises(KeyboardInterrupt):
        heads.write_small_head(path, vocabulary_size=200_001)
    assert not path.exists()
    assert path.with_name("reward.onnx.data").exists()


def _nan(array: FloatArray) -> FloatArray:
    broken = array.copy()
    broken.flat[0] = np.nan
    return broken


TABLE, MAPS = heads.arrays()
DIMENSIONS = tuple(Dimension(name=name) for name in heads.NAMES)


@pytest.mark.parametrize(
    ("table", "maps", "dimensions", "probe", "sha256", "problem"),
    [
        (TABLE.astype(np.float32), MAPS, DIMENSIONS, heads.probe(), heads.SHA256, "float16"),
        (TABLE, MAPS.astype(np.float64), DIMENSIONS, heads.probe(), heads.SHA256, "float32"),
        (TABLE[:, :2], MAPS, DIMENSIONS, heads.probe(), heads.SHA256, "different ranks"),
        (TABLE, MAPS, DIMENSIONS[:1], heads.probe(), heads.SHA256, "one name for each map"),
        (TABLE, MAPS, DIMENSIONS[:1] * 2, heads.probe(), heads.SHA256, "one name for each map"),
        (TABLE, MAPS, DIMENSIONS, heads.probe(heads.D + 1), heads.SHA256, "as wide as the maps"),
        (TABLE, _nan(MAPS), DIMENSIONS, heads.probe(), heads.SHA256, "isn't finite"),
        (np.full_like(TABLE, np.inf), MAPS, DIMENSIONS, heads.probe(), heads.SHA256, "isn't finite"),
        (TABLE[:0], MAPS, DIMENSIONS, heads.probe(), heads.SHA256, "empty"),
        (TABLE, MAPS, DIMENSIONS, heads.probe(), "none", "sha256"),
        (TABLE, MAPS, DIMENSIONS, heads.probe(text=""), heads.SHA256, "no text"),
        (TABLE, MAPS, DIMENSIONS, Probe(text="a", hidden=np.ones(6, np.float32)), heads.SHA256, "length 1"),
        (TABLE, MAPS, tuple(replace(each, scale=np.inf) for each in DIMENSIONS), heads.probe(), heads.SHA256, "scale"),
    ],
)
def test_arrays_that_make_no_head_are_refused_before_anything_is_written(
    tmp_path: Path,
    table: HalfArray,
    maps: FloatArray,
    dimensions: tuple[Dimension, ...],
    probe: Probe,
    sha256: str,
    problem: str,
) -> None:
    with pytest.raises(UsageError, match=problem):
        write_head(
            tmp_path / "reward.onnx",
            table=table, maps=maps, dimensions=dimensions, tokenizer_sha256=sha256, probe=probe,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def _set(key: str, value: str) -> Callable[[onnx.Model], None]:
    return lambda model: heads.set_metadata(model, key, value)


def _rename_input(model: onnx.Model) -> None:
    model.graph.input[0].name = "input_ids"


def _retype_input(model: onnx.Model) -> None:
    model.graph.input[1].type.tensor_type.elem_type = onnx.FLOAT


def _flatten_input(model: onnx.Model) -> None:
    while len(model.graph.input[0].type.tensor_type.shape.dim) > 1:
        del model.graph.input[0].type.tensor_type.shape.dim[1]


def _widen_input(model: onnx.Model) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = heads.D + 1


def _add_input(model: onnx.Model) -> None:
    model.graph.input.add().name = "more"


def _add_output(model: onnx.Model) -> None:
    model.graph.output.add().name = "more"


def _rename_output(model: onnx.Model) -> None:
    model.graph.output[0].name = "logits"


def _rewire(model: onnx.Model) -> None:
    model.graph.node[0].input[1] = "table"


def _extra_node(model: onnx.Model) -> None:
    heads.add_node(model, "Cast")


def _transpose_gather(model: onnx.Model) -> None:
    attribute = model.graph.node[2].attribute.add()
    attribute.name, attribute.type, attribute.i = "axis", 2, 1


def _reshape_to_more(model: onnx.Model) -> None:
    heads.initializer(model, "shape").raw_data = np.array([-1, 1, 6], dtype="<i8").tobytes()


def _single_precision_table(model: onnx.Model) -> None:
    heads.initializer(model, "table").data_type = onnx.FLOAT


def _rank_mismatch(model: onnx.Model) -> None:
    heads.initializer(model, "table").dims[1] = 4


def _second_table(model: onnx.Model) -> None:
    model.graph.initializer.add().name = "table"


def _no_schema(model: onnx.Model) -> None:
    model.metadata_props[0].key = "other"


def _dimensions(*names: object) -> str:
    return json.dumps([{"name": name} for name in names])


def _probe_of(numbers: object, text: object = "hi") -> str:
    return json.dumps({"text": text, "hidden": numbers})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_rename_input, "'hidden'"),
        (_retype_input, "'candidates'"),
        (_flatten_input, "'hidden'"),
        (_widen_input, "'hidden'"),
        (_add_input, "3 inputs"),
        (_add_output, "2 outputs"),
        (_rename_output, "'features'"),
        (_rewire, "wired"),
        (_extra_node, "wired"),
        (_transpose_gather, "Gather has settings"),
        (_reshape_to_more, "reshape"),
        (_single_precision_table, "float16"),
        (_rank_mismatch, "rank 4"),
        (_second_table, "constants"),
        (_no_schema, "no padlite reward model"),
        (_set("padlite.schema", "2"), "schema '2'"),
        (_set("padlite.kind", "lm"), "kind is 'lm'"),
        (_set("padlite.n_embd", "7"), "n_embd"),
        (_set("padlite.tokenizer_sha256", "abc"), "sha256"),
        (_set("padlite.dimensions", "{"), "no JSON"),
        (_set("padlite.dimensions", "[" * 100_000), "no JSON"),
        (_set("padlite.dimensions", "{}"), "isn't a list"),
        (_set("padlite.dimensions", _dimensions("a")), "names 1 dimensions, but its graph computes 2"),
        (_set("padlite.dimensions", _dimensions("a", "a")), "same name"),
        (_set("padlite.dimensions", _dimensions("a", 1)), "name, description, scale"),
        (_set("padlite.dimensions", '[{"name":"a"},{"name":"b","scale":NaN}]'), "name, description, scale"),
        (_set("padlite.probe", "7"), "padlite.probe"),
        (_set("padlite.probe", _probe_of([1.0])), "6 finite numbers"),
        (_set("padlite.probe", _probe_of([0.0] * 6)), "length 0"),
        (_set("padlite.probe", _probe_of([1, 0, 0, 0, 0, "x"])), "finite numbers"),
        (_set("padlite.probe", '{"text":"a","hidden":[1,0,0,0,0,Infinity]}'), "finite numbers"),
        (_set("padlite.probe", _probe_of([1, 0, 0, 0, 0, 0], text=None)), "padlite.probe"),
    ],
)
def test_anything_but_a_head_is_refused_with_the_reason(
    tmp_path: Path, change: Callable[[onnx.Model], None], reason: str
) -> None:
    path = heads.edit(heads.write_small_head(tmp_path / "reward.onnx"), change)
    with pytest.raises(BackendError, match=reason) as caught:
        read_head(onnx.parse_model(path.read_bytes()))
    assert caught.value.remedy


@pytest.mark.parametrize("key", ["padlite.dimensions", "padlite.probe", "padlite.tokenizer_sha256", "padlite.n_embd"])
def test_each_piece_of_metadata_is_required(tmp_path: Path, key: str) -> None:
    def forget(model: onnx.Model) -> None:
        next(entry for entry in model.metadata_props if entry.key == key).key = "forgotten"

    path = heads.edit(heads.write_small_head(tmp_path / "reward.onnx"), forget)
    with pytest.raises(BackendError, match=key.removeprefix("padlite.")):
        read_head(onnx.parse_model(path.read_bytes()))


def test_a_failed_write_leaves_the_old_head_as_it_was(tmp_path: Path) -> None:
    path = heads.write_small_head(tmp_path / "reward.onnx")
    before = path.read_bytes()
    (tmp_path / "reward.onnx.partial").mkdir()
    with pytest.raises(OSError, match="directory"):
        heads.write_small_head(path, rank=2)
    assert path.read_bytes() == before
