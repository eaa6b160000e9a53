"""Which small talk may be trained on, and which is kept to judge the result.

Laws: no question of a held-out scenario and no held-out wording (compared without case, punctuation and repeated
spaces) is ever in the training part; own questions that nearly repeat a question of a held-out scenario are dropped.
The public scenarios are judged in the five styles that they come in, some of padlite's own in all eight.
"""

import random
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from padlite_training.recipe import (
    HELD_OUT_OWN,
    HELD_OUT_SCENARIOS,
    HELD_OUT_WORDING_SHARE,
    SAME_ANSWER_SCENARIO,
    SPLIT_SEED,
)
from padlite_training.sources import Json
from padlite_training.styles import STYLES

NEAR_REPEAT = 0.8

COMMON = 500
"""padlite's own scenarios were written from the common to the rare: the n-th is drawn like 1 / (COMMON + n)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One situation of small talk: *questions* in many wordings and an answer for each style it comes in."""

    name: str
    questions: tuple[str, ...]
    answers: dict[str, str]

    @property
    def public(self) -> bool:
        """Whether it comes from ms_personality_chat."""
        return self.name.startswith("ms-")


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallTalkSplit:
    """*training* may be seen; *wordings*, *scenarios* and *own* (all eight styles) are only for judging.

    *dropped* counts questions left out.
    """

    training: tuple[Scenario, ...]
    wordings: tuple[Scenario, ...]
    scenarios: tuple[Scenario, ...]
    own: tuple[Scenario, ...]
    dropped: int


def tidy(text: str) -> str:
    """Return *text* with plain quotes and single ordinary spaces."""
    plain = unicodedata.normalize("NFC", text).translate(
        {0x2019: "'", 0x2018: "'", 0x201C: '"', 0x201D: '"', 0x2026: "..."}
    )
    return " ".join(plain.split())


def fingerprint(text: str) -> str:
    """Return *text* casefolded, without punctuation and repeated spaces: equal for wordings that count as the same."""
    kept = "".join(c if c.isalnum() or c.isspace() else ("" if c in "'’" else " ") for c in text.casefold())
    return " ".join(kept.split())


def scenarios_from(rows: Iterable[dict[str, Json]], *, prefix: str, key: str) -> list[Scenario]:
    """Return the scenarios of *rows*, named *prefix* and the value of *key*, texts tidied."""
    result = []
    for row in rows:
        questions, answers = row["questions"], row["answers"]
        if not isinstance(questions, list) or not isinstance(answers, dict):
            raise TypeError(f"{prefix}{row[key]}: questions must be a list and answers a table")
        result.append(
            Scenario(
                name=f"{prefix}{row[key]}",
                questions=tuple(dict.fromkeys(tidy(str(question)) for question in questions)),
                answers={style: tidy(str(answers[style])) for style in STYLES if style in answers},
            )
        )
    return result


def split_small_talk(public: Sequence[Scenario], own: Sequence[Scenario]) -> SmallTalkSplit:
    """Divide the *public* scenarios (`ms-ID`) and the *own* ones (`own-NUMBER`) into what is trained on and judged."""
    held_names = {f"ms-{number}" for number in HELD_OUT_SCENARIOS}
    scenarios = tuple(scenario for scenario in public if scenario.name in held_names)
    seen = [scenario for scenario in public if scenario.name not in held_names]
    own_names = {f"own-{number}" for number in HELD_OUT_OWN}
    held_own = tuple(scenario for scenario in own if scenario.name in own_names)
    held_questions = [question for scenario in (*scenarios, *held_own) for question in scenario.questions]
    forbidden = {fingerprint(question) for question in held_questions}
    wordings = tuple(_held_wordings(scenario, forbidden) for scenario in seen if not _same_answers(scenario))
    forbidden_wordings = forbidden | {fingerprint(q) for scenario in wordings for q in scenario.questions}
    training = [_without(scenario, forbidden_wordings, ()) for scenario in seen]
    open_own = [scenario for scenario in own if scenario.name not in own_names]
    training += [_without(scenario, forbidden_wordings, held_questions) for scenario in open_own]
    before = sum(len(scenario.questions) for scenario in (*seen, *open_own))
    after = sum(len(scenario.questions) for scenario in (*training, *wordings))
    return SmallTalkSplit(
        training=tuple(scenario for scenario in training if scenario.questions),
        wordings=tuple(scenario for scenario in wordings if scenario.questions),
        scenarios=scenarios,
        own=held_own,
        dropped=before - after,
    )


def drawing_chances(scenarios: Sequence[Scenario], *, power: float, public_share: float) -> npt.NDArray[np.float64]:
    """Return how likely each of *scenarios* is drawn: by its number of questions to *power*, and by `COMMON`.

    *public_share* of what is drawn is public, however many of padlite's own there are.
    """
    chances = np.array([len(scenario.questions) for scenario in scenarios], dtype=np.float64) ** power
    public = np.array([scenario.public for scenario in scenarios])
    chances[~public] /= COMMON + np.arange(np.count_nonzero(~public))
    if public.any() and not public.all():
        chances[public] *= public_share / chances[public].sum()
        chances[~public] *= (1.0 - public_share) / chances[~public].sum()
    return chances / chances.sum()


def _same_answers(scenario: Scenario) -> bool:
    return scenario.name == f"ms-{SAME_ANSWER_SCENARIO}"


def _held_wordings(scenario: Scenario, forbidden: set[str]) -> Scenario:
    open_questions = [question for question in scenario.questions if fingerprint(question) not in forbidden]
    count = max(1, round(HELD_OUT_WORDING_SHARE * len(open_questions)))
    chosen = random.Random(f"{SPLIT_SEED} {scenario.name}").sample(open_questions, count)
    return Scenario(name=scenario.name, questions=tuple(chosen), answers=scenario.answers)


def _without(scenario: Scenario, forbidden: set[str], near: Sequence[str]) -> Scenario:
    """Return *scenario* without *forbidden* fingerprints and without near repeats of the questions *near*."""
    bags = [frozenset(fingerprint(question).split()) for question in near]
    kept = []
    for question in scenario.questions:
        bag = frozenset(fingerprint(question).split())
        if fingerprint(question) in forbidden or any(_overlap(bag, other) >= NEAR_REPEAT for other in bags):
            continue
        kept.append(question)
    return Scenario(name=scenario.name, questions=tuple(kept), answers=scenario.answers)


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(1, len(one | other))
