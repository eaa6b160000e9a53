"""Random models: reproducible, loadable, able to read any text, refused when they make no sense."""

import dataclasses
from pathlib import Path

import gguf
import numpy as np
import pytest

from padlite_training.random_llama import LETTERS, LLAMA_135M, TINY, Quantization, vocabulary, write_random_llama


def tensors(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def test_equal_arguments_give_equal_bytes_and_another_seed_gives_other_weights(tmp_path: Path) -> None:
    one, same, other = (tmp_path / f"{name}.gguf" for name in ("one", "same", "other"))
    write_random_llama(one, TINY, seed=1)
    write_random_llama(same, TINY, seed=1)
    write_random_llama(other, TINY, seed=2)
    assert one.read_bytes() == same.read_bytes()
    assert one.read_bytes() != other.read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("quantization", "tolerance"), [("f32", 0.0), ("f16", 1e-3), ("q8_0", 0.02)])
def test_the_kind_of_numbers_changes_the_precision_not_the_weights(
    tmp_path: Path, quantization: Quantization, tolerance: float
) -> None:
    exact, path = tmp_path / "exact.gguf", tmp_path / "model.gguf"
    write_random_llama(exact, TINY, seed=5, quantization="f32")
    write_random_llama(path, TINY, seed=5, quantization=quantization)
    wanted, written = tensors(exact), tensors(path)
    assert wanted.keys() == written.keys()
    for name, tensor in written.items():
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        scale = max(1.0, float(np.abs(wanted[name].data).max()))
        assert np.abs(values - wanted[name].data).max() <= tolerance * scale, name


def test_the_shape_is_the_one_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_random_llama(path, dataclasses.replace(TINY, layers=3, kv_heads=1), seed=1, quantization="f16")
    reader = gguf.GGUFReader(path)
    fields = {name: reader.fields[name].contents() for name in reader.fields}
    assert (fields["llama.block_count"], fields["llama.attention.head_count_kv"]) == (3, 1)
    assert list(tensors(path)["blk.2.attn_k.weight"].shape) == [64, 16]


@pytest.mark.parametrize("size", [259, 300, TINY.vocabulary_size, LLAMA_135M.vocabulary_size])
def test_every_merge_joins_known_tokens_into_its_own_token(size: int) -> None:
    tokens, merges = vocabulary(size)
    assert len(set(tokens)) == len(tokens) == size
    assert len(merges) == size - 259
    known = set(tokens[:259])
    for token, merge in zip(tokens[259:], merges, strict=True):
        left, right = merge.split(" ")
        assert left + right == token
        assert {left, right} <= known
        known.add(token)


def test_another_order_of_letters_gives_another_tokenizer_of_the_same_size() -> None:
    one, other = vocabulary(512)[0], vocabulary(512, letters=LETTERS[::-1])[0]
    assert len(one) == len(other)
    assert set(one) != set(other)


def test_without_a_template_none_is_written(random_base: Path, random_base_without_template: Path) -> None:
    assert "tokenizer.chat_template" in gguf.GGUFReader(random_base).fields
    assert "tokenizer.chat_template" not in gguf.GGUFReader(random_base_without_template).fields


@pytest.mark.parametrize("size", [258, 10_000_000])
def test_an_impossible_vocabulary_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="tokens"):
        vocabulary(size)


def test_letters_that_are_no_order_of_the_alphabet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="order"):
        write_random_llama(tmp_path / "model.gguf", TINY, seed=1, letters="abc")
