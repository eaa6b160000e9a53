"""A random Llama's GGUF as a checkpoint in Hugging Face layout: the same weights for llama.cpp and transformers."""

from pathlib import Path

import gguf
import numpy as np
import torch
import transformers

from padlite_export.random_checkpoint import write_tokenizer
from padlite_training.random_llama import LlamaShape

_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_same_weights(path: Path, shape: LlamaShape, folder: Path) -> Path:
    """Write the model of *shape* in the GGUF at *path*, dequantized, into *folder*, and return that."""
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=shape.context_length,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for tensor in gguf.GGUFReader(path).tensors:
            values = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
            heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(tensor.name.split(".")[-2])
            if heads is not None:  # llama.cpp rotates neighbours, transformers halves
                values = values.reshape(heads, shape.head_size // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)
            weights[_name_of(tensor.name)].copy_(torch.from_numpy(values.copy()))
    model.save_pretrained(folder)
    write_tokenizer(folder, shape.vocabulary_size)
    return folder


def _name_of(name: str) -> str:
    """Return what transformers calls the tensor *name* of a GGUF."""
    match name.split("."):
        case ["token_embd", "weight"]:
            return "model.embed_tokens.weight"
        case ["output_norm", "weight"]:
            return "model.norm.weight"
        case ["blk", layer, part, "weight"]:
            return f"model.layers.{layer}.{_PARTS[part]}.weight"
        case _:
            raise ValueError(f"a random Llama has no tensor {name!r}")
