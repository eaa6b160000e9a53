"""Real tokenizers from the vocabularies that llama.cpp's source archive carries (models/ggml-vocab-*.gguf).

    pip download --no-deps --no-binary llama-cpp-python llama-cpp-python==VERSION     # then unpack it

The folder is named by the environment variable `PADLITE_VOCABULARIES`. As a base's tokenizer llama.cpp reads such a
file itself; as a reward LM's it is rebuilt for `tokenizers`: tokens, merges or scores, and how text is cut before.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import gguf
import llama_cpp
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from padlite.backends.llama import LlamaTokenizer

VARIABLE = "PADLITE_VOCABULARIES"
REBUILT = ("llama-bpe", "qwen2", "gpt-2", "phi-3", "llama-spm")
"""Those that can be a reward LM's here; Llama 3, Qwen 2, GPT-2, Phi-3 and Llama 2."""

_CONTROL, _USER_DEFINED = 3, 4
_WORDS: Mapping[str, str] = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def folder() -> Path | None:
    """Return the folder with the vocabularies, None if the variable isn't set or the folder lacks one of `REBUILT`."""
    named = os.environ.get(VARIABLE)
    found = Path(named) if named else None
    return found if found and all(vocabulary(found, name).is_file() for name in REBUILT) else None


def vocabulary(folder: Path, name: str) -> Path:
    """Return the file of the vocabulary *name*."""
    return folder / f"ggml-vocab-{name}.gguf"


@contextlib.contextmanager
def base_tokenizer(path: Path) -> Iterator[LlamaTokenizer]:
    """Yield the tokenizer at *path* as llama.cpp reads it."""
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    if model is None:
        raise OSError(f"{path} can't be loaded")
    try:
        yield LlamaTokenizer(model)
    finally:
        llama_cpp.llama_model_free(model)


def rebuilt(path: Path) -> tuple[Tokenizer, str]:
    """Return the tokenizer at *path*, one of `REBUILT`, for `tokenizers`, and the text of its end token."""
    reader = gguf.GGUFReader(path)

    def field(name: str) -> object:
        return reader.fields[f"tokenizer.ggml.{name}"].contents()

    tokens, kinds = cast("list[str]", field("tokens")), cast("list[int]", field("token_type"))
    ids = {token: at for at, token in reversed(list(enumerate(tokens)))}
    if field("model") == "llama":
        tokenizer = _of_sentencepiece(ids, cast("list[float]", field("scores")))
    else:
        merges = [tuple(merge.split(" ", 1)) for merge in cast("list[str]", field("merges"))]
        tokenizer = _of_bytes(ids, merges, path.stem.removeprefix("ggml-vocab-"))
    added = [(token, kind) for token, kind in zip(tokens, kinds, strict=True) if kind in {_CONTROL, _USER_DEFINED}]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token, kind in added if kind == _CONTROL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token, kind in added if kind == _USER_DEFINED])
    return tokenizer, tokens[cast("int", field("eos_token_id"))]


def _of_bytes(ids: dict[str, int], merges: list[tuple[str, ...]], name: str) -> Tokenizer:
    pairs = [(left, right) for left, right in merges]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=pairs, ignore_merges=name == "llama-bpe"))
    words = _WORDS.get(name)
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    cut = [pre_tokenizers.Split(Regex(words), behavior="isolated")] if words else []
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not words)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cut, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _of_sentencepiece(ids: dict[str, int], scores: list[float]) -> Tokenizer:
    """BPE whose merges are all ways to put two tokens together to a third, the best scores of the result first."""
    merges: list[tuple[float, int, int, tuple[str, str]]] = []
    for token, at in ids.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                merges.append((-scores[at], ids[left], ids[right], (left, right)))
    merges.sort()
    pairs = [each[-1] for each in merges]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=pairs, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer
