"""Tokenizers for tests of the bridge: small ones of three kinds, trained on the spot, and what a base does with one.

The slow, obvious way to score a candidate stands beside them (`brute_force`): the whole text tokenized, no cache.
"""

import codecs
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from padlite.backends.reward_tokenizer import RewardTokenizer, tokenizer_path
from padlite.seams import FloatArray

CORPUS = [
    "The cat sat on the mat, and the other cat didn't care about that at all.",
    "Hello there! How are you today? I'm fine, thank you; the weather is wonderful.",
    "def add(a, b):\n    return a + b  # adds 12 and 345\n\n\nprint(add(1, 2))",
    "naïve café, déjà vu, Übermut; 日本語のテキスト と 中文 和 한국어",
    "emoji 👩‍👩‍👧 🤷🏽 😀😀 at the end of the thing   and   spaces\t\ttabs ........ ======",
    "unbelievable unbelievably believable believer believing being seeing thinking nothing something",
]
END = "<end>"
KINDS = ("bytes", "spaces", "unigram")


@cache
def trained(kind: str) -> Tokenizer:
    """A tokenizer of about 400 tokens: byte-level BPE, BPE over ``▁`` with byte fallback, or unigram (no bytes)."""
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: trainers.Trainer = trainers.BpeTrainer(
            vocab_size=420, special_tokens=[END], show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )  # fmt: skip
    elif kind == "spaces":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        octets = [f"<0x{value:02X}>" for value in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=480, special_tokens=["<unk>", END, *octets], show_progress=False, limit_alphabet=60
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=250, special_tokens=["<unk>", END], unk_token="<unk>", show_progress=False
        )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if kind == "spaces":  # training made the bytes special, which in such a vocabulary they are not
        parts = json.loads(tokenizer.to_str())
        parts["added_tokens"] = [each for each in parts["added_tokens"] if not each["content"].startswith("<0x")]
        tokenizer = Tokenizer.from_str(json.dumps(parts))
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


@cache
def own(kind: str) -> RewardTokenizer:
    """The trained tokenizer as a reward LM's own."""
    return RewardTokenizer(trained(kind).to_str(), end_text=END)


def place(graph: Path, source: str) -> Path:
    """Put *source* where the tokenizer of the reward LM at *graph* lies."""
    path = tokenizer_path(graph)
    path.write_text(source, encoding="utf-8")
    return path


class BaseTokenizer:
    """A byte-level tokenizer as a base model has it (`Tokenizer` in `padlite.seams`)."""

    beginning: int | None = None

    def __init__(self, tokenizer: Tokenizer, *, end: str = END) -> None:
        self._tokenizer, self._end = tokenizer, tokenizer.token_to_id(end)
        self.control_texts = frozenset({end})
        self.vocabulary_size: int = tokenizer.get_vocab_size()
        letters = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [value for value in range(256) if value not in letters]
        self._bytes = {chr(value): value for value in letters}
        self._bytes |= {chr(0x100 + at): value for at, value in enumerate(others)}

    def encode(self, text: str, *, special: bool) -> list[int]:
        self._tokenizer.encode_special_tokens = not special
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def piece(self, token: int) -> bytes:
        text = self._tokenizer.id_to_token(token) or ""
        if token == self._end or any(letter not in self._bytes for letter in text):
            return b""
        return bytes(self._bytes[letter] for letter in text)

    def is_end(self, token: int) -> bool:
        return token == self._end


def whole_tokens(tokenizer: RewardTokenizer, data: bytes) -> list[int] | None:
    """Return the tokens of an answer's bytes, all at once; None if it ends in bytes that *tokenizer* lacks."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    tokens = tokenizer.continued(decoder.decode(data))
    pending = decoder.getstate()[0]
    if not pending:
        return tokens
    rest = tokenizer.unfinished(pending)
    return None if rest is None else [*tokens, *rest]


def brute_force(logits: Callable[[Sequence[int]], FloatArray], prompt: Sequence[int], tokens: Sequence[int]) -> float:
    """Return log p of *tokens* after *prompt*, each of them from the whole text before it."""
    total = 0.0
    for at, token in enumerate(tokens):
        row = logits([*prompt, *tokens[:at]]).astype(np.float64)
        total += row[token] - np.logaddexp.reduce(row)
    return total
