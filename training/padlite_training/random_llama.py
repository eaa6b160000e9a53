"""Random-weight Llama models as GGUF files, for tests and benchmarks: right in shape and speed, but they talk nonsense.

Any text can be tokenized (256 bytes and merges made of letters), the weights follow from the seed alone, and one tensor
is in memory at a time. Logits spread by about 2 nats, so that greedy text varies. Knows nothing of training.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, LlamaFileType

from padlite_training.chat_format import CHAT_TEMPLATE, CONTROL_TOKENS, TURN_END

Quantization: TypeAlias = Literal["f32", "f16", "q8_0"]
Array: TypeAlias = npt.NDArray[np.float32]

LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
SPACE = "Ġ"
COMMON = ("h e", "i n", "e r", f"{SPACE}t he", "a n", "o u", "in g", "o n", "an d", f"{SPACE}y ou", "a t", "i s")
"""Early merges, so that ordinary English comes out in words of more than one letter."""

_KINDS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
_LOGIT_SPREAD = 2.0
_RESIDUAL_GAIN = (
    4.0  # what layers add outweighs the token just read; with tied embeddings it would be repeated for ever
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaShape:
    """Sizes of a Llama model; for Q8_0 *hidden_size* and *feed_forward* must be multiples of 32."""

    vocabulary_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    context_length: int

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.heads


TINY = LlamaShape(
    vocabulary_size=512, hidden_size=64, layers=2, heads=4, kv_heads=2, feed_forward=128, context_length=512
)
"""Loads in milliseconds: for tests."""

LLAMA_135M = LlamaShape(
    vocabulary_size=49_152, hidden_size=576, layers=30, heads=9, kv_heads=3, feed_forward=1536, context_length=2048
)
"""The sizes of a common 135-million-parameter model: for benchmarks."""


def write_random_llama(
    path: Path,
    shape: LlamaShape,
    *,
    seed: int,
    quantization: Quantization = "q8_0",
    chat_template: str | None = CHAT_TEMPLATE,
    letters: str = LETTERS,
) -> None:
    """Write a Llama model with tied embeddings to *path* (a temporary name first); equal arguments give equal bytes.

    The control tokens are never the most likely ones, so an answer ends only at its length. Another order of *letters*
    gives another tokenizer of the same size; *chat_template* None writes none.
    """
    if sorted(letters) != sorted(LETTERS):
        raise ValueError("letters must be an order of the 26 lower-case letters")
    partial = path.with_name(f"{path.name}.partial")
    writer = gguf.GGUFWriter(partial, "llama")
    _add_sizes(writer, shape, _KINDS[quantization][1])
    _add_tokenizer(writer, shape.vocabulary_size, letters)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for name, dimensions in _tensor_shapes(shape):
        kind = _kind_of(dimensions, quantization)
        size = gguf.quant_shape_to_byte_shape(dimensions, kind) if kind == GGMLQuantizationType.Q8_0 else dimensions
        dtype = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}.get(kind, np.uint8)
        count = int(np.prod(size)) * np.dtype(dtype).itemsize
        writer.add_tensor_info(name, size, np.dtype(dtype), count, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for index, (name, dimensions) in enumerate(_tensor_shapes(shape)):
        values = _tensor(name, dimensions, np.random.default_rng((seed, index)))
        writer.write_tensor_data(gguf.quantize(values, _kind_of(dimensions, quantization)))
    writer.close()
    partial.replace(path)


def vocabulary(size: int, *, letters: str = LETTERS) -> tuple[list[str], list[str]]:
    """Return (*size* tokens, merges) of a byte-level BPE tokenizer: control tokens, bytes, then one token per merge."""
    tokens = [*CONTROL_TOKENS, *_byte_symbols()]
    known = set(tokens)
    if size < len(tokens):
        raise ValueError(f"a byte-level vocabulary has at least {len(tokens)} tokens, not {size}")
    merges: list[str] = []
    for merge in _merges(letters):
        if len(tokens) == size:
            return tokens, merges
        token = merge.replace(" ", "")
        if token not in known:
            known.add(token)
            tokens.append(token)
            merges.append(merge)
    if len(tokens) == size:
        return tokens, merges
    raise ValueError(f"at most {len(tokens)} tokens can be made, not {size}")


def _merges(letters: str) -> Iterator[str]:
    """Yield merges whose parts are bytes or results of earlier merges: short pieces first."""
    pairs = [a + b for a, b in itertools.product(letters, repeat=2)]
    yield from (f"{SPACE} {a}" for a in letters)
    if letters == LETTERS:
        yield from COMMON
    yield from (f"{a} {b}" for a, b in itertools.product(letters, repeat=2))
    yield from (f"{SPACE}{a} {pair}" for a, pair in itertools.product(letters, pairs))
    yield from (f"{pair} {a}" for pair, a in itertools.product(pairs, letters))
    yield from (f"{one} {other}" for one, other in itertools.product(pairs, pairs))


def _byte_symbols() -> list[str]:
    """Return the 256 characters that stand for the bytes in GPT-2's byte-level vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return sorted(chr(code) for code in [*printable, *range(256, 256 + 256 - len(printable))])


def _add_sizes(writer: gguf.GGUFWriter, shape: LlamaShape, file_type: LlamaFileType) -> None:
    writer.add_name("random llama")
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary_size)
    writer.add_file_type(file_type)


def _add_tokenizer(writer: gguf.GGUFWriter, size: int, letters: str) -> None:
    tokens, merges = vocabulary(size, letters=letters)
    control = set(CONTROL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in control else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(CONTROL_TOKENS.index(TURN_END))
    writer.add_add_bos_token(False)


def _tensor_shapes(shape: LlamaShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    d, kv = shape.hidden_size, shape.head_size * shape.kv_heads
    yield "token_embd.weight", (shape.vocabulary_size, d)
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm.weight", (d,)
        yield f"blk.{layer}.attn_q.weight", (d, d)
        yield f"blk.{layer}.attn_k.weight", (kv, d)
        yield f"blk.{layer}.attn_v.weight", (kv, d)
        yield f"blk.{layer}.attn_output.weight", (d, d)
        yield f"blk.{layer}.ffn_norm.weight", (d,)
        yield f"blk.{layer}.ffn_gate.weight", (shape.feed_forward, d)
        yield f"blk.{layer}.ffn_up.weight", (shape.feed_forward, d)
        yield f"blk.{layer}.ffn_down.weight", (d, shape.feed_forward)
    yield "output_norm.weight", (d,)


def _kind_of(dimensions: tuple[int, ...], quantization: Quantization) -> GGMLQuantizationType:
    return GGMLQuantizationType.F32 if len(dimensions) == 1 else _KINDS[quantization][0]


def _tensor(name: str, dimensions: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return the float32 values of one tensor: ones for norms, else normal with variance 1 / columns."""
    if len(dimensions) == 1:
        return np.ones(dimensions, dtype=np.float32)
    values = rng.standard_normal(dimensions, dtype=np.float32)
    values /= np.float32(np.sqrt(dimensions[-1]))
    if name == "token_embd.weight":
        values *= np.float32(_LOGIT_SPREAD)
        values[: len(CONTROL_TOKENS)] *= np.float32(0.01)
    if name.endswith(("attn_output.weight", "ffn_down.weight")):
        values *= np.float32(_RESIDUAL_GAIN)
    return values
