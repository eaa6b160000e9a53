"""An answer's bytes as tokens of another tokenizer, as they come: what is added tokenizes only a short end anew.

Tokens before the end are *settled*: no text that follows can change them. The end is cut off where its two halves
tokenize as the whole does, with `MARGIN` characters behind the cut. Knows no model; bytes in, ids out.
"""

import codecs
from typing import Protocol

MARGIN = 24  # characters of text that must follow before tokens are settled
LONGEST = 64  # characters of an end, from which on some of it is to be settled
FORCED = 512  # characters of an end that is cut even if its tokens change by that: one word without any boundary
_TRIES = 16  # cuts inside a word that are tried


class ContinuingTokenizer(Protocol):
    """A tokenizer that is given text which goes on from other text."""

    def continued(self, text: str) -> list[int]:
        """Return the ids of *text*; nothing is put before it, and control tokens in it are characters."""
        ...

    def unfinished(self, data: bytes) -> list[int] | None:
        """Return the ids of *data*, the first bytes of a character, or None if there are none for them."""
        ...


class Retokenized:
    """One answer, fed piece by piece; invalid bytes become U+FFFD, as on the screen."""

    def __init__(self, tokenizer: ContinuingTokenizer) -> None:
        self._tokenizer = tokenizer
        self._end, self._pending = "", b""
        self._settle_from = LONGEST

    def feed(self, piece: bytes) -> list[int]:
        """Append *piece* and return the tokens that are settled now and weren't before, often none."""
        text, self._pending = whole_characters(self._pending + piece)
        self._end += text
        return self._settle() if len(self._end) > self._settle_from else []

    def end(self) -> list[int]:
        """Return the tokens after the settled ones.

        An unfinished character is tokenized by itself; it counts as not yet there if the tokenizer has no bytes.
        """
        tokens = self._tokens(self._end, self._pending)
        return self._tokenizer.continued(self._end) if tokens is None else tokens

    def end_with(self, piece: bytes) -> list[int] | None:
        """Return what `end` would be after *piece*, or None if that ends in bytes that the tokenizer lacks."""
        text, pending = whole_characters(self._pending + piece)
        return self._tokens(self._end + text, pending)

    def _tokens(self, text: str, pending: bytes) -> list[int] | None:
        tokens = self._tokenizer.continued(text)
        if not pending:
            return tokens
        unfinished = self._tokenizer.unfinished(pending)
        return None if unfinished is None else tokens + unfinished

    def _settle(self) -> list[int]:
        """Cut the end as near to `MARGIN` as its tokens allow, and return those before the cut."""
        encode, end = self._tokenizer.continued, self._end
        whole = encode(end)
        for at in _cuts(end):
            first = encode(end[:at])
            if first == whole[: len(first)] and first + encode(end[at:]) == whole:
                break
        else:
            if len(end) < FORCED:
                self._settle_from = len(end) + MARGIN  # try again later
                return []
            at = len(end) - MARGIN
            first = encode(end[:at])
        self._end, self._settle_from = end[at:], LONGEST
        return first


def whole_characters(data: bytes) -> tuple[str, bytes]:
    """Return the text of *data* and the bytes at its end that begin a character."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = decoder.decode(data)
    return text, decoder.getstate()[0]


def _cuts(text: str) -> list[int]:
    """Return where *text* may be cut, best first: before white space, otherwise in words but in no number or run."""
    places = range(len(text) - MARGIN, 0, -1)
    between = [at for at in places if text[at].isspace() and not text[at - 1].isspace()]
    inside = (at for at in places if text[at] != text[at - 1] and not (text[at].isdigit() and text[at - 1].isdigit()))
    return between + [at for at, _ in zip(inside, range(_TRIES), strict=False)]
