"""`padlite export reward` for a trained head: the same features as in PyTorch, for its own base, or a clear refusal."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_head_arrays import HeadArrays, load_arrays
from padlite.decode import Token
from padlite.errors import BackendError, NotFoundError, PadliteError, RewardMismatchError, UsageError
from padlite.opening import open_chat
from padlite.profile import Profile
from padlite_export import head as heads
from padlite_export.head import export_head, read_head_directory
from padlite_training.pairs.fit import FittedHead
from padlite_training.pairs.recipe import PairTraining
from padlite_training.pairs.training import DimensionFigures, Report, TrainingOrder, write_files
from padlite_training.random_llama import TINY, write_random_llama

pytest.importorskip("gguf", reason="training heads needs the train extra: pip install -e '.[train]'")

RANK = 4


@pytest.fixture(scope="module")
def trained(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `padlite train head` leaves, written by its own function, but fitted by nobody."""
    from padlite_training.head_file import output_table

    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(7)
    with LlamaModel.open(random_base) as base:
        table = output_table(random_base)
        width = base.hidden_size
        fitted = FittedHead(
            projection=rng.standard_normal((width, RANK)).astype(np.float32),
            maps=(rng.standard_normal((2, width, RANK)) / width).astype(np.float32),
            scales=np.array([0.5, 2.0], dtype=np.float32),
        )
        order = TrainingOrder(base=random_base, pairs=Path("pairs.jsonl"), out=folder, plan=PairTraining())
        right = DimensionFigures(pairs=1, pair_accuracy=1.0, policy_accuracy=1.0, base_accuracy=0.5)
        report = Report(
            pairs=2, held_out_pairs=1, held_out_groups=1, states=1, harvest_mib=0, harvest_s=0, fit_s=0,
            peak_memory_mib=0, epochs=1, loss=0.5, loss_without=0.7, scales={},
            dimensions={"sunny": right}, mean=right,
        )  # fmt: skip
        write_files(order, fitted, ["sunny", "gloomy"], report, table=table, base=base)
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "head")


def test_the_export_computes_what_pytorch_does_also_on_the_bases_own_states(
    trained: Path, random_base: Path, tmp_path: Path
) -> None:
    report = export_head(trained, tmp_path / "reward.onnx", base=random_base)
    assert [each.inputs for each in report.parity.comparisons] == ["random", "probe", "text"]
    assert report.parity.largest_error < 1e-4
    assert report.parity.same_best == 1.0
    assert report.parity.steps > 2 * 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reward.onnx"]
    assert (report.dimensions, report.rank) == (("sunny", "gloomy"), RANK)


def test_the_export_is_the_head_that_training_wrote(trained: Path, tmp_path: Path) -> None:
    export_head(trained, tmp_path / "reward.onnx")
    mine, theirs = load_arrays(tmp_path / "reward.onnx"), load_arrays(trained / "reward.onnx")
    assert (mine.dimensions, mine.tokenizer_sha256, mine.probe.text) == (
        theirs.dimensions, theirs.tokenizer_sha256, theirs.probe.text,
    )  # fmt: skip
    np.testing.assert_array_equal(mine.table, theirs.table)
    np.testing.assert_array_equal(mine.maps, theirs.maps)
    assert mine.provenance.keys() - theirs.provenance.keys() == {"base_sha256"}


def test_an_exported_head_guides_a_chat(trained: Path, random_base: Path, tmp_path: Path) -> None:
    out = tmp_path / "reward.onnx"
    export_head(trained, out)
    profile = Profile(
        base=random_base, reward=out, preferences={"sunny": 1.0}, decoding={"max_tokens": 12, "strength": 20.0},
        threads=1,
    )  # fmt: skip
    with open_chat(profile) as chat:
        assert [event.id for event in chat.session.say("Hello.") if isinstance(event, Token)]
        trace = chat.session.last
    assert trace is not None
    assert trace.changed > 0 == trace.fallbacks


