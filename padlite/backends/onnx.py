"""Runs a reward head in ONNX Runtime: V vocabulary, d width of the hidden state, k candidates, m dimensions.

A file is opened only after `preflight` and `onnx_head_reader` have accepted it. Inputs and output are bound to buffers
once for each k, which takes a third off the time of a step beside llama.cpp. On a CPU only the dimensions that weigh
anything are computed, by a session for just these, which opens in a millisecond. How much they weigh is used outside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from padlite.backends import onnx_schema as onnx
from padlite.backends import preflight
from padlite.backends.onnx_head import INPUTS, OUTPUT, Probe
from padlite.backends.onnx_head_part import Arrays, arrays_of, with_dimensions
from padlite.backends.onnx_head_reader import HeadInfo, read_head
from padlite.backends.onnx_runtime import CPU, Binding, Session, bind, first_line, open_session, run_options
from padlite.errors import BackendError, RewardMismatchError
from padlite.seams import Dimension, FloatArray, Message, Step, TokenArray
from padlite.text_map import TextMap

PROBE_COSINE = 0.95
_PARTS = 16  # sessions for some of the dimensions that are kept
_BOUND = 256  # buffers that are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A session that computes c dimensions, and which of them each of the m is: *places* (m,)."""

    session: Session
    places: TokenArray
    computed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Buffers:
    """What a step with k candidates reads and writes, bound to the session of *part*."""

    part: _Part
    hidden: FloatArray  # (1, d)
    candidates: TokenArray  # (1, k)
    features: FloatArray  # (1, k, c)
    binding: Binding


class _Opened(NamedTuple):
    """What an open head computes with: the session for all dimensions, and the arrays for others."""

    whole: _Part
    arrays: Arrays


