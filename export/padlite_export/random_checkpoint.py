"""Small random-weight checkpoints in Hugging Face layout, for tests and demonstrations: right in shape, but nonsense.

Llama, Qwen2 and what else transformers knows by its `model_type`, optionally with PAD's value head and a LoRA adapter
beside it. The tokenizer is that of `padlite_training.random_llama`, so its GGUF models speak the same tokens.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from padlite_training.chat_format import CHAT_TEMPLATE, CONTROL_TOKENS, TURN_END
from padlite_training.random_llama import LETTERS, vocabulary

SIZES: Mapping[str, int | float | bool] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
"""Two layers of width 64: exported in seconds."""


def write_checkpoint(
    folder: Path,
    *,
    model_type: str = "llama",
    seed: int = 1,
    value_head: bool = False,
    letters: str = LETTERS,
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> Path:
    """Write a causal language model of *model_type* with random weights into *folder*, and return that.

    *sizes* replace those of `SIZES`. With *value_head*, PAD's: close to the identity, as training would leave it.
    """
    shape = {**SIZES, **sizes}
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(model_type, **shape, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(std=weight.shape[-1] ** -0.5 * (2.0 if "embed" in name else 1.0))
    model.save_pretrained(folder)
    write_tokenizer(folder, int(shape["vocab_size"]), letters=letters)
    if value_head:
        width = int(shape["hidden_size"])
        weight = torch.eye(width) + 0.3 * torch.randn(width, width) / width**0.5
        head = {"v_head.summary.weight": weight, "v_head.summary.bias": 0.1 * torch.randn(width)}
        save_file(head, folder / "value_head.safetensors")
    return folder


def write_tokenizer(folder: Path, size: int, *, letters: str = LETTERS) -> None:
    """Write a byte-level BPE tokenizer of *size* tokens, its chat template with it, into *folder*."""
    tokens, merges = vocabulary(size, letters=letters)
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in CONTROL_TOKENS])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": CONTROL_TOKENS[0],
        "eos_token": TURN_END,
        "chat_template": CHAT_TEMPLATE,
        "add_bos_token": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))


def write_adapter(folder: Path, *, rank: int = 4, width: int = 64, layers: int = 2, seed: int = 2) -> Path:
    """Write a LoRA adapter for the query projections of a checkpoint of that shape into *folder*, and return that."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for layer in range(layers):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, width) / width**0.5
        tensors[f"{name}.lora_B.weight"] = torch.randn(width, rank) / rank**0.5
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=1))
    return folder
