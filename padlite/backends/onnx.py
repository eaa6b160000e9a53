"""Runs a reward head in ONNX Runtime: V vocabulary, d width of the hidden state, k candidates, m dimensions.

ONNX Runtime is imported when a head is opened, not before. It gets one thread that doesn't spin (its defaults double
the time per token beside llama.cpp), says nothing on the terminal, and opens a file only after `preflight` and
`onnx_head` have. Plain `run` calls are kept: bound buffers save 2 µs of 13 and would hand out arrays that change.

Knows nothing of preference weights: what a person wants of each dimension is decided outside.
"""

import contextlib
import importlib.metadata
import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, cast

import numpy as np

from padlite.backends import onnx_schema, preflight
from padlite.backends.onnx_head import INPUTS, OUTPUT, HeadInfo, Probe, read_head
from padlite.errors import BackendError, RewardMismatchError, UsageError
from padlite.seams import Dimension, FloatArray, Step, TokenArray

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
DEVICES = ("auto", "cpu", "cuda")
PROBE_COSINE = 0.95

_FATAL = 4  # ONNX Runtime's severity that leaves the terminal alone; its errors arrive as exceptions
_CPU_PACKAGE, _GPU_PACKAGE = "onnxruntime", "onnxruntime-gpu"
_REPAIR = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install --force-reinstall --no-deps onnxruntime"
_CUDA_REMEDY = (
    "leave the device at 'auto' or 'cpu', or: pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"
)


class RuntimeState(StrEnum):
    """How ONNX Runtime is installed: its two packages overwrite each other without a word."""

    CPU = "cpu"
    GPU = "gpu"
    GPU_WITHOUT_CUDA = "gpu without CUDA"
    BOTH = "both packages"
    BROKEN = "half removed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeReport:
    """What `runtime_state` found; *remedy* is empty when nothing needs to be done."""

    state: RuntimeState
    version: str
    providers: tuple[str, ...]
    remedy: str


class _Session(Protocol):
    """What is used of onnxruntime.InferenceSession."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, FloatArray | TokenArray], /) -> Sequence[FloatArray]: ...
    def get_providers(self) -> list[str]: ...


class _Options(Protocol):
    """What is used of onnxruntime.SessionOptions."""

    intra_op_num_threads: int
    inter_op_num_threads: int
    log_severity_level: int

    def add_session_config_entry(self, key: str, value: str, /) -> None: ...


class _Runtime(Protocol):
    """What is used of the module onnxruntime."""

    __version__: str

    def SessionOptions(self) -> _Options: ...  # noqa: N802  the library's name
    def InferenceSession(  # noqa: N802  the library's name
        self, model: str | bytes, options: _Options, /, *, providers: Sequence[str], enable_fallback: int
    ) -> _Session: ...
    def get_available_providers(self) -> list[str]: ...
    def set_default_logger_severity(self, severity: int, /) -> None: ...
    def preload_dlls(self) -> None: ...


class OnnxHead:
    """A reward head, open and ready to score candidates; a context manager that closes it. Use it from one thread."""

    def __init__(self, session: _Session, info: HeadInfo) -> None:
        self._session: _Session | None = session
        self._info = info
        self.provider = session.get_providers()[0]

    @classmethod
    def open(cls, path: Path, *, device: str = "auto") -> Self:
        """Open the head at *path* on *device*: 'cpu', 'cuda', or 'auto' for CUDA where it works.

        Raises NotFoundError, BackendError (unsafe, damaged or no head; no CUDA), UsageError (unknown device).
        """
        if device not in DEVICES:
            raise UsageError(f"unknown device {device!r}", remedy=f"use one of {', '.join(DEVICES)}")
        info = read_head(preflight.inspect(path, kind="head"))
        return cls(_open_session(str(path), device), info)

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

    def features(self, step: Step) -> FloatArray:
        """Return the reward of each candidate in each dimension, (k, m): a new array, NaN where the head says so.

        Raises BackendError when the step doesn't fit the head: candidates must be ids below V, *hidden* (d,) float32.
        """
        if self._session is None:
            raise BackendError("the reward head is closed", remedy="open it again")
        inputs: dict[str, FloatArray | TokenArray] = {
            INPUTS[0]: step.hidden[np.newaxis],
            INPUTS[1]: step.candidates[np.newaxis],
        }
        try:
            features: FloatArray = self._session.run((OUTPUT,), inputs)[0][0]
        except Exception as error:
            raise BackendError(
                f"the reward head failed: {_first_line(error)}", remedy="run `padlite doctor`"
            ) from error
        return features

    def close(self) -> None:
        """Free the session; closing twice is fine."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def providers() -> tuple[str, ...]:
    """Return the execution providers that work on this machine, the preferred one first."""
    runtime = _load_runtime()
    return (CUDA, CPU) if CUDA in runtime.get_available_providers() and _cuda_works(runtime) else (CPU,)


