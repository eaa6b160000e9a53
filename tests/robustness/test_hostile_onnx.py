"""Hostile and damaged reward models: refused before ONNX Runtime sees them, with one clear error, quickly."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from padlite.backends import onnx_schema as onnx
from padlite.backends import preflight
from padlite.backends.onnx import OnnxHead
from padlite.errors import BackendError, NotFoundError, PadliteError
from tests import heads

SLOWEST_S = 5.0  # a quiet machine needs a tenth of it for the worst of these files


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return heads.write_small_head(tmp_path / "reward.onnx")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return heads.write_large_head(tmp_path / "reward.onnx")


def _refusal(path: Path) -> str:
    """Return the message with which *path* is refused before ONNX Runtime is asked; fail if it isn't, or slowly."""
    started = time.monotonic()
    with pytest.raises(BackendError) as caught:
        preflight.inspect(path)
    assert time.monotonic() - started < SLOWEST_S
    assert caught.value.remedy
    assert "\n" not in caught.value.message
    with pytest.raises(BackendError):
        OnnxHead.open(path)
    return caught.value.message


def test_a_head_that_padlite_wrote_passes(small: Path) -> None:
    preflight.inspect(small)


def test_a_head_with_a_data_file_passes(large: Path) -> None:
    preflight.inspect(large)


# --- what the graph may contain


@pytest.mark.parametrize(
    "operator",
    [
        "Loop",
        "If",
        "Scan",
        "ConstantOfShape",
        "Constant",
        "Expand",
        "Range",
        "Tile",
        "RandomNormal",
        "SequenceMap",
        "Nope",
    ],
)
def test_an_operator_outside_the_list_is_refused_by_name(small: Path, operator: str) -> None:
    heads.edit(small, lambda model: heads.add_node(model, operator))
    assert f"operator '{operator}'" in _refusal(small)


def test_an_endless_loop_is_refused(small: Path) -> None:
    def endless(model: onnx.Model) -> None:
        node = heads.add_node(model, "Loop")
        body = node.attribute.add()
        body.name, body.type = "body", 5
        body.g.append(onnx.serialize_model(onnx.new_model()))

    assert "operator 'Loop'" in _refusal(heads.edit(small, endless))


def test_a_file_of_a_hundred_bytes_that_asks_for_four_gigabytes_is_refused(tmp_path: Path) -> None:
    model = onnx.new_model()
    model.ir_version = 10
    model.opset_import.add().version = 21
    shape = model.graph.initializer.add()
    shape.name, shape.data_type, shape.raw_data = "n", onnx.INT64, np.array([10**9], dtype="<i8").tobytes()
    shape.dims.append(1)
    node = model.graph.node.add()
    node.op_type = "ConstantOfShape"
    node.input.append("n")
    node.output.append("features")
    path = tmp_path / "bomb.onnx"
    path.write_bytes(onnx.serialize_model(model))
    assert path.stat().st_size < 150
    assert "operator 'ConstantOfShape'" in _refusal(path)


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx", "ai.onnx.ml", "evil.example"])
def test_an_allowed_name_in_another_domain_is_another_operator(small: Path, domain: str) -> None:
    heads.edit(small, lambda model: heads.add_node(model, "MatMul", domain=domain))
    assert f"operator '{domain}.MatMul'" in _refusal(small)


@pytest.mark.parametrize(
    "field", ["g", "graphs", "t", "tensors", "sparse_tensor", "sparse_tensors", "tp", "type_protos"]
)
@pytest.mark.parametrize("kind", [0, 2, 4, 5, 10, 99])
def test_a_setting_that_holds_a_graph_or_an_array_is_refused_whatever_it_calls_itself(
    small: Path, field: str, kind: int
) -> None:
    def smuggle(model: onnx.Model) -> None:
        attribute = model.graph.node[0].attribute.add()
        attribute.name, attribute.type = "body", kind
        getattr(attribute, field).append(b"")

    assert "as a setting" in _refusal(heads.edit(small, smuggle))


