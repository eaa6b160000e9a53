"""Runs a reward LM in ONNX Runtime: tokens in, scores of k candidates out, with a KV cache that stays where it is.

One buffer per layer is bound as past and as present, so that nothing is copied and going back costs nothing. A file is
opened only after `preflight` and `onnx_lm_reader` have accepted it. Knows neither text nor preferences.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from padlite.backends import preflight
from padlite.backends.onnx_lm_reader import CANDIDATES, MASK, SCORES, TOKENS, LmInfo, read_lm
from padlite.backends.onnx_runtime import Session, first_line, open_session, zeros
from padlite.backends.reward_tokenizer import RewardTokenizer, tokenizer_path
from padlite.errors import BackendError, ContextFullError, DecodingCancelled, RewardMismatchError
from padlite.seams import Dimension, FloatArray, TokenArray

SMALL = 60_000_000  # weights up to which one thread is as fast as several
_CHUNK = 128  # tokens between two looks at whether to stop


class OnnxLm:
    """A reward LM, open and ready to score; a context manager that closes it.

    It holds one text: use it for one conversation, from one thread, and `with_own_cache` for others.
    """

    def __init__(self, session: Session, info: LmInfo, context_length: int, path: Path) -> None:
        self._session: Session | None = session
        self.info: LmInfo = info
        self.path: Path = path
        self.provider: str = session.get_providers()[0]
        self.context_length: int = min(context_length or info.context_length, info.context_length)
        self.evaluated_tokens: int = 0
        self.cached_tokens: int = 0
        self._binding = session.io_binding()
        shape = (1, info.kv_heads, max(self.context_length, info.window), info.head_size)
        self._buffers = [zeros(shape) for _ in info.caches]
        for buffer, (past, present) in zip(self._buffers, info.caches, strict=True):
            self._binding.bind_ortvalue_input(past, buffer)
            self._binding.bind_ortvalue_output(present, buffer)
        self._mask: TokenArray = np.ones((1, self.context_length), dtype=np.int64)

    @classmethod
    def open(cls, path: Path, *, device: str = "auto", context_length: int = 0, threads: int = 1) -> Self:
        """Open the reward LM at *path* with room for *context_length* tokens (0, or more than it was made for: all).

        *threads* are used only by a model that is not small. It runs on the CPU whatever the machine has: ONNX Runtime
        has no CUDA kernel for GroupQueryAttention in float32. Raises NotFoundError, BackendError (unsafe, damaged or no
        reward LM; 'cuda'), UsageError (unknown device).
        """
        info = read_lm(preflight.inspect(path, kind="lm"))
        if device == "cuda":
            raise BackendError(
                "CUDA was asked for, and a reward LM can't have it: ONNX Runtime's attention in float32 is for the CPU",
                remedy="use the device 'auto': the base model on the GPU, the reward LM on the CPU",
            )
        session = open_session(
            str(path), "cpu" if device == "auto" else device, threads=threads if info.parameters > SMALL else 1
        )
        return cls(session, info, context_length, path)

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
        if self._session is None:
            raise _closed()
        return OnnxLm(self._session, self.info, self.context_length, self.path)

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
        if keep + len(tokens) > self.context_length:
            raise ContextFullError(
                f"the reward LM's context of {self.context_length:,} tokens is full",
                remedy="start a new conversation, or set a larger context_length under [engine] in the profile",
            )
        scores = np.zeros(len(candidates), dtype=np.float32)
        for begin in range(0, len(tokens), _CHUNK):
            if cancelled is not None and cancelled():
                raise DecodingCancelled("stopped", remedy="")
            scores = self._evaluate(tokens[begin : begin + _CHUNK], candidates)
        return scores

    def _evaluate(self, tokens: Sequence[int], candidates: TokenArray) -> FloatArray:
        if self._session is None:
            raise _closed()
        binding, size = self._binding, self.cached_tokens + len(tokens)
        scores = zeros((1, len(candidates)))
        try:
            binding.bind_cpu_input(TOKENS, np.asarray(tokens, dtype=np.int64)[np.newaxis])
            binding.bind_cpu_input(MASK, self._mask[:, :size])
            binding.bind_cpu_input(CANDIDATES, np.ascontiguousarray(candidates, dtype=np.int64))
            binding.bind_ortvalue_output(SCORES, scores)
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise BackendError(f"the reward LM failed: {first_line(error)}", remedy="run `padlite doctor`") from error
        self.cached_tokens = size
        self.evaluated_tokens += len(tokens)
        result: FloatArray = scores.numpy()[0].copy()  # a view of memory that ONNX Runtime doesn't keep
        return result

    def close(self) -> None:
        """Free the session and the cache; closing twice is fine."""
        self._session = None
        self._buffers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _closed() -> BackendError:
    return BackendError("the reward LM is closed", remedy="open it again")
