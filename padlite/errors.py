"""Every error that padlite raises on purpose: what is wrong, what to type next, and the exit code of the command line.

An error's text never holds what the person wrote in a chat or prefers; names of files, keys and dimensions are fine.
Nothing here knows who raises or shows the errors.
"""

import difflib
from collections.abc import Iterable


class PadliteError(Exception):
    """Something a person can act on: a one-line *message*, a *remedy* that can be typed or done, and an exit code."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class UsageError(PadliteError):
    """The person asked for something that makes no sense as written (exit code 2)."""

    exit_code = 2


class ProfileError(UsageError):
    """A profile that can't be used as it stands."""


class NotFoundError(PadliteError):
    """A file, model, profile or session that isn't there (exit code 3)."""

    exit_code = 3


class ContextFullError(PadliteError):
    """The conversation no longer fits the model's context (exit code 4)."""

    exit_code = 4


class BackendError(PadliteError):
    """A model or reward model that can't be loaded or run (exit code 5)."""

    exit_code = 5


class RewardMismatchError(BackendError):
    """A reward model that was made for another base model."""


class StoreError(PadliteError):
    """Conversations can't be read or written."""


class HubError(PadliteError):
    """The Hugging Face hub can't be reached, refuses, or gives something else than what was asked for."""


class QueueFullError(PadliteError):
    """So many answers are waiting for their turn already that no other is taken on."""


class DecodingCancelled(PadliteError):
    """A prefill or a step was stopped on request (exit code 130)."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" — did you mean 'x'?"`` for the known name closest to *name*, or an empty string if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" — did you mean {close[0]!r}?" if close else ""
