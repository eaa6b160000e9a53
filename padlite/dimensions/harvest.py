"""Collects what a head is fitted to: the base's answers to ordinary prompts, plain and guided, state by state.

Every answer follows from the plan and its number alone, and finished answers are kept on disk in parts that are written
whole, so that a harvest that was interrupted (kill -9 too) goes on where it was. Hidden states are those without any
sentence in the context: what the head will see. Shapes: N states, k candidates, m sentences, d width.
"""

import contextlib
import io
import shlex
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from padlite.dimensions.fit import States
from padlite.dimensions.plan import HISTORY_SHARE, PART, Plan
from padlite.dimensions.teacher import ContrastTeacher, TaughtState
from padlite.errors import BackendError, PadliteError, UsageError
from padlite.locking import held
from padlite.private_files import make_private_folder
from padlite.seams import FloatArray, Message
from padlite.whole_files import write_whole

CLAMP = 6.0
_PLAIN_SHARE = 0.3
_LOWER_SHARE = 0.2
_STRENGTHS = (0.7, 1.0, 1.5)
_TEMPERATURE = 0.7
_SHOWN = 40  # characters of a prompt that is refused


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

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from making the same harvest.

        Raises PadliteError if another process makes it, BackendError if nothing can be written there.
        """
        with contextlib.ExitStack() as stack:
            try:
                make_private_folder(self.path.parent.parent)
                make_private_folder(self.path.parent)
                stack.enter_context(held(self.path.with_name(self.path.name + ".lock")))
            except BlockingIOError as error:
                raise PadliteError(
                    "this dimension is being made by another padlite process",
                    remedy="wait until that is done, or stop it: the same command then goes on from there",
                ) from error
            except OSError as error:
                raise self._unwritable(error) from error
            yield

    def require_room(self, hidden_size: int) -> None:
        """Raise BackendError, with both numbers, unless the disk has room for what the harvest lacks."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        needed = self._plan.bytes_needed(hidden_size, finished=self.finished())
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise BackendError(
                f"the harvest needs about {needed / 1e6:,.0f} MB, and {self.path.parent} has {free / 1e6:,.0f} MB free",
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
            make_private_folder(self.path)
            write_whole(self._file(number), buffer.getvalue())
        except OSError as error:
            raise self._unwritable(error) from error

    def load(self, parts: int) -> Harvest:
        """Return the first *parts* parts as one. Raises BackendError if one can't be read."""
        loaded = [self._load(number) for number in range(parts)]
        return Harvest(**{f.name: np.concatenate([getattr(each, f.name) for each in loaded]) for f in fields(Harvest)})

    def remove(self) -> None:
        """Forget the harvest."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _unwritable(self, error: OSError) -> BackendError:
        return BackendError(
            f"the harvest can't be written: {error.strerror}", remedy=f"check the disk of {self.path.parent}"
        )

    def _file(self, number: int) -> Path:
        return self.path / f"{number:04}.npz"

    def _load(self, number: int) -> Harvest:
        try:
            with np.load(io.BytesIO(self._file(number).read_bytes()), allow_pickle=False) as arrays:
                return Harvest(**{field.name: arrays[field.name] for field in fields(Harvest)})
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BackendError(
                f"{self._file(number)} is damaged",
                remedy=f"rm -r {shlex.quote(str(self.path))}, and run the command again",
            ) from error


def require_fitting(teacher: ContrastTeacher, plan: Plan, names: Sequence[str]) -> None:
    """Raise UsageError unless the context has room for every sentence, called *names*, and for every two prompts."""
    encode = teacher.tokenizer.encode
    if teacher.reserved_tokens > teacher.context_length // 2:
        sizes = [len(encode(sentence, special=False)) for sentence in plan.sentences]
        raise UsageError(
            f"the sentence of {names[int(np.argmax(sizes))]!r} has {max(sizes):,} tokens, more than half of the "
            f"{teacher.context_length:,} in which dimensions are made",
            remedy="say it in fewer words",
        )
    room = teacher.prompt_room(answer_tokens=plan.answer_tokens)
    for number, prompt in enumerate(plan.prompts, start=1):
        size = max(len(encode(text, special=False)) for text in (prompt, prompt.lower()))
        if size > room:
            start = prompt if len(prompt) <= _SHOWN else prompt[:_SHOWN] + "…"
            raise UsageError(
                f"prompt {number} ({start}) has {size:,} tokens, and there is room for {room:,} beside a sentence, "
                "another prompt and two answers",
                remedy="shorten the prompt or leave it out",
            )


def harvest_part(teacher: ContrastTeacher, plan: Plan, number: int) -> Harvest:
    """Return the states of the answers of part *number*."""
    shares = plan.shares()
    rows: list[tuple[TaughtState, int]] = []
    marks: list[tuple[int, bool, int]] = []
    for answer in range(number * PART, (number + 1) * PART):
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
    first = plan.first_prompt(number)
    same = np.flatnonzero(shares == shares[first])
    chosen = [first] if rng.random() >= HISTORY_SHARE else [int(rng.choice(same)), first]
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