def runtime_state() -> RuntimeReport:
    """Return how ONNX Runtime is installed, what works, and how to repair it. Raises nothing."""
    installed = [name for name in (_CPU_PACKAGE, _GPU_PACKAGE) if _is_installed(name)]
    try:
        version, working = _load_runtime().__version__, providers()
    except BackendError as error:
        state = RuntimeState.BROKEN if installed or _is_importable() else RuntimeState.MISSING
        return RuntimeReport(state=state, version="", providers=(), remedy=error.remedy)
    if len(installed) > 1:
        state, remedy = RuntimeState.BOTH, _REPAIR
    elif _GPU_PACKAGE not in installed:
        state, remedy = RuntimeState.CPU, ""
    elif CUDA in working:
        state, remedy = RuntimeState.GPU, ""
    else:
        state = RuntimeState.GPU_WITHOUT_CUDA
        remedy = "it runs on the CPU; for CUDA: pip install 'onnxruntime-gpu[cuda,cudnn]' and a current NVIDIA driver"
    return RuntimeReport(state=state, version=version, providers=working, remedy=remedy)


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _is_importable() -> bool:
    return importlib.util.find_spec("onnxruntime") is not None


def _load_runtime() -> _Runtime:
    """Import ONNX Runtime; raise BackendError when it is missing or half removed.

    Its telemetry is off by now: importing padlite has set ORT_DISABLE_TELEMETRY.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError("ONNX Runtime can't be imported", remedy=_REPAIR) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise BackendError("ONNX Runtime is half removed (onnxruntime and onnxruntime-gpu overlap)", remedy=_REPAIR)
    return cast(_Runtime, onnxruntime)


def _open_session(model: str | bytes, device: str) -> _Session:
    """Open *model* on *device*; 'auto' takes the CPU without a word where CUDA doesn't work."""
    runtime = _load_runtime()
    compiled = CUDA in runtime.get_available_providers()
    if device == "cuda" and not compiled:
        raise BackendError("CUDA was asked for, but this ONNX Runtime is built without it", remedy=_CUDA_REMEDY)
    if device != "cpu" and compiled:
        session = _try_cuda(runtime, model)
        if session is not None:
            return session
        if device == "cuda":
            raise BackendError("CUDA was asked for, but ONNX Runtime can't use it here", remedy=_CUDA_REMEDY)
    try:
        return runtime.InferenceSession(model, _options(runtime), providers=[CPU], enable_fallback=0)
    except Exception as error:
        raise BackendError(
            f"ONNX Runtime can't open the reward model: {_first_line(error)}", remedy="copy or download it again"
        ) from error


def _options(runtime: _Runtime) -> _Options:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _FATAL
    return options


def _try_cuda(runtime: _Runtime, model: str | bytes) -> _Session | None:
    """Return a session that really runs on CUDA, or None, saying nothing either way."""
    runtime.set_default_logger_severity(_FATAL)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        runtime.preload_dlls()
        session = runtime.InferenceSession(model, _options(runtime), providers=[CUDA, CPU], enable_fallback=0)
        if session.get_providers()[0] == CUDA:
            return session
    return None


def _cuda_works(runtime: _Runtime) -> bool:
    """Try CUDA on a graph of one operator: that it is compiled in doesn't say that it can be used."""
    model = onnx_schema.new_model()
    model.ir_version = 10
    model.opset_import.add().version = 21
    model.graph.name = "probe"
    node = model.graph.node.add()
    node.op_type = "Identity"
    node.input.append("x")
    node.output.append("y")
    for value, name in ((model.graph.input.add(), "x"), (model.graph.output.add(), "y")):
        value.name = name
        value.type.tensor_type.elem_type = onnx_schema.FLOAT
        value.type.tensor_type.shape.dim.add().dim_value = 1
    return _try_cuda(runtime, onnx_schema.serialize_model(model)) is not None


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


def _first_line(error: Exception) -> str:
    """Return what ONNX Runtime says, without its source lines and at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
