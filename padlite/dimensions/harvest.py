"""Collects what a head is fitted to: the base's answers to ordinary prompts, plain and guided, state by state.

Every answer follows from the plan and its number alone, and finished answers are kept on disk in parts that are written
whole, so that a harvest that was interrupted (kill -9 too) goes on where it was. Hidden states are those without any
sentence in the context: what the head will see. Shapes: N states, k candidates, m sentences, d width.
"""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from padlite.dimensions.fit import States
from padlite.dimensions.teacher import ContrastTeacher, TaughtState
from padlite.errors import BackendError
from padlite.seams import FloatArray, Message
from padlite.whole_files import write_whole

PART = 20  # answers in one file: what a kill costs at most
CLAMP = 6.0
_PLAIN_SHARE = 0.3
_HISTORY_SHARE = 0.25
_LOWER_SHARE = 0.2
_STRENGTHS = (0.7, 1.0, 1.5)
_TEMPERATURE = 0.7
_HELD_SHARE = 0.1  # of the prompts, for each of the two sets that the head isn't fitted to
_FEWEST_HELD = 4
_SCHEMA = 1


class Share(IntEnum):
    """What a prompt is for: fitting, deciding when to stop, or judging the result."""

    TRAIN = 0
    STOP = 1
    TEST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to harvest: *answers* answers to *prompts* by the base with *base_fingerprint*, guided by *sentences*."""

    base_fingerprint: str
    sentences: tuple[str, ...]
    prompts: tuple[str, ...]
    answers: int
    answer_tokens: int = 40
    candidates: int = 24
    seed: int = 7

    @property
    def key(self) -> str:
        """What tells harvests apart, short enough for the name of a folder."""
        text = json.dumps([_SCHEMA, asdict(self)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

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

    def bytes_needed(self, hidden_size: int) -> int:
        """Return how large the harvest becomes at most."""
        state = 2 * hidden_size + self.candidates * (4 + 4 + 4 * len(self.sentences)) + 8
        return self.answers * self.answer_tokens * state


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """Taught states with what each is for: *share* (N,), whether its answer is *plain* (N,), its *answer*'s number."""

    hidden: npt.NDArray[np.float16]
    candidates: npt.NDArray[np.int32]
    base: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.int32]
    share: npt.NDArray[np.int8]
    plain: npt.NDArray[np.bool_]
    answer: npt.NDArray[np.int32]

    def states(self, wanted: npt.NDArray[np.bool_]) -> States:
        """Return the states that *wanted* (N,) marks."""
        return States(
            hidden=self.hidden[wanted].astype(np.float32),
            candidates=self.candidates[wanted].astype(np.int64),
            base=self.base[wanted],
            features=self.features[wanted],
        )

    def answers(self, *, plain: bool) -> list[tuple[int, ...]]:
        """Return the tokens of the answers that were given plainly or guided, ends left out."""
        return [
            tuple(int(token) for token in self.tokens[self.answer == number] if token >= 0)
            for number in np.unique(self.answer[self.plain == plain])
        ]