def test_a_setting_without_a_value_is_refused_by_its_kind_alone(small: Path) -> None:
    def smuggle(model: onnx.Model) -> None:
        attribute = model.graph.node[0].attribute.add()
        attribute.name, attribute.type = "body", 5

    assert "as a setting" in _refusal(heads.edit(small, smuggle))


def _opset_of(domain: str, version: int) -> Callable[[onnx.Model], None]:
    def add(model: onnx.Model) -> None:
        opset = model.opset_import.add()
        opset.domain, opset.version = domain, version

    return add


def _ir_version(model: onnx.Model) -> None:
    model.ir_version = 99


def _overload(model: onnx.Model) -> None:
    model.graph.node[0].overload = "other"


def _many_nodes(model: onnx.Model) -> None:
    for _ in range(17):
        heads.add_node(model, "Cast")


def _many_metadata(model: onnx.Model) -> None:
    for _ in range(100):
        model.metadata_props.add()


def _many_hints(model: onnx.Model) -> None:
    for _ in range(10_000):
        heads.initializer(model, "A").metadata_props.add()


def _many_inputs(model: onnx.Model) -> None:
    model.graph.node[0].input.extend(["hidden"] * 1000)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: model.functions.append(b""), "local functions"),
        (lambda model: model.training_info.append(b""), "training graphs"),
        (lambda model: model.configuration.append(b""), "device configurations"),
        (lambda model: model.graph.sparse_initializer.append(b""), "sparse arrays"),
        (lambda model: model.graph.quantization_annotation.append(b""), "quantization"),
        (_opset_of("evil.example", 1), "operator set 'evil.example'"),
        (_opset_of("", 999), "operator set 'ai.onnx' 999"),
        (_ir_version, "format version 99"),
        (_overload, "overload"),
        (_many_nodes, "22 operators"),
        (_many_metadata, "metadata entries"),
        (_many_hints, "parts"),
        (_many_inputs, "more than 64 inputs"),
    ],
)
def test_whatever_a_head_has_no_use_for_is_refused(
    small: Path, change: Callable[[onnx.Model], object], reason: str
) -> None:
    assert reason in _refusal(heads.edit(small, change))


@pytest.mark.parametrize(
    "tail",
    [b"\xf2\x06\x01a", b"\x3a\x04\xf2\x06\x01a", b"\x3a\x06\x0a\x04\xf2\x06\x01a"],
    ids=["model", "graph", "node"],
)
def test_a_field_that_only_other_readers_know_is_refused(small: Path, tail: bytes) -> None:
    with small.open("ab") as file:
        file.write(tail)
    message = _refusal(small)
    assert "doesn't know" in message or "operator ''" in message


# --- arrays


def _dims(*sizes: int) -> Callable[[onnx.Model], None]:
    def change(model: onnx.Model) -> None:
        tensor = heads.initializer(model, "A")
        while len(tensor.dims):
            tensor.dims.pop()
        tensor.dims.extend(sizes)

    return change


def _item_type(model: onnx.Model) -> None:
    heads.initializer(model, "A").data_type = 8


def _typed_data(model: onnx.Model) -> None:
    heads.initializer(model, "A").float_data.append(1.0)


def _segment(model: onnx.Model) -> None:
    heads.initializer(model, "A").segment.append(b"")


def _external_and_inline(model: onnx.Model) -> None:
    tensor = heads.initializer(model, "A")
    tensor.data_location = onnx.EXTERNAL
    tensor.external_data.add().key = "location"


