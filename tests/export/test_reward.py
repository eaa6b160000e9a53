"""`padlite export reward`: what comes out scores as the checkpoint does, runs in a chat, and bad input is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from padlite.backends.onnx_lm import OnnxLm
from padlite.decode import Token
from padlite.errors import BackendError, NotFoundError, PadliteError, UsageError
from padlite.opening import open_chat
from padlite.profile import Profile
from padlite_export import reward
from padlite_export.checkpoint import read_checkpoint
from padlite_export.random_checkpoint import write_adapter, write_checkpoint, write_tokenizer
from padlite_export.reward import Report, export_reward
from padlite_training.random_llama import LETTERS

pytest.importorskip("onnxruntime_genai", reason="needs the export extra: pip install -e '.[export]'")

TOKENS = [5, 300, 12, 77, 401, 8, 9]
CANDIDATES = np.array([4, 90, 500], dtype=np.int64)


def test_fp32_scores_are_the_checkpoints_own_to_a_thousandth(exported: Report) -> None:
    assert exported.parity.largest_error < 1e-3
    assert exported.parity.same_best >= 0.999
    assert exported.parity.steps > 50
    assert (exported.value_head, exported.adapter, exported.scores) == (True, True, "logit")


def test_value_head_and_adapter_really_count(checkpoint: Path, adapter: Path, exported: Report) -> None:
    with OnnxLm.open(exported.path) as lm:
        found = lm.scores(TOKENS, CANDIDATES, keep=0)
    whole = read_checkpoint(checkpoint, adapter=adapter)
    without_adapter = read_checkpoint(checkpoint).logits(TOKENS)[-1][CANDIDATES].numpy()
    plain = whole.model(input_ids=torch.tensor([TOKENS])).logits[0, -1].detach()[CANDIDATES].numpy()
    np.testing.assert_allclose(found, whole.logits(TOKENS)[-1][CANDIDATES].numpy(), atol=1e-4)
    assert np.abs(found - without_adapter).max() > 0.05
    assert np.abs(found - plain).max() > 0.05


def test_weights_lie_beside_the_graph_and_nothing_else_is_left(exported: Report) -> None:
    assert sorted(path.name for path in exported.path.parent.iterdir()) == [
        "reward.onnx", "reward.onnx.data", "reward.onnx.tokenizer.json",
    ]  # fmt: skip
    assert exported.path.stat().st_size < 50_000
    data = exported.path.with_name("reward.onnx.data")
    assert data.stat().st_mode == exported.path.stat().st_mode


def test_an_export_replaces_one_of_the_same_name_in_the_working_directory(
    checkpoint: Path, random_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("reward.onnx", "reward.onnx.data"):
        Path(name).write_bytes(b"an older one")
    export_reward(checkpoint, Path("reward.onnx"), base=random_base, dtype="fp32")
    with OnnxLm.open(Path("reward.onnx")) as lm:
        assert np.isfinite(lm.scores(TOKENS, CANDIDATES, keep=0)).all()


def test_an_exported_reward_lm_guides_a_chat(exported: Report, random_base: Path) -> None:
    profile = Profile(
        base=random_base, reward=exported.path, preferences={"humor": 1.0}, decoding={"max_tokens": 12}, threads=1
    )
    with open_chat(profile) as chat:
        guided = [event.id for event in chat.session.say("Hello.") if isinstance(event, Token)]
        trace = chat.session.last
        chat.session.set_weight("humor", 0.0)
        plain = [event.id for event in chat.session.regenerate() if isinstance(event, Token)]
    assert trace is not None
    assert guided != plain
    assert trace.changed > 0 == trace.fallbacks


@pytest.mark.parametrize(
    ("model_type", "dtype", "sizes"),
    [
        ("qwen2", "int8", {"tie_word_embeddings": False}),
        ("gemma2", "fp16", {"head_dim": 16, "sliding_window": 64}),
    ],
)
def test_other_architectures_and_number_formats_prove_themselves(
    tmp_path: Path, random_base: Path, model_type: str, dtype: reward.Dtype, sizes: dict[str, int]
) -> None:
    source = write_checkpoint(tmp_path / "model", model_type=model_type, sizes=sizes)
    report = export_reward(source, tmp_path / "reward.onnx", base=random_base, dtype=dtype, normalized=dtype == "int8")
    assert report.parity.largest_error < {"int8": 1.0, "fp16": 0.1}[dtype]
    assert report.file_bytes < 0.75 * 4 * report.parameters
    with OnnxLm.open(report.path, context_length=32) as lm:  # shorter than the window
        scores = lm.scores(TOKENS, np.arange(512, dtype=np.int64), keep=0)
    if dtype == "int8":
        assert np.exp(scores).sum() == pytest.approx(1, abs=1e-3)


def test_an_export_that_scores_otherwise_is_not_written(
    checkpoint: Path, random_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(reward.TOLERANCES, "int8", (1e-6, 1.0))
    with pytest.raises(BackendError, match="doesn't score as its source does"):
        export_reward(checkpoint, tmp_path / "reward.onnx", base=random_base, dtype="int8")
    assert list(tmp_path.iterdir()) == []


def test_an_architecture_that_the_builder_does_not_know_is_one_clear_error(tmp_path: Path, random_base: Path) -> None:
    source = write_checkpoint(tmp_path / "model", model_type="gpt_neox")
    with pytest.raises(BackendError, match="can't export 'gpt_neox'") as raised:
        export_reward(source, tmp_path / "reward.onnx", base=random_base)
    assert "--via torch" in raised.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_base_that_is_not_there_is_refused_before_the_checkpoint_is_read(checkpoint: Path, tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(NotFoundError, match="there is no model file"):
        export_reward(checkpoint, tmp_path / "reward.onnx", base=tmp_path / "base.gguf", tell=told.append)
    assert told == []


def test_a_base_that_reads_other_tokens_is_refused(checkpoint: Path, random_base: Path, tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "other")
    write_tokenizer(source, 512, letters=LETTERS[::-1])
    with pytest.raises(UsageError, match="don't read the same tokens"):
        export_reward(source, tmp_path / "reward.onnx", base=random_base)


def test_with_log_probabilities_it_guides_a_base_that_reads_other_tokens(
    checkpoint: Path, random_base: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "other")
    write_tokenizer(source, 512, letters=LETTERS[::-1])
    report = export_reward(
        source, tmp_path / "reward.onnx", base=random_base, dtype="fp32", normalized=True, preference="funny"
    )  # fmt: skip
    profile = Profile(
        base=random_base, reward=report.path, preferences={"preference": 1.0}, decoding={"max_tokens": 12}, threads=1
    )
    with open_chat(profile) as chat:
        assert chat.models.reward_tokenizer is not None
        for _ in chat.session.say("Hello."):
            pass
        trace = chat.session.last
    assert trace is not None
    assert trace.changed > 0 == trace.fallbacks


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "value_head.safetensors").unlink()


def _pickled(folder: Path) -> None:
    _no_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"anything")


def _pickled_beside_a_value_head(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"anything")


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def _cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _unknown_architecture(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "oracle"}))


def _other_value_head(folder: Path) -> None:
    save_file({"v_head.summary.weight": torch.ones(1, 64)}, folder / "value_head.safetensors")


@pytest.mark.parametrize(
    ("spoil", "error", "reason"),
    [
        (_no_config, NotFoundError, "no config.json"),
        (_no_weights, NotFoundError, "holds no weights"),
        (_pickled, UsageError, "only pickled weights"),
        (_pickled_beside_a_value_head, UsageError, "only pickled weights"),
        (_no_tokenizer, NotFoundError, "no tokenizer.json"),
        (_broken_tokenizer, BackendError, "tokenizer.json can't be read"),
        (_cut_off, BackendError, "can't be read as a causal language model"),
        (_unknown_architecture, BackendError, "can't be read as a causal language model"),
        (_other_value_head, UsageError, r"the value head is \(1, 64\)"),
    ],
)
def test_a_folder_that_is_no_whole_checkpoint_is_refused(  # type: ignore[no-untyped-def]
    checkpoint: Path, tmp_path: Path, spoil, error: type[PadliteError], reason: str
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    spoil(folder)
    with pytest.raises(error, match=reason):
        read_checkpoint(folder)


def test_a_lora_adapter_for_another_base_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="for another base"):
        read_checkpoint(checkpoint, adapter=write_adapter(tmp_path / "wider", width=96))
    with pytest.raises(UsageError, match="for another base"):
        read_checkpoint(checkpoint, adapter=write_adapter(tmp_path / "deeper", layers=3))


def test_an_adapter_of_another_kind_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({**tensors, "more.weight": torch.ones(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="more or less than LoRA"):
        read_checkpoint(checkpoint, adapter=folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(UsageError, match="of a kind that can't be merged"):
        read_checkpoint(checkpoint, adapter=folder)
    with pytest.raises(NotFoundError, match="is no LoRA adapter"):
        read_checkpoint(checkpoint, adapter=tmp_path)
