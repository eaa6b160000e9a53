"""Runs every completion of the pairs through the base model once and keeps on disk what training needs of it.

A folder with memory-mapped arrays, one row for each token of a completion (N rows in all):

    hidden.npy      (N, d) float16      the base's last hidden state before the token
    candidates.npy  (N, K + 1) int32    column 0 the token itself, then the K most likely others, best first
    scores.npy      (N, K + 1) float32  their log-probabilities under the base, in nats
    harvest.json    of what it is a harvest, and how many completions are done

The size is known before anything is written. A harvest that was interrupted, even by a kill, goes on where it was.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from padlite.errors import BackendError, DecodingCancelled, PadliteError
from padlite.scoring import log_normalizer, top_k
from padlite.seams import FloatArray, KnownTexts, TokenArray
from padlite.whole_files import write_whole
from padlite_training.completions import Completions
from padlite_training.pairs.reading import Pair, PairsError

CANDIDATES = 32
SAVE_EVERY_S = 2.0
MARGIN = 64 * 2**20
"""Bytes that must stay free beside the harvest."""

_RECORD = "harvest.json"

Arrays: TypeAlias = tuple[npt.NDArray[np.float16], npt.NDArray[np.int32], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer in its conversation, as token ids: *answer* follows *prompt*."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HarvestPlan:
    """What has to be evaluated: distinct *completions*, and for each pair the numbers of its two, *sides* (P, 2)."""

    completions: tuple[Completion, ...]
    sides: npt.NDArray[np.int64]
    candidates: int

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """The first row of each completion, and the end of the last one, (C + 1,)."""
        return np.cumsum([0, *(len(each.answer) for each in self.completions)], dtype=np.int64)

    @property
    def states(self) -> int:
        """N."""
        return int(self.starts[-1])

    def size_bytes(self, hidden_size: int) -> int:
        """Return how much room the arrays take on disk."""
        return self.states * (2 * hidden_size + 8 * (self.candidates + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairHarvest:
    """A finished harvest: the arrays of the module's description, and *sides* and *starts* of its plan."""

    hidden: npt.NDArray[np.float16]
    candidates: npt.NDArray[np.int32]
    scores: FloatArray
    starts: npt.NDArray[np.int64]
    sides: npt.NDArray[np.int64]


def plan_harvest(path: Path, pairs: Sequence[Pair], texts: Completions, *, candidates: int, room: int) -> HarvestPlan:
    """Return the plan for *pairs* (of the file *path*); a completion that several pairs share is in it once.

    Raises PairsError that names each pair whose conversation is longer than *room* tokens.
    """
    prompts = {pair.messages: tuple(texts.prompt(pair.messages)) for pair in pairs}
    numbers: dict[Completion, int] = {}
    sides = np.empty((len(pairs), 2), dtype=np.int64)
    longest = []
    for at, pair in enumerate(pairs):
        both = [
            Completion(prompt=prompts[pair.messages], answer=tuple(texts.answer(text)))
            for text in (pair.chosen, pair.rejected)
        ]
        longest.append((pair.line, max(len(each.prompt) + len(each.answer) for each in both)))
        sides[at] = [numbers.setdefault(each, len(numbers)) for each in both]
    require_room(path, longest, room, remedy="shorten these pairs, or set a larger --context-length")
    return HarvestPlan(completions=tuple(numbers), sides=sides, candidates=candidates)


def require_room(path: Path, longest: Iterable[tuple[int, int]], room: int, *, remedy: str) -> None:
    """Raise PairsError (of the file *path*) that names each line of *longest* (line, tokens) beyond *room* tokens."""
    problems = [
        f"line {line}: {tokens:,} tokens, more than the context of {room:,}"
        for line, tokens in longest
        if tokens > room
    ]
    if problems:
        raise PairsError(path, problems, remedy=remedy)


def require_disk_space(folder: Path, needed: int) -> None:
    """Raise PadliteError unless *needed* bytes and a margin are free where *folder* is."""
    free = shutil.disk_usage(folder).free
    if needed + MARGIN > free:
        raise PadliteError(
            f"the harvest takes {needed / 1e6:,.0f} MB on disk, but only {free / 1e6:,.0f} MB are free in {folder}",
            remedy="free some space, choose another --out, or keep fewer --candidates",
        )