def _unknown_location(model: onnx.Model) -> None:
    heads.initializer(model, "A").data_location = 7


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_dims(10**6, 10**6), "should have 4000000000000 bytes and has 144"),
        (_dims(2**62, 2**62, 0), "should have 0 bytes"),
        (_dims(-6, -6), "impossible shape"),
        (_dims(*[1] * 9), "impossible shape"),
        (_dims(), "should have 4 bytes"),
        (_item_type, "number type 8"),
        (_typed_data, "float_data"),
        (_segment, "segment"),
        (_external_and_inline, "external_data"),
        (_unknown_location, "data_location"),
    ],
)
def test_an_array_must_have_exactly_the_bytes_of_its_shape(
    small: Path, change: Callable[[onnx.Model], None], reason: str
) -> None:
    assert reason in _refusal(heads.edit(small, change))


# --- data files


def _entry(key: str, value: str) -> Callable[[onnx.Model], None]:
    def change(model: onnx.Model) -> None:
        next(each for each in heads.initializer(model, "table").external_data if each.key == key).value = value

    return change


@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/passwd", "sub/../../secret", "a\\b", "C:secret", ".", "..", "", "a\0b", "./reward.onnx.data"],
)
def test_data_outside_the_folder_is_refused(large: Path, location: str) -> None:
    heads.edit(large, _entry("location", location))
    assert "not the plain name of a file beside it" in _refusal(large)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("offset", "1", "the reward model needs"),
        ("offset", "999999999999999", "the reward model needs"),
        ("offset", "-1", "'-1'"),
        ("offset", "0x10", "'0x10'"),
        ("offset", "٣", "'٣'"),
        ("offset", "9" * 5000, "as offset"),
        ("length", "1199999", "names 1199999"),
        ("length", "", "''"),
        ("location", "missing.data", "missing.data is missing beside reward.onnx"),
        ("location", "x" * 5000, "can't be read"),
    ],
)
def test_data_that_is_not_all_there_is_refused(large: Path, key: str, value: str, reason: str) -> None:
    assert reason in _refusal(heads.edit(large, _entry(key, value)))


def test_a_data_file_that_was_cut_off_is_refused(large: Path) -> None:
    data = large.with_name("reward.onnx.data")
    data.write_bytes(data.read_bytes()[:-1])
    assert "1199999 bytes, the reward model needs 1200000" in _refusal(large)


def test_more_entries_than_location_offset_and_length_are_refused(large: Path) -> None:
    def add(model: onnx.Model) -> None:
        entry = heads.initializer(model, "table").external_data.add()
        entry.key, entry.value = "location", "other.data"

    assert "no more" in _refusal(heads.edit(large, add))


def test_weights_that_are_huge_in_total_are_refused_though_a_sparse_file_costs_nothing(large: Path) -> None:
    size = 3 * 2**30
    os.truncate(large.with_name("reward.onnx.data"), size)

    def grow(model: onnx.Model) -> None:
        heads.initializer(model, "table").dims[0] = size // 6
        _entry("length", str(size))(model)

    assert "larger than 2048 MiB" in _refusal(heads.edit(large, grow))


