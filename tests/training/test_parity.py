"""llama.cpp computes from the written GGUF what PyTorch computes, and reads text as the same tokens."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from padlite_training.base_gguf import open_base
from padlite_training.chat_format import CONTROL_TOKENS
from padlite_training.export_gguf import AWKWARD_TEXTS, export_gguf, measure_parity, require_same_tokens
from padlite_training.llama_model import LlamaForTraining
from padlite_training.recipe import ModelShape
from padlite_training.sources import own_small_talk
from padlite_training.tokenizer import load_tokenizer, train_tokenizer, vocabulary_of

SHAPE = ModelShape(vocabulary=512, width=64, layers=2, heads=2, feed_forward=96, context_length=128)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer([str(row) for row in own_small_talk()], vocabulary=SHAPE.vocabulary).save(str(path))
    return load_tokenizer(path)


@pytest.fixture(scope="module")
def model() -> LlamaForTraining:
    torch.manual_seed(3)
    model = LlamaForTraining(SHAPE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # so that every part matters
    return model


@pytest.mark.parametrize(
    ("weights", "cosine", "difference"), [("f32", 0.9999, 0.005), ("q8_0", 0.99, 0.1), ("q5_1", 0.9, 0.4)]
)
def test_the_gguf_gives_the_logits_of_the_torch_model(
    tmp_path: Path, model: LlamaForTraining, tokenizer: Tokenizer, weights: str, cosine: float, difference: float
) -> None:
    path = tmp_path / "model.gguf"
    export_gguf(model, tokenizer, path, name="test", licence="none", weights=weights)
    assert list(tmp_path.iterdir()) == [path]
    prompt = tokenizer.encode("Hello there, how are you doing on this very fine day? " * 2).ids
    with open_base(path) as base:
        parity = measure_parity(model, base, [prompt, prompt[5:40]])
    assert parity.cosine > cosine
    assert parity.difference < difference
    assert parity.positions == len(prompt) + 35


def test_llama_cpp_cuts_awkward_text_into_the_same_tokens(
    tmp_path: Path, model: LlamaForTraining, tokenizer: Tokenizer
) -> None:
    path = tmp_path / "model.gguf"
    export_gguf(model, tokenizer, path, name="test", licence="none")
    with open_base(path) as base:
        require_same_tokens(tokenizer, base)
        assert base.tokenizer.control_texts >= set(CONTROL_TOKENS)
        assert base.tokenizer.is_end(CONTROL_TOKENS.index("<|im_end|>"))


@pytest.mark.parametrize("text", AWKWARD_TEXTS)
def test_tokens_spell_the_text_they_came_from(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text
    assert min(ids) >= len(CONTROL_TOKENS)


def test_the_control_tokens_come_first_and_every_merge_makes_a_token(tokenizer: Tokenizer) -> None:
    tokens, merges = vocabulary_of(tokenizer)
    assert tuple(tokens[:3]) == CONTROL_TOKENS
    assert len(tokens) == SHAPE.vocabulary
    assert {merge.replace(" ", "") for merge in merges} <= set(tokens)
