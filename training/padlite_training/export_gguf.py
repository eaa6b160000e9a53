"""From a checkpoint of the base model to the GGUF, and the proof that llama.cpp computes the same."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from padlite.backends.llama import LlamaModel
from padlite.backends.llama_files import quantize
from padlite_training.facts import Parity
from padlite_training.gguf_writer import gguf_name, write_llama_gguf
from padlite_training.llama_model import LlamaForTraining
from padlite_training.tokenizer import vocabulary_of

AWKWARD_TEXTS = (
    "Hello, world!",
    "  two  spaces and a trailing one ",
    "I'll say we'VE don't 'tis",
    "tabs\tand\n\nnewlines \n x",
    "naïve café, 20.5 € 东京 🙂👍🏽",
    "a1b2 3,000 -- ... ?!",
    "<|im_end|> typed by hand",
    "\u00a0no-break\u2009thin",
)


def export_gguf(
    model: LlamaForTraining, tokenizer: Tokenizer, path: Path, *, name: str, licence: str, weights: str = "q8_0"
) -> None:
    """Write *model* to *path*, its matrices as *weights*: q8_0, f32, or what llama.cpp makes of f32, such as q4_k_m."""
    if weights in {"q8_0", "f32"}:
        _write(model, tokenizer, path, name=name, licence=licence, quantize=weights == "q8_0")
        return
    whole, small = path.with_name(f"{path.name}.f32"), path.with_name(f"{path.name}.part")
    try:
        _write(model, tokenizer, whole, name=name, licence=licence, quantize=False)
        quantize(whole, small, weights, threads=os.cpu_count() or 1)
        small.replace(path)
    finally:
        for leftover in (whole, small):
            leftover.unlink(missing_ok=True)


def _write(
    model: LlamaForTraining, tokenizer: Tokenizer, path: Path, *, name: str, licence: str, quantize: bool
) -> None:
    tokens, merges = vocabulary_of(tokenizer)
    tensors = {gguf_name(key): value.detach().float().numpy() for key, value in model.named_parameters()}
    write_llama_gguf(
        path,
        shape=model.shape,
        tensors=tensors,
        tokens=tokens,
        merges=merges,
        name=name,
        licence=licence,
        quantize=quantize,
    )


def measure_parity(model: LlamaForTraining, base: LlamaModel, prompts: list[list[int]]) -> Parity:
    """Compare the logits of *model* and *base* at every position of *prompts* (token ids)."""
    cosines, differences, same = [], [], []
    for prompt in prompts:
        with torch.no_grad():
            wanted = model(torch.tensor([prompt]))[0].numpy()
        base.forget(0)
        got = np.stack([base.step(token).logits.copy() for token in prompt])
        cosines += list((wanted * got).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(got, axis=1))
        differences += list(np.abs(_log_softmax(wanted) - _log_softmax(got)).mean(1))
        same += list(wanted.argmax(1) == got.argmax(1))
    return Parity(
        cosine=float(min(cosines)),
        difference=float(np.mean(differences)),
        top_one=float(np.mean(same)),
        positions=len(same),
    )


def require_same_tokens(tokenizer: Tokenizer, base: LlamaModel, texts: tuple[str, ...] = AWKWARD_TEXTS) -> None:
    """Raise ValueError unless llama.cpp cuts *texts* into the same tokens as *tokenizer*."""
    for text in texts:
        wanted = tokenizer.encode(text, add_special_tokens=False).ids
        got = base.tokenizer.encode(text, special=False)
        if wanted != got:
            raise ValueError(f"llama.cpp tokenizes {text!r} as {got}, the tokenizer as {wanted}")


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float32)