class Harvester:
    """Makes or goes on with the harvest of *plan* in *folder*, for the base model whose file has *base_sha256*."""

    def __init__(self, folder: Path, plan: HarvestPlan, *, hidden_size: int, base_sha256: str) -> None:
        self.folder, self.plan = folder, plan
        self._width = hidden_size
        self.fingerprint = _fingerprint(plan, base_sha256)
        self.done = self._done()

    @property
    def resumable(self) -> bool:
        """Whether something of this harvest is there."""
        return self.done > 0

    def prepare(self) -> None:
        """Make room on disk for all arrays. Raises PadliteError if it can't be had, before anything is evaluated."""
        if self.done:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self._shapes():
            (self.folder / name).unlink(missing_ok=True)
        require_disk_space(self.folder, self.plan.size_bytes(self._width))
        self._save(0)
        for name, (dtype, width) in self._shapes().items():
            array = np.lib.format.open_memmap(
                self.folder / name, mode="w+", dtype=dtype, shape=(self.plan.states, width)
            )
            del array
            _reserve(self.folder / name)

    def run(
        self,
        base: KnownTexts,
        *,
        progress: Callable[[int], None] = lambda done: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> PairHarvest:
        """Evaluate what is missing and return the harvest; *progress* gets the number of completions done.

        Raises DecodingCancelled soon after *cancelled* turns true; what was done is kept.
        """
        self.prepare()
        arrays = self._open("r+")
        starts, saved = self.plan.starts, time.monotonic()
        scratch = np.empty(base.vocabulary_size, dtype=np.float32)
        try:
            for number in range(self.done, len(self.plan.completions)):
                if cancelled():
                    raise DecodingCancelled("stopped", remedy="")
                self._evaluate(base, number, arrays, int(starts[number]), scratch, cancelled)
                self.done = number + 1
                progress(self.done)
                if time.monotonic() - saved > SAVE_EVERY_S:
                    self._flush(arrays)
                    saved = time.monotonic()
        finally:
            self._flush(arrays)
        hidden, candidates, scores = self._open("r")
        return PairHarvest(
            hidden=hidden, candidates=candidates, scores=scores, starts=starts, sides=self.plan.sides
        )  # fmt: skip

    def _evaluate(
        self,
        base: KnownTexts,
        number: int,
        arrays: Arrays,
        row: int,
        scratch: FloatArray,
        cancelled: Callable[[], bool],
    ) -> None:
        """Fill the rows of one completion."""
        hidden, candidates, scores = arrays
        completion = self.plan.completions[number]
        tokens = [*completion.prompt, *completion.answer[:-1]]
        states = base.states(tokens, first=len(completion.prompt) - 1, cancelled=cancelled)
        for token, state in zip(completion.answer, states, strict=True):
            chosen = with_others(state.logits, token, self.plan.candidates)
            hidden[row] = state.hidden
            candidates[row] = chosen
            scores[row] = state.logits[chosen] - np.float32(
                log_normalizer(state.logits, scratch, peak=state.logits.max())
            )
            if not (np.isfinite(hidden[row]).all() and np.isfinite(scores[row]).all()):
                raise BackendError(
                    "the base model's numbers are not finite, or too large for float16",
                    remedy="check the GGUF with `padlite chat --plain`, or use another quantization of it",
                )
            row += 1

    def _shapes(self) -> dict[str, tuple[type, int]]:
        width = self.plan.candidates + 1
        return {
            "hidden.npy": (np.float16, self._width),
            "candidates.npy": (np.int32, width),
            "scores.npy": (np.float32, width),
        }

    def _open(self, mode: Literal["r", "r+"]) -> Arrays:
        hidden, candidates, scores = (np.load(self.folder / name, mmap_mode=mode) for name in self._shapes())
        return hidden, candidates, scores

    def _flush(self, arrays: Arrays) -> None:
        """Write what is done to disk, and only then that it is done."""
        for array in arrays:
            if isinstance(array, np.memmap):
                array.flush()
        self._save(self.done)

    def _save(self, done: int) -> None:
        record = {"fingerprint": self.fingerprint, "completions": len(self.plan.completions), "done": done}
        write_whole(self.folder / _RECORD, json.dumps(record).encode())

    def _done(self) -> int:
        """Return how many completions a harvest of the same plan in the folder has done."""
        try:
            record = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0
        if not isinstance(record, dict) or record.get("fingerprint") != self.fingerprint:
            return 0
        done = record.get("done")
        whole = all((self.folder / name).is_file() for name in self._shapes())
        return done if whole and isinstance(done, int) and 0 <= done <= len(self.plan.completions) else 0


def with_others(logits: FloatArray, token: int, k: int) -> TokenArray:
    """Return *token* and the *k* best other tokens of *logits* (V,), best first."""
    best = top_k(logits, k + 1)
    others = best[best != token][:k]
    return np.concatenate([np.array([token], dtype=np.int64), others])


def file_sha256(path: Path) -> str:
    """Return the sha256 of the file *path*."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fingerprint(plan: HarvestPlan, base_sha256: str) -> str:
    digest = hashlib.sha256(f"{base_sha256} {plan.candidates}".encode())
    for completion in plan.completions:
        digest.update(repr((completion.prompt, completion.answer)).encode())
    return digest.hexdigest()


def _reserve(path: Path) -> None:
    """Let the file system set all of the file's bytes aside, so that a full disk shows now and not in mid-harvest."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise PadliteError(
                f"the disk has no room for the harvest: {error.strerror}", remedy="free some space"
            ) from error
