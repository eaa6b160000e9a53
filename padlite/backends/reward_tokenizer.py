"""A reward LM's own tokenizer, from the tokenizer.json that lies beside its graph; needs the extra padlite[bridge].

The only module of the runtime that imports tokenizers. The file's hash stands in the graph's metadata. Text that goes
on from other text is tokenized by a second copy, in which nothing is put before a text. Knows no model.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Self

from padlite.errors import BackendError, NotFoundError
from padlite.seams import Message
from padlite.template import ChatTemplate

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LARGEST = 128 << 20  # bytes; those of the largest vocabularies in use have about 35 million


def tokenizer_path(graph: Path) -> Path:
    """Return where the tokenizer of the reward LM at *graph* lies."""
    return graph.with_name(f"{graph.name}.tokenizer.json")


class RewardTokenizer:
    """For a reward LM's prompt and the answer that goes on from there (`OwnTokenizer` of `padlite.bridge`)."""

    def __init__(self, source: str, *, end_text: str = "") -> None:
        """Read *source*, the text of a tokenizer.json; raises what `tokenizers` and `json` raise.

        *end_text* is the text of the token that ends its texts, empty if unknown.
        """
        from tokenizers import Tokenizer

        parts = json.loads(source)
        for name in ("truncation", "padding"):
            parts[name] = None
        self._whole = Tokenizer.from_str(json.dumps(parts))
        for name in ("normalizer", "pre_tokenizer"):
            parts[name] = _continuing(parts.get(name))
        self._continuing = Tokenizer.from_str(json.dumps(parts))
        self._continuing.encode_special_tokens = True  # to encode their characters, that is
        added = self._whole.get_added_tokens_decoder().values()
        self.control_texts: frozenset[str] = frozenset(token.content for token in added)
        self._control: frozenset[str] = frozenset(token.content for token in added if token.special)
        self.vocabulary_size: int = max(self._whole.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.beginning: int | None = _first_added(self._whole)
        self.end_text: str = end_text
        self._letters = _byte_letters() if '"ByteLevel"' in source else ""

    @classmethod
    def open(cls, path: Path, *, sha256: str, vocabulary_size: int, end_text: str = "") -> Self:
        """Read the tokenizer at *path* of a reward LM with *vocabulary_size* tokens.

        Raises NotFoundError without the file or without the package, BackendError if it can't be read or isn't the one
        with the hash *sha256*.
        """
        try:
            with path.open("rb") as file:
                data = file.read(_LARGEST + 1)
        except OSError as error:
            raise NotFoundError(
                f"the reward LM's tokenizer {path} can't be read: {error.strerror}",
                remedy="copy it from where the reward LM came from, or export that again",
            ) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BackendError(
                f"{path.name} isn't the tokenizer that the reward LM was exported with (another sha256)",
                remedy="copy both from the same place, or export the reward LM again",
            )
        try:
            tokenizer = cls(data.decode(), end_text=end_text)
        except ImportError as error:
            raise NotFoundError(
                "a reward LM with another tokenizer than the base's needs a package that isn't installed (tokenizers)",
                remedy="pip install 'padlite[bridge]'",
            ) from error
        except Exception as error:  # tokenizers raises plain Exception
            raise BackendError(
                f"{path.name} can't be read as a tokenizer: {_one_line(error)}",
                remedy="export the reward LM again, or pip install --upgrade tokenizers",
            ) from error
        if not 0 < tokenizer.vocabulary_size <= vocabulary_size:
            raise BackendError(
                f"{path.name} has {tokenizer.vocabulary_size:,} tokens, and its reward LM {vocabulary_size:,}",
                remedy="export the reward LM again",
            )
        return tokenizer

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of *text*; control tokens in it are recognized only when *special* is true. Adds no BOS."""
        if not special:
            return self.continued(text)
        return list(self._whole.encode(text, add_special_tokens=False).ids)

    def continued(self, text: str) -> list[int]:
        """Return the ids of *text*; nothing is put before it, and control tokens in it are characters."""
        return list(self._continuing.encode(text, add_special_tokens=False).ids)

    def unfinished(self, data: bytes) -> list[int] | None:
        """Return the ids of *data*, the first bytes of a character, or None if there are none for them."""
        if self._letters:
            tokens = self._continuing.model.tokenize("".join(self._letters[value] for value in data))
            return [token.id for token in tokens] if sum(len(token.value) for token in tokens) == len(data) else None
        ids = [self._whole.token_to_id(f"<0x{value:02X}>") for value in data]
        known = [int(token) for token in ids if token is not None]
        return known if len(known) == len(data) else None

    def end(self, template: ChatTemplate) -> int | None:
        """Return the control token that follows an answer in *template*, or the one that ends any text, or None."""
        said = [Message(role="user", content="Hello."), Message(role="assistant", content="Yes.")]
        segments = template.render(said, add_generation_prompt=False)
        words = max((at for at, segment in enumerate(segments) if segment.message == 1), default=len(segments))
        after = "".join(segment.text for segment in segments[words + 1 :])
        ids = self._whole.encode(after, add_special_tokens=False).ids
        own = self._whole.token_to_id(self.end_text) if self.end_text else None
        return next((token for token in ids if self._whole.id_to_token(token) in self._control), own)

    @property
    def beginning_text(self) -> str:
        """The text of `beginning`, empty without one."""
        return "" if self.beginning is None else str(self._whole.id_to_token(self.beginning))


def _continuing(step: object) -> object:
    """Return *step*, a normalizer or pre-tokenizer as JSON, without what it puts before a text or takes from it."""
    if not isinstance(step, dict):
        return step
    kind = step.get("type")
    if kind in {"Prepend", "Strip"}:
        return None
    if kind == "ByteLevel":
        return {**step, "add_prefix_space": False}
    if kind == "Metaspace":
        return {**{key: value for key, value in step.items() if key != "add_prefix_space"}, "prepend_scheme": "never"}
    for parts in ("normalizers", "pretokenizers"):
        if isinstance(step.get(parts), list):
            return {**step, parts: [part for part in map(_continuing, step[parts]) if part is not None]}
    return step


def _first_added(tokenizer: "Tokenizer") -> int | None:
    """Return the token that *tokenizer* puts before a text of its own accord."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a").ids
    return int(whole[0]) if whole[:1] != bare[:1] and whole[1 : 1 + len(bare)] == bare else None


def _byte_letters() -> str:
    """Return the letters that stand for the 256 bytes in byte-level vocabularies: printable ones for themselves."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(0x100, 0x200))
    return "".join(chr(value if value in printable else next(moved)) for value in range(256))


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
