"""Runs a reward LM in ONNX Runtime: tokens in, scores of k candidates out, with a KV cache that stays where it is.

One buffer per layer is bound as past and as present, so that nothing is copied and going back costs nothing. Tokens
become a hidden state (d,) in one session and the state becomes scores in another, so that a token can be evaluated in
the background while the base finds the candidates. A file is opened only after `preflight` and `onnx_lm_reader` have
accepted it. Knows neither text nor preferences.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from padlite.backends import onnx_schema, preflight
from padlite.backends.onnx_lm_reader import CANDIDATES, HIDDEN, MASK, SCORES, STATE, TOKENS, LmInfo, read_lm, split
from padlite.backends.onnx_runtime import Session, first_line, open_session, zeros
from padlite.backends.reward_tokenizer import RewardTokenizer, tokenizer_path
from padlite.errors import BackendError, ContextFullError, DecodingCancelled, RewardMismatchError
from padlite.seams import Dimension, FloatArray, TokenArray

SMALL = 60_000_000  # weights up to which one thread is as fast as several
_CHUNK = 128  # tokens between two looks at whether to stop


class _Sessions(NamedTuple):
    """What all that share one file share: both sessions, and the thread for the background, if there is to be one."""

    evaluating: Session
    scoring: Session
    background: ThreadPoolExecutor | None


class _Begun(NamedTuple):
    """What runs in the background, or ran: *tokens* after the first *keep*."""

    tokens: list[int]
    keep: int
    run: "Future[None]"


class OnnxLm:
    """A reward LM, open and ready to score; a context manager that closes it.

    It holds one text: use it for one conversation, from one thread, and `with_own_cache` for others. *threads* is how
    many it keeps busy while it evaluates a token.
    """

    def __init__(self, sessions: _Sessions, info: LmInfo, context_length: int, path: Path, *, threads: int) -> None:
        self._sessions: _Sessions | None = sessions
        self.info: LmInfo = info
        self.path: Path = path
        self.threads: int = threads
        self.provider: str = sessions.evaluating.get_providers()[0]
        self.context_length: int = min(context_length or info.context_length, info.context_length)
        self.evaluated_tokens: int = 0
        self.cached_tokens: int = 0
        self._begun: _Begun | None = None
        self._evaluating, self._scoring = sessions.evaluating.io_binding(), sessions.scoring.io_binding()
        shape = (1, info.kv_heads, max(self.context_length, info.window), info.head_size)
        self._buffers = [zeros(shape) for _ in info.caches]
        for buffer, (past, present) in zip(self._buffers, info.caches, strict=True):
            self._evaluating.bind_ortvalue_input(past, buffer)
            self._evaluating.bind_ortvalue_output(present, buffer)
        self._hidden = zeros((1, info.hidden_size))
        self._evaluating.bind_ortvalue_output(HIDDEN, self._hidden)
        self._scoring.bind_ortvalue_input(STATE, self._hidden)
        self._mask: TokenArray = np.ones((1, self.context_length), dtype=np.int64)

    @classmethod
    def open(cls, path: Path, *, device: str = "auto", context_length: int = 0, threads: int = 1) -> Self:
        """Open the reward LM at *path* with room for *context_length* tokens (0, or more than it was made for: all).

        Of *threads*, those of the base too, it takes one if it is small, else half of them. With a single one it never
        runs in the background. It runs on the CPU whatever the machine has: ONNX Runtime has no CUDA kernel for
        GroupQueryAttention in float32. Raises NotFoundError, BackendError (unsafe, damaged or no reward LM; 'cuda'),
        UsageError (unknown device).
        """
        model = preflight.inspect(path, kind="lm")
        info = read_lm(model)
        if device == "cuda":
            raise BackendError(
                "CUDA was asked for, and a reward LM can't have it: ONNX Runtime's attention in float32 is for the CPU",
                remedy="use the device 'auto': the base model on the GPU, the reward LM on the CPU",
            )
        own = max(1, threads // 2) if info.parameters > SMALL else 1
        evaluating, scoring = (
            open_session(
                onnx_schema.serialize_model(part), "cpu" if device == "auto" else device, threads=own,
                weights=path.absolute().parent,
            )
            for part in split(model, info)
        )  # fmt: skip
        background = ThreadPoolExecutor(1, thread_name_prefix="padlite-reward") if threads > 1 else None
        return cls(_Sessions(evaluating, scoring, background), info, context_length, path, threads=own)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """What it scores: one dimension."""
        return (self.info.dimension,)

    def reads_tokens_of(self, *, vocabulary_size: int, tokenizer_sha256: str) -> bool:
        """Tell whether it reads the very tokens of the base model with these properties."""
        return tokenizer_sha256 == self.info.tokenizer_sha256 and vocabulary_size <= self.info.vocabulary_size

    def own_tokenizer(self) -> RewardTokenizer:
        """Return its own tokenizer, for a base with another one.

        Raises RewardMismatchError if it can't be used with one, NotFoundError and BackendError if the tokenizer can't
        be read (`RewardTokenizer.open`).
        """
        if not self.info.tokenizer_json_sha256:
            raise RewardMismatchError(
                "the reward LM has another tokenizer than this base, and doesn't bring its own along",
                remedy="export it again: padlite export reward … --normalized",
            )
        if not self.info.normalized:
            raise RewardMismatchError(
                "the reward LM has another tokenizer than this base, and gives no log-probabilities, which that needs",
                remedy="export it again: padlite export reward … --normalized",
            )
        return RewardTokenizer.open(
            tokenizer_path(self.path),
            sha256=self.info.tokenizer_json_sha256,
            vocabulary_size=self.info.vocabulary_size,
            end_text=self.info.end_text,
        )

    def with_own_cache(self) -> "OnnxLm":
        """Return the same reward LM for another text: only the cache is its own. Close this one last."""
        return OnnxLm(self._open(), self.info, self.context_length, self.path, threads=self.threads)

    def advance(self, tokens: Sequence[int], *, keep: int) -> None:
        """Begin to evaluate *tokens* after the first *keep* it holds in the background; the next `scores` waits for it.

        A hint: what it holds changes when `scores` asks for these tokens, which then says what failed. It does nothing
        where one thread must do, and for tokens that don't fit.
        """
        self._settle()
        sessions, size = self._sessions, keep + len(tokens)
        if sessions is None or sessions.background is None or keep > self.cached_tokens or size > self.context_length:
            return
        self.cached_tokens = keep  # what comes after is overwritten
        run = sessions.background.submit(self._run, sessions.evaluating, list(tokens), size)
        self._begun = _Begun(list(tokens), keep, run)

    def scores(
        self,
        tokens: Sequence[int],
        candidates: TokenArray,
        *,
        keep: int,
        cancelled: Callable[[], bool] | None = None,
    ) -> FloatArray:
        """Return the score (k,) of each of *candidates* after the first *keep* tokens it holds and then *tokens*.

        It holds these afterwards. There must be at least one token, and ids below V. Raises ContextFullError, and
        DecodingCancelled soon after *cancelled* turns true; what was evaluated until then is kept.
        """
        if not tokens or not 0 <= keep <= self.cached_tokens:
            raise ValueError("nothing to evaluate, or more to keep than there is")
        self.cached_tokens = keep
        begun = self._settle()
        if begun is not None and begun.keep == keep and begun.tokens == list(tokens[: len(begun.tokens)]):
            begun.run.result()
            self.cached_tokens += len(begun.tokens)
        if keep + len(tokens) > self.context_length:
            raise ContextFullError(
                f"the reward LM's context of {self.context_length:,} tokens is full",
                remedy="start a new conversation, or set a larger context_length under [engine] in the profile",
            )
        for begin in range(self.cached_tokens - keep, len(tokens), _CHUNK):
            if cancelled is not None and cancelled():
                raise DecodingCancelled("stopped", remedy="")
            self._evaluate(tokens[begin : begin + _CHUNK])
        return self._score(candidates)

    def _settle(self) -> _Begun | None:
        """Wait for what runs in the background and return it, over now, or None if nothing did."""
        begun = self._begun
        if begun is not None and begun.run.exception() is None:
            self.evaluated_tokens += len(begun.tokens)
        self._begun = None  # not before: an interrupted wait must be made up for
        return begun

    def _evaluate(self, tokens: Sequence[int]) -> None:
        """Append *tokens* to what it holds, and keep the hidden state after them."""
        size = self.cached_tokens + len(tokens)
        self._run(self._open().evaluating, tokens, size)
        self.cached_tokens = size
        self.evaluated_tokens += len(tokens)

    def _run(self, session: Session, tokens: Sequence[int], size: int) -> None:
        """Evaluate *tokens*, the last of *size*; on either thread, so nothing else of this object may be changed."""
        with _one_clear_error():
            self._evaluating.bind_cpu_input(TOKENS, np.asarray(tokens, dtype=np.int64)[np.newaxis])
            self._evaluating.bind_cpu_input(MASK, self._mask[:, :size])
            session.run_with_iobinding(self._evaluating)

    def _score(self, candidates: TokenArray) -> FloatArray:
        """Return the score (k,) of each of *candidates* in the hidden state."""
        sessions, scores = self._open(), zeros((1, len(candidates)))
        with _one_clear_error():
            self._scoring.bind_cpu_input(CANDIDATES, np.ascontiguousarray(candidates, dtype=np.int64))
            self._scoring.bind_ortvalue_output(SCORES, scores)
            sessions.scoring.run_with_iobinding(self._scoring)
        result: FloatArray = scores.numpy()[0].copy()  # a view of memory that ONNX Runtime doesn't keep
        return result

    def _open(self) -> _Sessions:
        if self._sessions is None:
            raise BackendError("the reward LM is closed", remedy="open it again")
        return self._sessions

    def close(self) -> None:
        """Free the sessions and the cache, when what runs in the background is over; closing twice is fine."""
        self._settle()
        self._sessions = None
        self._buffers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def _one_clear_error() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise BackendError(f"the reward LM failed: {first_line(error)}", remedy="run `padlite doctor`") from error
