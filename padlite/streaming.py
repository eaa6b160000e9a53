"""From the bytes of tokens to text that may be shown: whole characters only, and never a part of a stop string.

Knows nothing of tokens, models or terminals.
"""

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns pieces of UTF-8 into text as early as it is safe.

    Invalid bytes become U+FFFD, as in `bytes.decode(errors="replace")` of the whole. Text that could be the beginning
    of a stop string is held back until it is known not to be one; from a stop string on, nothing is released.
    """

    __slots__ = ("_beginnings", "_decoder", "_held", "_stop", "stopped")

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = tuple(stop)
        self._beginnings = tuple({text[:length] for text in stop for length in range(1, len(text))})
        self._held = ""
        self.stopped: bool = False

    def feed(self, piece: bytes) -> str:
        """Return the text that *piece* makes safe to show; sets `stopped` when a stop string is complete."""
        return self._release(self._decoder.decode(piece))

    def finish(self) -> str:
        """Return what was held back, at the end of the answer; an unfinished character becomes U+FFFD."""
        text = self._release(self._decoder.decode(b"", final=True))
        rest, self._held = ("" if self.stopped else self._held), ""
        return text + rest

    def _release(self, text: str) -> str:
        if not self._stop:
            return text
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        if not text.endswith(self._beginnings):
            self._held = ""
            return text
        keep = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of *text* that begins *stop*."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
