"""An earlier bundle as the start of a training: its base's weights as the first phase, and its tokenizer.

So a model goes on learning, from more text or for longer, without beginning anew. The weights are those of the
quantized file, as numbers; the optimizer starts afresh. Knows GGUF files that `gguf_writer` wrote, and no others.
"""

import hashlib
import re

import gguf
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from padlite.bundle import Bundle
from padlite.errors import BackendError
from padlite.whole_files import write_whole
from padlite_training.chat_format import CONTROL_TOKENS
from padlite_training.facts import EarlierFacts, Progress
from padlite_training.gguf_writer import gguf_name
from padlite_training.llama_model import LlamaForTraining
from padlite_training.places import Places
from padlite_training.recipe import ModelShape


def start_from(bundle: Bundle, places: Places, shape: ModelShape, *, phase: str) -> None:
    """Write the checkpoint of *phase* and the tokenizer to the work folder, as if that phase had made *bundle*.

    Raises BackendError if its base doesn't have *shape*.
    """
    reader = gguf.GGUFReader(bundle.base)
    model = LlamaForTraining(shape)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, parameter in model.named_parameters():
        tensor = tensors.get(gguf_name(name))
        wanted = list(reversed(parameter.shape))
        if tensor is None or list(tensor.shape) != wanted:
            found = "none" if tensor is None else " x ".join(map(str, tensor.shape))
            raise BackendError(
                f"{bundle.base} isn't a base of this recipe: {gguf_name(name)} should be "
                f"{' x '.join(map(str, wanted))}, and is {found}",
                remedy="start from a bundle of the same --config",
            )
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        parameter.data.copy_(torch.from_numpy(values.copy()).view(parameter.shape))
    progress = _progress(bundle)
    places.work.mkdir(parents=True, exist_ok=True)
    write_whole(places.tokenizer, tokenizer_of(reader).to_str(pretty=True).encode())
    state = {"model": model.state_dict(), "progress": (progress.elapsed_s, progress.steps, progress.tokens)}
    torch.save(state, places.checkpoint(phase))
    sha256 = hashlib.sha256(bundle.base.read_bytes()).hexdigest()
    EarlierFacts(name=bundle.name, sha256=sha256).save(places.facts("earlier"))


def tokenizer_of(reader: gguf.GGUFReader) -> Tokenizer:
    """Return the tokenizer of a GGUF."""
    tokens, merges = (reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    vocabulary = {str(token): number for number, token in enumerate(tokens)}
    pairs = [(left, right) for left, _, right in (str(merge).partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(CONTROL_TOKENS))
    return tokenizer


def _progress(bundle: Bundle) -> Progress:
    """Return what the bundle's manifest says of its base's training; the steps aren't told."""
    said = str(bundle.training.get("base", ""))
    tokens, minutes = (re.search(rf"([\d,]+) {unit}", said) for unit in ("tokens", "minutes"))
    if tokens is None or minutes is None:
        raise BackendError(
            f"the manifest of {bundle.name} doesn't say how its base was trained",
            remedy="start from a bundle that padlite_training.build made",
        )
    return Progress(elapsed_s=60.0 * int(minutes[1].replace(",", "")), tokens=int(tokens[1].replace(",", "")))