class OnnxHead:
    """A reward head, open and ready to score candidates; a context manager that closes it. Use it from one thread."""

    def __init__(self, session: Session, info: HeadInfo, path: Path, model: onnx.Model) -> None:
        count = len(info.dimensions)
        whole = _Part(session=session, places=np.arange(count), computed=count)
        self._opened: _Opened | None = _Opened(whole, arrays_of(model, info, path))
        self._info, self._model = info, model
        self._run_options = run_options()
        self._parts: dict[bytes, _Part] = {}
        self._buffers: dict[tuple[bytes, int], _Buffers] = {}
        self.provider: str = session.get_providers()[0]

    @classmethod
    def open(cls, path: Path, *, device: str = "auto") -> Self:
        """Open the head at *path* on *device*: 'cpu', 'cuda', or 'auto' for CUDA where it works.

        Raises NotFoundError, BackendError (unsafe, damaged or no head; no CUDA), UsageError (unknown device).
        """
        model = preflight.inspect(path, kind="head")
        info = read_head(model)
        return cls(open_session(str(path), device), info, path, model)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """What the head scores, in the order of its features."""
        return self._info.dimensions

    @property
    def hidden_size(self) -> int:
        """The width d of the hidden state it reads."""
        return self._info.hidden_size

    @property
    def vocabulary_size(self) -> int:
        """The size V of its base model's vocabulary."""
        return self._info.vocabulary_size

    @property
    def tokenizer_sha256(self) -> str:
        """The sha256 of its base model's tokenizer."""
        return self._info.tokenizer_sha256

    @property
    def probe(self) -> Probe:
        """A text and the hidden state that its base model has after it."""
        return self._info.probe

    @property
    def text_map(self) -> TextMap | None:
        """The map from what a person says of themselves to weights, if the head has one."""
        return self._info.text_map

    def require_base(
        self,
        *,
        vocabulary_size: int,
        hidden_size: int,
        tokenizer_sha256: str,
        probe_hidden: Callable[[str], FloatArray],
    ) -> None:
        """Raise RewardMismatchError unless the head was made for the base model with these properties.

        *probe_hidden* returns the base's hidden state (d,), of any length, after the last token of a text (encoded as
        `Probe` says); it is called only if all else fits.
        """
        if hidden_size != self.hidden_size:
            raise _mismatch(f"its base has hidden states of width {self.hidden_size}, this one of {hidden_size}")
        if vocabulary_size != self.vocabulary_size:
            raise _mismatch(f"its base has {self.vocabulary_size} tokens in its vocabulary, this one {vocabulary_size}")
        if tokenizer_sha256 != self.tokenizer_sha256:
            raise _mismatch(
                f"its base has another tokenizer of the same size (sha256 {self.tokenizer_sha256[:8]}… against "
                f"{tokenizer_sha256[:8]}…)"
            )
        cosine = _cosine(probe_hidden(self.probe.text), self.probe.hidden)
        if not cosine >= PROBE_COSINE:
            raise _mismatch(
                f"this base thinks differently from its own (cosine of the probe {cosine:.3f}, needed {PROBE_COSINE})"
            )

    reserved_tokens = 0

    def begin(self, messages: Sequence[Message], prompt: Sequence[int], cancelled: Callable[[], bool]) -> None:
        """Do nothing: a head sees each step by itself."""

    def advance(self, context: Sequence[int], weights: FloatArray) -> None:
        """Do nothing: a head reads what the base comes to."""

    def features(self, step: Step) -> FloatArray:
        """Return the reward of each candidate in each dimension, (k, m): a new array, NaN where the head says so.

        A dimension that weighs nothing may count 0. Raises BackendError when the step doesn't fit the head: candidates
        must be ids below V, *hidden* (d,) float32.
        """
        if self._opened is None:
            raise BackendError("the reward head is closed", remedy="open it again")
        count, weights = len(step.candidates), step.weights.tobytes()
        buffers = self._buffers.get((weights, count)) or self._bind(
            self._part(self._opened, step.weights), weights, count
        )
        try:
            buffers.hidden[0] = step.hidden
            buffers.candidates[0] = step.candidates
            buffers.part.session.run_with_iobinding(buffers.binding, self._run_options)
        except Exception as error:
            raise BackendError(f"the reward head failed: {first_line(error)}", remedy="run `padlite doctor`") from error
        features: FloatArray = buffers.features[0].take(buffers.part.places, axis=1)
        return features

    def _part(self, opened: _Opened, weights: FloatArray) -> _Part:
        """Return what computes the dimensions that *weights* (m,) want, and keep it."""
        (whole, arrays), wanted = opened, np.flatnonzero(weights)
        if self.provider != CPU or not 0 < len(wanted) < whole.computed - 1:
            return whole
        part = self._parts.get(wanted.tobytes())
        if part is None:
            if len(self._parts) == _PARTS:  # they are made again as quickly as one would be chosen
                self._parts.clear()
                self._buffers.clear()
            model = with_dimensions(self._model, arrays.maps, wanted)
            places = np.full(whole.computed, len(wanted))  # the zero behind them
            places[wanted] = np.arange(len(wanted))
            session = open_session(model, "cpu", arrays={"table": arrays.table} if arrays.beside else {})
            part = self._parts[wanted.tobytes()] = _Part(session=session, places=places, computed=len(wanted) + 1)
        return part

    def _bind(self, part: _Part, weights: bytes, count: int) -> _Buffers:
        """Return buffers for *count* candidates at *weights*, and keep them."""
        if len(self._buffers) == _BOUND:
            self._buffers.clear()
        hidden = np.empty((1, self.hidden_size), dtype=np.float32)
        candidates = np.empty((1, count), dtype=np.int64)
        features = np.empty((1, count, part.computed), dtype=np.float32)
        binding = bind(part.session, {INPUTS[0]: hidden, INPUTS[1]: candidates}, {OUTPUT: features})
        buffers = _Buffers(part=part, hidden=hidden, candidates=candidates, features=features, binding=binding)
        self._buffers[weights, count] = buffers
        return buffers

    def close(self) -> None:
        """Free the sessions; closing twice is fine."""
        self._buffers.clear()
        self._parts.clear()
        self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cosine(left: FloatArray, right: FloatArray) -> float:
    """Return the cosine of two hidden states; NaN when one has no direction or another width."""
    if left.shape != right.shape:
        return float("nan")
    a, b = left.astype(np.float64), right.astype(np.float64)
    with np.errstate(all="ignore"):
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _mismatch(reason: str) -> RewardMismatchError:
    return RewardMismatchError(
        f"the reward head was made for another base model: {reason}",
        remedy="use it with the base model it was trained on, or a head made for this one",
    )
