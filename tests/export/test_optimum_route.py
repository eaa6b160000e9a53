"""`--via optimum`: the same proof, the cache in place, and what transformers 5 saved is read aright or refused.

What optimum itself does is tested where it is installed, in an environment of its own:

    pip install -e '.[optimum]' gguf hypothesis pexpect pytest pytest-timeout

"""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from padlite.backends.onnx_lm import OnnxLm
from padlite.cli import main
from padlite.errors import BackendError, UsageError
from padlite_export.checkpoint import read_checkpoint
from padlite_export.older_config import older_settings
from padlite_export.optimum_route import require_older_transformers
from padlite_export.random_checkpoint import write_checkpoint
from padlite_export.reward import Dtype, export_reward

HAS_OPTIMUM = importlib.util.find_spec("optimum") is not None
with_optimum = pytest.mark.skipif(
    not HAS_OPTIMUM, reason="needs the optimum extra in an environment of its own (the file says how)"
)
TOKENS = [5, 300, 12, 77, 401, 8, 9]


def test_rotary_settings_of_transformers_5_are_said_in_the_older_way() -> None:
    assert older_settings({"rope_theta": 5e5}) == {}
    assert older_settings({"rope_parameters": {"rope_type": "default", "rope_theta": 500_000}}) == {"rope_theta": 5e5}
    said = older_settings(
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4, "partial_rotary_factor": 0.25}}
    )
    assert said == {
        "rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "partial_rotary_factor": 0.25,
    }  # fmt: skip


@pytest.mark.parametrize(
    "rope",
    [
        {"full_attention": {"rope_type": "default", "rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}},
        {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0},
        {"rope_type": "default", "rope_theta": 1e6, "something_new": 1},
        {"rope_type": "default"},
        [1],
    ],
)
def test_rotary_settings_that_would_be_misread_are_refused(rope: object) -> None:
    with pytest.raises(UsageError, match="would misread its rotary embedding"):
        older_settings({"rope_parameters": rope})


def test_a_transformers_that_optimum_was_not_made_for_is_refused() -> None:
    require_older_transformers("4.57.6")
    for version in ("4.58.0", "5.24.0"):
        with pytest.raises(BackendError, match="misreads what"):
            require_older_transformers(version)


@pytest.mark.skipif(HAS_OPTIMUM, reason="optimum is installed here")
def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, random_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("export", "reward", str(tmp_path), "--base", str(random_base), "--out", str(tmp_path / "r.onnx"))
    assert main([*words, "--via", "optimum"]) == 3
    said = capsys.readouterr().err
    assert "optimum.exporters.onnx" in said
    assert "padlite[optimum]" in said


@with_optimum
@pytest.mark.parametrize(
    ("model_type", "dtype", "sizes", "value_head"),
    [
        ("llama", "fp32", {}, True),
        ("qwen2", "int8", {"tie_word_embeddings": False}, False),
        ("gpt_neox", "fp32", {}, False),
    ],
)
def test_optimums_graphs_prove_themselves_with_their_cache_in_place(
    tmp_path: Path, random_base: Path, model_type: str, dtype: Dtype, sizes: dict[str, int], value_head: bool
) -> None:
    source = write_checkpoint(tmp_path / "model", model_type=model_type, sizes=sizes, value_head=value_head)
    report = export_reward(source, tmp_path / "reward.onnx", base=random_base, via="optimum", dtype=dtype)
    assert report.parity.largest_error < {"fp32": 1e-4, "int8": 1.0}[dtype]
    assert report.value_head is value_head
    with OnnxLm.open(report.path) as lm:
        assert np.isfinite(lm.scores(TOKENS, np.arange(512, dtype=np.int64), keep=0)).all()


@with_optimum
def test_a_model_with_a_sliding_window_is_one_clear_error(tmp_path: Path, random_base: Path) -> None:
    source = write_checkpoint(tmp_path / "model", model_type="mistral", sizes={"sliding_window": 64})
    with pytest.raises(BackendError, match="sliding window"):
        export_reward(source, tmp_path / "reward.onnx", base=random_base, via="optimum")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@with_optimum
def test_a_checkpoint_in_the_words_of_transformers_5_is_the_same_model(tmp_path: Path) -> None:
    older = write_checkpoint(tmp_path / "older", sizes={"rope_theta": 500_000})
    newer = shutil.copytree(older, tmp_path / "newer")
    config = json.loads((newer / "config.json").read_text())
    theta = config.pop("rope_theta")
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    (newer / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(read_checkpoint(newer).logits(TOKENS), read_checkpoint(older).logits(TOKENS))
    config.pop("rope_parameters")  # what it would be, were it passed over
    (newer / "config.json").write_text(json.dumps(config))
    assert abs(read_checkpoint(newer).logits(TOKENS) - read_checkpoint(older).logits(TOKENS)).max() > 0.01
