"""An export that is stopped, runs out of disk or can't write leaves nothing under the final name but what was there."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from padlite.backends.onnx_lm import OnnxLm
from padlite.errors import BackendError, UsageError
from padlite_export.checkpoint import read_checkpoint
from padlite_export.placing import placing
from padlite_export.reward import Report, Via, export_reward
from tests import heads

pytest.importorskip("onnxruntime_genai", reason="needs the export extra: pip install -e '.[export]'")


@contextmanager
def full_disk(after: int) -> Iterator[None]:
    """Let no file grow over *after* bytes: Linux answers as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def hidden_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith(".reward") or ".padlite-" in path.name)


@pytest.mark.parametrize("via", ["builder", "torch"])
def test_a_disk_that_fills_up_in_the_middle_is_one_clear_error(
    checkpoint: Path, random_base: Path, tmp_path: Path, via: Via
) -> None:
    out = tmp_path / "reward.onnx"
    with pytest.raises(BackendError, match=r"can't be written: .*(large|big|space)"), full_disk(100_000):
        export_reward(checkpoint, out, base=random_base, via=via)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_what_was_there(
    checkpoint: Path, random_base: Path, tmp_path: Path, exported: Report
) -> None:
    out, data = tmp_path / "reward.onnx", tmp_path / "reward.onnx.data"
    for path in (out, data):
        shutil.copy(exported.path.with_name(path.name), path)
    before = out.read_bytes(), data.read_bytes()

    def stop(line: str) -> None:
        if line.startswith("comparing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_reward(checkpoint, out, base=random_base, dtype="int8", tell=stop)
    assert (out.read_bytes(), data.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reward.onnx", "reward.onnx.data"]


def test_a_killed_export_leaves_nothing_under_the_final_name_and_the_next_one_tidies_up(
    checkpoint: Path, random_base: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "padlite", "export", "reward", str(checkpoint), "--base", str(random_base),
        "--out", str(tmp_path / "reward.onnx"),
    ]  # fmt: skip
    environment = {**os.environ, "HOME": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("writing weights"):
                process.send_signal(signal.SIGKILL)
                break
        process.stderr.read()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "reward.onnx").exists()
    assert not (tmp_path / "reward.onnx.data").exists()
    assert hidden_folders(tmp_path)
    with placing(tmp_path / "other.onnx") as made:
        assert len(hidden_folders(tmp_path)) == 2, "the folder of another target"
        made.write_text("graph")
    with placing(tmp_path / "reward.onnx") as made:
        assert hidden_folders(tmp_path) == [made.parent]
        made.write_text("graph")
    assert not hidden_folders(tmp_path)


def test_exports_that_run_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    out = tmp_path / "reward.onnx"
    (tmp_path / ".reward.onnx.padlite-abc").mkdir()  # as one that was just made, and isn't locked yet
    (tmp_path / ".reward.onnx-original").mkdir()
    (tmp_path / ".reward.onnx-original" / "mine").write_text("a person's own")
    with placing(out) as first:
        first.write_text("first")
        with placing(out) as second:
            second.write_text("second")
        assert out.read_text() == "second"
        assert first.read_text() == "first"
    assert out.read_text() == "first"
    assert [path.name for path in hidden_folders(tmp_path)] == [".reward.onnx-original", ".reward.onnx.padlite-abc"]
    assert (tmp_path / ".reward.onnx-original" / "mine").is_file()


def test_an_old_graph_never_stands_beside_new_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "reward.onnx"
    out.write_text("old graph")
    (tmp_path / "reward.onnx.data").write_text("old data")
    replace = Path.replace

    def stop_before_the_graph(path: Path, target: Path) -> Path:
        if target == out:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", stop_before_the_graph)

    def place() -> None:
        with placing(out) as made:
            made.write_text("new graph")
            made.with_name("reward.onnx.data").write_text("new data")

    with pytest.raises(KeyboardInterrupt):
        place()
    assert not out.exists()


def test_places_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"), placing(tmp_path / "missing" / "reward.onnx"):
        pass
    with pytest.raises(UsageError, match="is a folder"), placing(tmp_path):
        pass


def test_weights_are_read_from_the_graphs_own_folder_only(exported: Report, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    out = tmp_path / "in" / "reward.onnx"
    shutil.copy(exported.path, out)
    shutil.copy(exported.path.with_name("reward.onnx.data"), tmp_path / "reward.onnx.data")
    with pytest.raises(BackendError, match="is missing beside"):
        OnnxLm.open(out)

    def point_outside(model: object) -> None:
        for tensor in model.graph.initializer:  # type: ignore[attr-defined]
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../reward.onnx.data"

    heads.edit(out, point_outside)
    with pytest.raises(BackendError, match="not the plain name of a file beside it"):
        OnnxLm.open(out)


def test_pickled_weights_and_value_heads_are_read_only_when_that_is_allowed(checkpoint: Path, tmp_path: Path) -> None:
    whole = read_checkpoint(checkpoint)
    assert whole.value_head is not None
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    (folder / "value_head.safetensors").unlink()
    weight, bias = whole.value_head
    torch.save({"v_head.summary.weight": weight, "v_head.summary.bias": bias}, folder / "value_head.bin")
    with pytest.raises(UsageError, match="is pickled, which may run any code") as raised:
        read_checkpoint(folder)
    assert "--allow-pickle" in raised.value.remedy
    torch.save(dict(whole.model.state_dict()), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="only pickled weights") as raised:
        read_checkpoint(folder)
    assert "--allow-pickle" in raised.value.remedy
    tokens = [5, 300, 12]
    found = read_checkpoint(folder, allow_pickle=True).logits(tokens)
    torch.testing.assert_close(found, whole.logits(tokens))


class _Mischief:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(Path(os.environ["MISCHIEF"])),)


def test_even_an_allowed_pickle_of_a_value_head_runs_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    monkeypatch.setenv("MISCHIEF", str(tmp_path / "ran"))
    torch.save(_Mischief(), folder / "value_head.bin")
    with pytest.raises(BackendError, match="can't be read"):
        read_checkpoint(folder, allow_pickle=True)
    assert not (tmp_path / "ran").exists()
