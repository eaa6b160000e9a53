"""The benchmark of reward LMs compares like with like: the same weights on both sides, the same text."""

import json
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime_genai", reason="needs the export extra: pip install -e '.[export]'")
pytest.importorskip("gguf", reason="needs the train extra: pip install -e '.[train]'")

from benchmarks.reward_lm import BARS, Spent, measure, taking_turns, written
from padlite.backends.llama import LlamaModel
from padlite_export.checkpoint import read_checkpoint
from padlite_training.random_llama import TINY


def test_transformers_and_llama_cpp_have_the_same_weights_and_every_way_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = written(tmp_path / "files", TINY)
    checkpoint = read_checkpoint(files.checkpoint)
    with LlamaModel.open(files.base) as base:
        tokens = base.tokenizer.encode("Once upon a time there was a model.", special=False)
        wanted = checkpoint.logits(tokens)
        found = [state.logits.copy() for state in base.states(tokens, first=1)]  # from the second on
    for mine, theirs in zip(found, wanted[1:].numpy(), strict=True):
        assert abs(mine - theirs).max() < 0.3  # llama.cpp computes with 8 bits
    measure(files, context=96, tokens=4, rounds=2, threads=1)
    result = json.loads(capsys.readouterr().out)
    assert 96 <= result["context"] < 128
    assert {f"ratio_{name.replace(' ', '_')}" for name in BARS} <= result.keys()


def test_ways_take_turns_in_alternating_order() -> None:
    called: list[str] = []
    once = Spent(seconds=1.0, cpu_seconds=2.0)

    def way(name: str) -> Spent:
        called.append(name)
        return once

    spent = taking_turns({"a": lambda: way("a"), "b": lambda: way("b")}, 2)
    assert spent == {"a": [once, once], "b": [once, once]}
    assert "".join(called) in {"abbaab", "baabba"}
