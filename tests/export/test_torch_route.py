"""`--via torch`: what the builder doesn't know is exported all the same, by the same proof, with its cache in place."""

from pathlib import Path

import numpy as np
import pytest

from padlite.backends.onnx_lm import OnnxLm
from padlite.errors import BackendError
from padlite_export.checkpoint import read_checkpoint
from padlite_export.random_checkpoint import write_checkpoint
from padlite_export.reward import Report, export_reward

pytest.importorskip("onnxruntime_genai", reason="needs the export extra: pip install -e '.[export]'")
pytest.importorskip("onnxscript", reason="needs the export extra: pip install -e '.[export]'")

TOKENS = [5, 300, 12, 77, 401, 8, 9, 20, 21, 22]
CANDIDATES = np.array([4, 90, 500], dtype=np.int64)


def test_both_routes_score_alike(
    checkpoint: Path, adapter: Path, random_base: Path, exported: Report, tmp_path: Path
) -> None:
    report = export_reward(
        checkpoint, tmp_path / "reward.onnx", base=random_base, via="torch", adapter=adapter, name="humor"
    )  # fmt: skip
    assert report.parity.largest_error < 1e-4
    assert (report.via, report.value_head, report.adapter) == ("torch", True, True)
    with OnnxLm.open(report.path) as mine, OnnxLm.open(exported.path) as theirs:
        for keep in range(0, len(TOKENS), 5):
            found, wanted = (lm.scores(TOKENS[keep : keep + 5], CANDIDATES, keep=keep) for lm in (mine, theirs))
            np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_gpt_neox_in_eight_bits_with_log_probabilities(tmp_path: Path, random_base: Path) -> None:
    source = write_checkpoint(tmp_path / "model", model_type="gpt_neox")
    report = export_reward(
        source, tmp_path / "reward.onnx", base=random_base, via="torch", dtype="int8", normalized=True
    )  # fmt: skip
    assert report.parity.largest_error < 1.0
    assert report.file_bytes < 0.75 * 4 * report.parameters
    with OnnxLm.open(report.path) as lm:
        assert np.exp(lm.scores(TOKENS, np.arange(512, dtype=np.int64), keep=0)).sum() == pytest.approx(1, abs=1e-3)


def test_a_sliding_window_is_kept(tmp_path: Path, random_base: Path) -> None:
    sizes = {"head_dim": 16, "sliding_window": 32}
    source = write_checkpoint(tmp_path / "model", model_type="gemma2", sizes=sizes)
    report = export_reward(source, tmp_path / "reward.onnx", base=random_base, via="torch")
    assert report.parity.largest_error < 1e-4  # at 96 and 384 tokens as well
    with OnnxLm.open(report.path) as lm:
        assert lm.info.window == 32


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [("bloom", "not all of its layers attend in the usual way"), ("gpt_oss", "attention is of another kind")],
)
def test_attention_that_has_no_cache_in_place_is_one_clear_error(
    tmp_path: Path, random_base: Path, model_type: str, reason: str
) -> None:
    source = write_checkpoint(tmp_path / "model", model_type=model_type)
    with pytest.raises(BackendError, match=reason):
        export_reward(source, tmp_path / "reward.onnx", base=random_base, via="torch")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_model_is_itself_again_after_the_export(tmp_path: Path) -> None:
    from padlite_export import torch_route

    read = read_checkpoint(write_checkpoint(tmp_path / "model"))
    before = read.logits(TOKENS)
    torch_route.build(read, tmp_path)
    np.testing.assert_array_equal(read.logits(TOKENS).numpy(), before.numpy())
