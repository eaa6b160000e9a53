"""What is harvested for a dimension: how many answers, to which prompts, and what each of these is for.

Knows no model and no file.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from padlite.errors import UsageError

PART = 20  # answers in one file: what a kill costs at most
HISTORY_SHARE = 0.25  # of the answers are two in a row
_HELD_SHARE = 0.1  # of the prompts, for each of the two sets that the head isn't fitted to
_FEWEST_HELD = 4
_SCHEMA = 2


class Share(IntEnum):
    """What a prompt is for: fitting, deciding when to stop, or judging the result."""

    TRAIN = 0
    STOP = 1
    TEST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to harvest: *answers* answers to *prompts* by the base with *base_fingerprint*, guided by *sentences*.

    Answers come in whole parts of 20, so there may be a few more than were asked for.
    """

    base_fingerprint: str
    sentences: tuple[str, ...]
    prompts: tuple[str, ...]
    answers: int
    answer_tokens: int = 40
    candidates: int = 24
    seed: int = 7

    @property
    def key(self) -> str:
        """What tells harvests apart, short enough for the name of a folder.

        How many answers are wanted is no part of it: each follows from its number and the rest, so that more of them
        begin with those that are there.
        """
        what = {name: value for name, value in asdict(self).items() if name != "answers"}
        return hashlib.sha256(json.dumps([_SCHEMA, what], sort_keys=True).encode()).hexdigest()[:16]

    @property
    def parts(self) -> int:
        """How many files the harvest has."""
        return -(-self.answers // PART)

    def shares(self) -> npt.NDArray[np.int8]:
        """Return what each prompt is for."""
        held = max(_FEWEST_HELD, round(_HELD_SHARE * len(self.prompts)))
        shares = np.full(len(self.prompts), Share.TRAIN, dtype=np.int8)
        order = np.random.default_rng(self.seed).permutation(len(self.prompts))
        shares[order[:held]], shares[order[held : 2 * held]] = Share.TEST, Share.STOP
        return shares

    def prompts_for(self, share: Share) -> tuple[str, ...]:
        """Return the prompts of one share."""
        return tuple(prompt for prompt, each in zip(self.prompts, self.shares(), strict=True) if each == share)

    def first_prompt(self, number: int) -> int:
        """Return which prompt the answer *number* is for; what that prompt is for, the answer is for."""
        return number % len(self.prompts)

    def require_shares(self) -> None:
        """Raise UsageError, saying how many answers are needed, unless there is one for each `Share`."""
        shares = self.shares()
        places = [np.flatnonzero(shares == share) for share in Share]
        if not all(map(len, places)):
            raise UsageError(
                f"{len(self.prompts)} prompts are too few to fit a dimension and to judge it by others",
                remedy="write more of them, about a thousand are best",
            )
        needed = 1 + max(int(place[0]) for place in places)
        if needed > self.parts * PART:
            raise UsageError(
                f"{self.answers} answers are too few: with these prompts and this seed there is none among them to "
                "judge the dimension by",
                remedy=f"ask for more of them: --answers {-(-needed // PART) * PART}",
            )

    def bytes_needed(self, hidden_size: int, *, finished: int = 0) -> int:
        """Return about how many bytes come to the *finished* parts: every answer as long as it may be."""
        state = 2 * hidden_size + self.candidates * (4 + 4 + 4 * len(self.sentences)) + 4 + 1 + 1 + 4
        answers = (self.parts - finished) * PART * (1 + HISTORY_SHARE)
        return round(answers * self.answer_tokens) * state