class HarvestFolder:
    """The folder in which one plan's harvest grows."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self.path: Path = root / plan.key
        self._plan = plan

    def require_room(self, hidden_size: int) -> None:
        """Raise BackendError, with both numbers, unless the disk has room for the whole harvest."""
        self.path.mkdir(parents=True, exist_ok=True)
        needed, free = self._plan.bytes_needed(hidden_size), shutil.disk_usage(self.path).free
        if needed > free:
            raise BackendError(
                f"the harvest needs up to {needed / 1e6:,.0f} MB, and {self.path.parent} has {free / 1e6:,.0f} MB free",
                remedy="free some space, ask for fewer answers (--answers), or set PADLITE_DATA_DIR to another disk",
            )

    def finished(self) -> int:
        """Return how many parts are there; they are made in order."""
        return next((n for n in range(self._plan.parts) if not self._file(n).exists()), self._plan.parts)

    def save(self, number: int, part: Harvest) -> None:
        """Write one part, whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, **{field.name: getattr(part, field.name) for field in fields(part)})
        try:
            write_whole(self._file(number), buffer.getvalue())
        except OSError as error:
            raise BackendError(
                f"the harvest can't be written: {error.strerror}", remedy=f"check the disk of {self.path}"
            ) from error

    def load(self, parts: int) -> Harvest:
        """Return the first *parts* parts as one. Raises BackendError if one can't be read."""
        loaded = [self._load(number) for number in range(parts)]
        return Harvest(**{f.name: np.concatenate([getattr(each, f.name) for each in loaded]) for f in fields(Harvest)})

    def remove(self) -> None:
        """Forget the harvest."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.path / f"{number:04}.npz"

    def _load(self, number: int) -> Harvest:
        try:
            with np.load(io.BytesIO(self._file(number).read_bytes()), allow_pickle=False) as arrays:
                return Harvest(**{field.name: arrays[field.name] for field in fields(Harvest)})
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BackendError(
                f"{self._file(number)} is damaged", remedy=f"rm -r {self.path}, and run the command again"
            ) from error


def harvest_part(teacher: ContrastTeacher, plan: Plan, number: int) -> Harvest:
    """Return the states of the answers of part *number*."""
    shares = plan.shares()
    rows: list[tuple[TaughtState, int]] = []
    marks: list[tuple[int, bool, int]] = []
    for answer in range(number * PART, min(plan.answers, (number + 1) * PART)):
        for states, share, plain in _dialogue(teacher, plan, shares, answer):
            rows += states
            marks += [(share, plain, 2 * answer + bool(marks and marks[-1][2] == 2 * answer))] * len(states)
    shared, calm, which = (np.array(column) for column in zip(*marks, strict=True))
    return Harvest(
        hidden=np.stack([state.hidden for state, _ in rows]).astype(np.float16),
        candidates=np.stack([state.candidates for state, _ in rows]).astype(np.int32),
        base=np.stack([state.base for state, _ in rows]),
        features=np.stack([state.features for state, _ in rows]),
        tokens=np.array([token for _, token in rows], dtype=np.int32),
        share=shared.astype(np.int8),
        plain=calm.astype(np.bool_),
        answer=which.astype(np.int32),
    )


def guided_by(push: npt.NDArray[np.float32]) -> Callable[[TaughtState], FloatArray]:
    """Return the scores (k,) that the sentences give a state when each weighs its *push* (m,); all 0 is the base."""
    return lambda state: np.asarray(state.base + np.clip(state.features, -CLAMP, CLAMP) @ push, dtype=np.float32)


def answer(
    teacher: ContrastTeacher,
    messages: Sequence[Message],
    score: Callable[[TaughtState], FloatArray],
    *,
    limit: int,
    temperature: float = 0.0,
    rng: np.random.Generator | None = None,
) -> list[tuple[TaughtState, int]]:
    """Return the states of one answer to *messages* with the token that each chose, -1 where it ended.

    The best of *score*(state), (k,), is taken; above *temperature* 0 *rng* draws.
    """
    states: list[tuple[TaughtState, int]] = []
    state = teacher.begin(messages)
    while True:
        scores = score(state)
        if temperature and rng is not None:
            scores = np.asarray(scores / temperature + rng.gumbel(size=len(scores)), dtype=np.float32)
        token = int(state.candidates[scores.argmax()])
        ended = teacher.tokenizer.is_end(token)
        states.append((state, -1 if ended else token))
        if ended or len(states) == limit:
            return states
        state = teacher.step(token)


def _dialogue(
    teacher: ContrastTeacher, plan: Plan, shares: npt.NDArray[np.int8], number: int
) -> list[tuple[list[tuple[TaughtState, int]], int, bool]]:
    """Return the states of one or two answers in a row, what their prompts are for, and whether they are plain."""
    rng = np.random.default_rng((plan.seed, number))
    push, temperature = _guidance(rng, len(plan.sentences))
    first = number % len(plan.prompts)
    same = np.flatnonzero(shares == shares[first])
    chosen = [first] if rng.random() >= _HISTORY_SHARE else [int(rng.choice(same)), first]
    messages: list[Message] = []
    found: list[tuple[list[tuple[TaughtState, int]], int, bool]] = []
    for prompt in chosen:
        text = plan.prompts[prompt]
        messages.append(Message(role="user", content=text.lower() if rng.random() < _LOWER_SHARE else text))
        states = answer(teacher, messages, guided_by(push), limit=plan.answer_tokens, temperature=temperature, rng=rng)
        tokens = tuple(token for _, token in states if token >= 0)
        spoken = b"".join(teacher.tokenizer.piece(token) for token in tokens).decode("utf-8", "replace")
        messages.append(Message(role="assistant", content=spoken, tokens=tokens))
        found.append((states, int(shares[first]), not push.any()))
    return found


def _guidance(rng: np.random.Generator, sentences: int) -> tuple[npt.NDArray[np.float32], float]:
    """Return the push (m,) and the temperature of one answer: plain and greedy, or guided by mostly one sentence."""
    push = np.zeros(sentences, dtype=np.float32)
    if rng.random() < _PLAIN_SHARE:
        return push, 0.0
    push[rng.integers(sentences)] = _STRENGTHS[rng.integers(len(_STRENGTHS))]
    if sentences > 1 and rng.random() < 0.15:
        push[rng.integers(sentences)] += 0.7
    return push, _TEMPERATURE if rng.random() < 0.5 else 0.0


def harvest(
    teacher: ContrastTeacher, plan: Plan, folder: HarvestFolder, *, parts: int, progress: Callable[[int], None]
) -> None:
    """Fill *folder* with those of its first *parts* parts that are missing; *progress* hears how many are there."""
    for number in range(folder.finished(), parts):
        progress(number)
        folder.save(number, harvest_part(teacher, plan, number))
    progress(max(parts, folder.finished()))
