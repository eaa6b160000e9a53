"""Writes a Llama-architecture model as a GGUF file that llama.cpp runs: numpy arrays in, no PyTorch needed.

Matrices become Q8_0 (blocks of 32 numbers, 8 bits each), norms stay float32. Tensors carry llama.cpp's names; query
and key weights are expected for rotation in neighbouring pairs (see `llama_model`), as the architecture wants them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, LlamaFileType

from padlite_training.chat_format import CHAT_TEMPLATE, CONTROL_TOKENS, TURN_END
from padlite_training.recipe import ModelShape

TORCH_TO_GGUF = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "feed_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of the parameter *name* of `LlamaForTraining`."""
    outer = {"table.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
    if name in outer:
        return outer[name]
    _, layer, part, _ = name.split(".")
    return f"blk.{layer}.{TORCH_TO_GGUF[part]}.weight"


def write_llama_gguf(
    path: Path,
    *,
    shape: ModelShape,
    tensors: Mapping[str, npt.NDArray[np.float32]],
    tokens: Sequence[str],
    merges: Sequence[str],
    name: str,
    description: str = "",
    licence: str = "",
    quantize: bool = True,
) -> None:
    """Write the model to *path* (under a temporary name first).

    *tensors* by GGUF name; *tokens* in the order of their ids, the control tokens first. Without *quantize* every
    number stays float32.
    """
    temporary = path.with_name(path.name + ".tmp")
    writer = gguf.GGUFWriter(temporary, "llama")
    writer.add_name(name)
    if description:
        writer.add_description(description)
    if licence:
        writer.add_license(licence)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0 if quantize else LlamaFileType.ALL_F32)
    _add_sizes(writer, shape)
    _add_tokenizer(writer, tokens, merges)
    for tensor, values in sorted(tensors.items()):
        kind = GGMLQuantizationType.Q8_0 if quantize and values.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(tensor, gguf.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(path)


def _add_sizes(writer: gguf.GGUFWriter, shape: ModelShape) -> None:
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)


def _add_tokenizer(writer: gguf.GGUFWriter, tokens: Sequence[str], merges: Sequence[str]) -> None:
    control = len(CONTROL_TOKENS)
    if tuple(tokens[:control]) != CONTROL_TOKENS:
        raise ValueError("the control tokens must come first")
    types = [gguf.TokenType.CONTROL] * control + [gguf.TokenType.NORMAL] * (len(tokens) - control)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(tokens))
    writer.add_token_types(types)
    writer.add_token_merges(list(merges))
    writer.add_eos_token_id(CONTROL_TOKENS.index(TURN_END))
    writer.add_eot_token_id(CONTROL_TOKENS.index(TURN_END))
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
