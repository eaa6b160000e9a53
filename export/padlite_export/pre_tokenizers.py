"""Tells which of llama.cpp's pre-tokenizers cuts text as a checkpoint's own tokenizer does, by comparing tokens.

Names are llama.cpp's (``llama-bpe``, ``qwen2``). Several may be right: those that can't be told apart on all texts that
are compared. Knows no weights.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from padlite.backends.llama_files import open_tokenizer
from padlite.errors import BackendError

TEXTS = (
    "Hello there.", " leading", "trailing ", "  two  spaces", "tab\tand\nline\r\n\n\n",
    "\t\tindented = [1, 2.5e-3]; // code",
    "it's, IT'S, we'll, WE'LL", "1 22 333 4444 12345678 3.14", "naïve café, CAFÉ, e\u0301", "日本語のテキスト 漢字",
    "Привет, мир!", "कान्ते विशेष ០១", "emoji 👩‍👩‍👧 🤷🏽 🚀!", "camelCase HTTPServer snake_case", "!!!???...------======",
    "\u200b\u00a0\u3000end", "a\n \n  b \n\tc",
)  # fmt: skip
"""One for each thing that llama.cpp's pre-tokenizers do differently."""

_FIRST = ("gpt-2", "qwen2", "llama-bpe")  # where several would do: llama.cpp treats these in no special way otherwise
_JOINED_TEXTS = 200
_ASSIGNED = re.compile(r"""\bres = ["']([\w.\-]+)["']""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """*names* of the pre-tokenizers that read all *texts* (how many) alike, the first of them *name*."""

    names: tuple[str, ...]
    texts: int

    @property
    def name(self) -> str:
        """The one to write down."""
        return self.names[0]


def known_names(converter: Path) -> tuple[str, ...]:
    """Return the pre-tokenizers that the converter in the folder *converter* can name, the plainest first."""
    sources = (converter / "conversion" / "base.py", converter / "convert_hf_to_gguf.py")
    found = [name for path in sources if path.is_file() for name in _ASSIGNED.findall(path.read_text(encoding="utf-8"))]
    return tuple(dict.fromkeys([*_FIRST, *found]))


def joined_texts(tokenizer: Tokenizer, *, seed: int = 0) -> list[str]:
    """Return texts of three random tokens each: where they meet, a pre-tokenizer may part what another merges."""
    rng = random.Random(seed)  # noqa: S311
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    ordinary = [token for token in range(tokenizer.get_vocab_size()) if token not in special]
    texts = ["".join(tokenizer.decode([rng.choice(ordinary)]) for _ in range(3)) for _ in range(2 * _JOINED_TEXTS)]
    return [text for text in texts if text and "\ufffd" not in text][:_JOINED_TEXTS]  # no halves of characters


def detect(vocabulary: Path, tokenizer: Tokenizer, names: Iterable[str]) -> Detected:
    """Return those of *names* under which the GGUF *vocabulary* gives the ids that *tokenizer* gives for every text.

    Raises BackendError with the closest one if none does.
    """
    # llama.cpp doesn't normalize (NFC); that is no difference between pre-tokenizers.
    normalize = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
    texts = [normalize(text) for text in (*TEXTS, *joined_texts(tokenizer))]
    wanted = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    right: list[str] = []
    closest, closest_misses = "", [*texts, ""]
    for name in names:
        misses = _misses(vocabulary, name, texts, wanted)
        if misses is None:
            continue
        if not misses:
            right.append(name)
        if len(misses) < len(closest_misses):
            closest, closest_misses = name, misses
    if not right:
        raise BackendError(
            "none of llama.cpp's pre-tokenizers cuts text as the checkpoint's tokenizer does"
            + (f"; the closest, {closest}, differs at {closest_misses[0]!r}" if closest else ""),
            remedy=f"name the right one, if you know better: --pre {closest or 'NAME'}",
        )
    return Detected(names=tuple(right), texts=len(texts))


def _misses(vocabulary: Path, name: str, texts: Sequence[str], wanted: Sequence[list[int]]) -> list[str] | None:
    """Return the texts that *name* reads otherwise; None if this llama.cpp doesn't know it."""
    try:
        with open_tokenizer(vocabulary, pre_tokenizer=name) as own:
            return [t for t, ids in zip(texts, wanted, strict=True) if own.encode(t, special=False) != ids]
    except BackendError:
        return None