def test_a_link_out_of_the_folder_is_refused(large: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    data = large.with_name("reward.onnx.data")
    data.rename(outside / "secret")
    data.symlink_to(outside / "secret")
    assert "link out of its folder" in _refusal(large)


def test_a_link_in_a_circle_is_refused(large: Path) -> None:
    data = large.with_name("reward.onnx.data")
    data.unlink()
    data.symlink_to(data.name)
    _refusal(large)


def test_the_layout_of_the_hugging_face_cache_is_accepted(large: Path, tmp_path: Path) -> None:
    """Both files are links from a snapshot's folder into one folder of blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots/abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name, blob in (("reward.onnx", "0a1b"), ("reward.onnx.data", "2c3d")):
        large.with_name(name).rename(blobs / blob)
        (snapshot / name).symlink_to(Path("../../blobs") / blob)
    with OnnxHead.open(snapshot / "reward.onnx") as head:
        assert head.features(heads.step([1, 2])).shape == (2, 2)


def test_files_that_a_package_manager_shares_by_hard_links_are_accepted(large: Path, tmp_path: Path) -> None:
    """The installer uv links files from its cache into every environment."""
    for name in ("reward.onnx", "reward.onnx.data"):
        (tmp_path / ("cache-" + name)).hardlink_to(large.with_name(name))
    preflight.inspect(large)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["reward.onnx", "reward.onnx.data"])
def test_a_named_pipe_is_refused_without_waiting_for_a_writer(large: Path, name: str) -> None:
    path = large.with_name(name)
    path.unlink()
    os.mkfifo(path)
    assert "no regular file" in _refusal(large)


# --- whole files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"GGUF" + bytes(100), "no ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "no ONNX model"),
        (bytes(5 * 2**20), "more than 4 MiB"),
        (b"\x3a\xfc\xff\xff\x01" + b"\x0a\x00" * 2**21, "4 MiB"),
        (b"\x3a\xfc\xff\x7f" + b"\x0a\x00" * (2**20 - 2), "1048574 operators"),
    ],
    ids=["empty", "GGUF", "LFS pointer", "zeros", "too large", "a million empty operators"],
)
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "reward.onnx"
    path.write_bytes(content)
    assert reason in _refusal(path)


def test_a_folder_is_refused_and_a_missing_file_not_found(tmp_path: Path) -> None:
    assert "no regular file" in _refusal(tmp_path)
    with pytest.raises(NotFoundError):
        preflight.inspect(tmp_path / "none.onnx")
    with pytest.raises(PadliteError):
        preflight.inspect(tmp_path / "a\0b")
    with pytest.raises(PadliteError):
        preflight.inspect(tmp_path / ("x" * 5000))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_read_permission_is_one_error(small: Path) -> None:
    small.chmod(0)
    assert "can't be read" in _refusal(small)


def test_every_truncation_of_a_head_is_refused(small: Path) -> None:
    whole = small.read_bytes()
    for length in range(0, len(whole), 7):
        small.write_bytes(whole[:length])
        with pytest.raises(PadliteError):
            OnnxHead.open(small)


# --- fuzzing: whatever comes out is a working head or a PadliteError


def _open_and_score(content: bytes) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reward.onnx"
        path.write_bytes(content)
        with contextlib.suppress(PadliteError), OnnxHead.open(path) as head:
            features = head.features(heads.step([1, 2, 3], width=head.hidden_size))
            assert features.shape == (3, len(head.dimensions))
    assert time.monotonic() - started < SLOWEST_S


def _template() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return heads.write_small_head(Path(folder) / "reward.onnx").read_bytes()


TEMPLATE = _template()
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FUZZ
@given(st.binary(max_size=400))
def test_random_bytes_are_refused(content: bytes) -> None:
    _open_and_score(content)


@FUZZ
@given(st.integers(0, len(TEMPLATE)))
def test_a_truncated_head_is_refused(length: int) -> None:
    _open_and_score(TEMPLATE[:length])


@FUZZ
@given(st.lists(st.tuples(st.integers(0, len(TEMPLATE) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_head_with_changed_bytes_is_a_head_or_refused(changes: list[tuple[int, int]]) -> None:
    content = bytearray(TEMPLATE)
    for position, value in changes:
        content[position] = value
    _open_and_score(bytes(content))


@FUZZ
@given(st.integers(0, len(TEMPLATE)), st.binary(max_size=40), st.integers(0, 40))
def test_a_head_with_a_piece_replaced_is_a_head_or_refused(position: int, piece: bytes, removed: int) -> None:
    _open_and_score(TEMPLATE[:position] + piece + TEMPLATE[position + removed :])


@FUZZ
@given(st.integers(0, len(TEMPLATE)), st.integers(0, len(TEMPLATE)))
def test_a_head_with_a_piece_of_itself_in_the_middle_is_a_head_or_refused(start: int, position: int) -> None:
    _open_and_score(TEMPLATE[:position] + TEMPLATE[start : start + 200] + TEMPLATE[position:])