def test_a_head_for_another_base_is_not_written(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    write_random_llama(other, TINY, seed=2)
    with pytest.raises(RewardMismatchError, match="thinks differently"):
        export_head(trained, tmp_path / "reward.onnx", base=other)
    assert [path.name for path in tmp_path.iterdir()] == ["other.gguf"]


def test_a_head_that_computes_otherwise_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = HeadArrays.save

    def save_another(arrays: HeadArrays, path: Path) -> None:
        arrays.maps[1] *= 1.5
        save(arrays, path)
        arrays.maps[1] /= 1.5

    monkeypatch.setattr(HeadArrays, "save", save_another)
    with pytest.raises(BackendError, match="doesn't score as its source does"):
        export_head(trained, tmp_path / "reward.onnx")
    assert list(tmp_path.iterdir()) == []


def test_large_tables_lie_beside_the_graph_and_old_ones_go(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, data = tmp_path / "reward.onnx", tmp_path / "reward.onnx.data"
    monkeypatch.setattr("padlite.backends.onnx_head.INLINE_BYTES", 1000)
    export_head(trained, out)
    assert data.stat().st_size > 4000
    monkeypatch.undo()
    export_head(trained, out)
    assert not data.exists()
    with OnnxHead.open(out) as head:
        assert head.hidden_size == 64


def _no_arrays(folder: Path) -> None:
    (folder / "head.npz").unlink()


def _cut_off(folder: Path) -> None:
    path = folder / "head.npz"
    path.write_bytes(path.read_bytes()[:500])


def _pickled(folder: Path) -> None:
    with np.load(folder / "head.npz") as arrays:
        kept = dict(arrays)
    np.savez(folder / "head.npz", **{**kept, "maps": np.array([{"a": 1}], dtype=object)})


def _another_width(folder: Path) -> None:
    with np.load(folder / "head.npz") as arrays:
        kept = dict(arrays)
    np.savez(folder / "head.npz", **{**kept, "maps": kept["maps"][:, :-1]})


def _no_json(folder: Path) -> None:
    (folder / "head.json").write_text("{")


def _list(folder: Path) -> None:
    (folder / "head.json").write_text("[]")


def _newer(folder: Path) -> None:
    path = folder / "head.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layout": 2}))


def _nameless(folder: Path) -> None:
    path = folder / "head.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dimensions": [{"name": "a"}, {}]}))


@pytest.mark.parametrize(
    ("spoil", "error", "reason"),
    [
        (_no_arrays, NotFoundError, "has no head.npz"),
        (_cut_off, BackendError, "can't be read"),
        (_pickled, BackendError, "can't be read: Object arrays"),
        (_another_width, UsageError, "as wide as the maps"),
        (_no_json, BackendError, "can't be read"),
        (_list, BackendError, "can't be read"),
        (_newer, BackendError, "has layout 2, this padlite reads 1"),
        (_nameless, BackendError, "'name' is missing"),
    ],
)
def test_a_folder_that_holds_no_whole_head_is_refused(
    copied: Path, tmp_path: Path, spoil: Callable[[Path], None], error: type[PadliteError], reason: str
) -> None:
    spoil(copied)
    with pytest.raises(error, match=reason):
        export_head(copied, tmp_path / "reward.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["head"]


def test_the_command_takes_a_head_directory_and_refuses_what_only_language_models_have(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "reward.onnx"
    assert main_code("export", "reward", str(trained), "--out", str(out), "--dtype", "int8", "--name", "x") == 2
    assert "--dtype, --name can't be used with a trained head" in capsys.readouterr().err
    assert main_code("export", "reward", str(trained), "--out", str(out), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["dimensions"]) == ("head", ["sunny", "gloomy"])
    assert said["parity"]["largest_error"] < heads.TOLERANCE[0]
    assert read_head_directory(trained).names == ("sunny", "gloomy")


def main_code(*words: str) -> int:
    from padlite.cli import main

    return main(words)
