"""What of ONNX Runtime works here, and opening a file with it: quietly, on few threads.

It is imported when something is opened, not before. A CUDA that is compiled in needn't be usable: that is found out by
trying. One thread, or few that don't spin, because the defaults double the time per token beside llama.cpp. Knows
nothing of reward models, nor whether a file is safe to open (`preflight`).
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from padlite.backends import onnx_packages, onnx_schema
from padlite.backends.onnx_packages import RuntimeState
from padlite.errors import BackendError, UsageError
from padlite.options import DEVICES
from padlite.seams import FloatArray, TokenArray

HalfArray = npt.NDArray[np.float16]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_FATAL = 4  # ONNX Runtime's severity that leaves the terminal alone; its errors arrive as exceptions
_CUDA_REMEDY = f"use the device 'auto' or 'cpu', or: {' && '.join(onnx_packages.SWAP)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeReport:
    """How ONNX Runtime is installed, and what of it works, the preferred provider first."""

    state: RuntimeState
    version: str
    providers: tuple[str, ...]


class Buffer(Protocol):
    """What is used of onnxruntime.OrtValue: an array where the session runs, which stays there."""

    def numpy(self) -> FloatArray:
        """Return its content."""
        ...


class Session(Protocol):
    """What is used of onnxruntime.InferenceSession."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, FloatArray | TokenArray], /) -> Sequence[FloatArray]:
        """Return the outputs asked for, new arrays."""
        ...

    def get_providers(self) -> list[str]:
        """Return what the session runs on, the one that is tried first at the head."""
        ...

    def io_binding(self) -> "Binding":
        """Return a binding to fill."""
        ...

    def run_with_iobinding(self, binding: "Binding", options: "RunOptions | None" = None, /) -> None:
        """Read and write the arrays that *binding* names; see `run_options`."""
        ...


class RunOptions(Protocol):
    """What is used of onnxruntime.RunOptions."""

    log_severity_level: int

    def add_run_config_entry(self, key: str, value: str, /) -> None:
        """Set what has no attribute."""
        ...


class Binding(Protocol):
    """What is used of onnxruntime.IOBinding."""

    def bind_input(
        self, name: str, device: str, device_id: int, element_type: type, shape: Sequence[int], address: int, /
    ) -> None:
        """Read the input *name* from *address*."""
        ...

    def bind_output(
        self, name: str, device: str, device_id: int, element_type: type, shape: Sequence[int], address: int, /
    ) -> None:
        """Write the output *name* to *address*."""
        ...

    def bind_cpu_input(self, name: str, value: FloatArray | TokenArray, /) -> None:
        """Let the next run read a copy of *value*."""
        ...

    def bind_ortvalue_input(self, name: str, value: Buffer, /) -> None:
        """Let every run from now on read *value* itself."""
        ...

    def bind_ortvalue_output(self, name: str, value: Buffer, /) -> None:
        """Let every run from now on write into *value*."""
        ...


class _Options(Protocol):
    """What is used of onnxruntime.SessionOptions."""

    intra_op_num_threads: int
    inter_op_num_threads: int
    log_severity_level: int

    def add_session_config_entry(self, key: str, value: str, /) -> None: ...
    def add_external_initializers(self, names: list[str], values: list[Buffer], /) -> None: ...


class _Values(Protocol):
    """What is used of the class onnxruntime.OrtValue."""

    def ortvalue_from_numpy(self, value: "FloatArray | HalfArray", device: str, number: int, /) -> Buffer: ...


class _Runtime(Protocol):
    """What is used of the module onnxruntime."""

    __version__: str
    OrtValue: _Values

    def SessionOptions(self) -> _Options: ...  # noqa: N802  the library's name
    def RunOptions(self) -> RunOptions: ...  # noqa: N802  the library's name
    def InferenceSession(  # noqa: N802  the library's name
        self, model: str | bytes, options: _Options, /, *, providers: Sequence[str], enable_fallback: int
    ) -> Session: ...
    def get_available_providers(self) -> list[str]: ...
    def set_default_logger_severity(self, severity: int, /) -> None: ...
    def preload_dlls(self) -> None: ...


def providers() -> tuple[str, ...]:
    """Return the execution providers that work on this machine, the preferred one first."""
    runtime = _load_runtime()
    return (CUDA, CPU) if CUDA in runtime.get_available_providers() and _cuda_works(runtime) else (CPU,)


def runtime_state() -> RuntimeReport:
    """Return how ONNX Runtime is installed and what works. Raises BackendError when it can't be imported."""
    version, working = _load_runtime().__version__, providers()
    state = onnx_packages.state_of(onnx_packages.installed(), cuda_works=CUDA in working)
    return RuntimeReport(state=state, version=version, providers=working)


def _load_runtime() -> _Runtime:
    """Import ONNX Runtime; raise BackendError when it is missing or half removed.

    Its telemetry is off by now: importing padlite has set ORT_DISABLE_TELEMETRY.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError("ONNX Runtime can't be imported", remedy=" && ".join(onnx_packages.REPAIR)) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise BackendError(
            "ONNX Runtime is half removed (onnxruntime and onnxruntime-gpu overlap)",
            remedy=" && ".join(onnx_packages.REPAIR),
        )
    return cast(_Runtime, onnxruntime)


def open_session(
    model: str | bytes,
    device: str,
    *,
    threads: int = 1,
    weights: Path | None = None,
    arrays: Mapping[str, HalfArray] = MappingProxyType({}),
) -> Session:
    """Open *model* on *device*; 'auto' takes the CPU without a word where CUDA doesn't work.

    *model* is a path, or what a file would hold; its arrays in other files then lie in the folder *weights*, but for
    the *arrays* that are given, which must outlive the session. Raises UsageError for a device of another name,
    BackendError when it can't be opened.
    """
    if device not in DEVICES:
        raise UsageError(f"unknown device {device!r}", remedy=f"use one of {', '.join(DEVICES)}")
    runtime = _load_runtime()
    compiled = CUDA in runtime.get_available_providers()
    if device == "cuda" and not compiled:
        raise BackendError("CUDA was asked for, but this ONNX Runtime is built without it", remedy=_CUDA_REMEDY)
    if device != "cpu" and compiled:
        session = _try_cuda(runtime, model, _options(runtime, weights=weights, arrays=arrays))
        if session is not None:
            return session
        if device == "cuda":
            raise BackendError("CUDA was asked for, but ONNX Runtime can't use it here", remedy=_CUDA_REMEDY)
    try:
        options = _options(runtime, threads, weights, arrays)
        return runtime.InferenceSession(model, options, providers=[CPU], enable_fallback=0)
    except Exception as error:
        raise BackendError(
            f"ONNX Runtime can't open the reward model: {first_line(error)}", remedy="copy or download it again"
        ) from error


def run_options() -> RunOptions:
    """Return options for any number of runs: ONNX Runtime makes new ones for each run that has none, in some 5 µs."""
    options = _load_runtime().RunOptions()
    options.log_severity_level = _FATAL
    options.add_run_config_entry("gpu_graph_id", "-1")  # nothing is captured; asking for an unset entry costs 35 µs
    return options


def bind(session: Session, inputs: Mapping[str, FloatArray | TokenArray], outputs: Mapping[str, FloatArray]) -> Binding:
    """Return a binding of *session* to these arrays, which must outlive it: each run reads and writes them in place."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    for name, array in outputs.items():
        binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    return binding


def zeros(shape: Sequence[int]) -> Buffer:
    """Return an array of zeros (float32) on the CPU, whose memory is taken when it is first used."""
    return _load_runtime().OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype=np.float32), "cpu", 0)


def _options(
    runtime: _Runtime,
    threads: int = 1,
    weights: Path | None = None,
    arrays: Mapping[str, HalfArray] = MappingProxyType({}),
) -> _Options:
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _FATAL
    if weights is not None:
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(weights))
    if arrays:
        values = [runtime.OrtValue.ortvalue_from_numpy(array, "cpu", 0) for array in arrays.values()]
        options.add_external_initializers(list(arrays), values)
    return options


def _try_cuda(runtime: _Runtime, model: str | bytes, options: _Options) -> Session | None:
    """Return a session that really runs on CUDA, or None, saying nothing either way."""
    runtime.set_default_logger_severity(_FATAL)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        runtime.preload_dlls()
        session = runtime.InferenceSession(model, options, providers=[CUDA, CPU], enable_fallback=0)
        if session.get_providers()[0] == CUDA:
            return session
    return None


def _cuda_works(runtime: _Runtime) -> bool:
    """Try CUDA on a graph of one operator: that it is compiled in doesn't say that it can be used."""
    return _try_cuda(runtime, smallest_graph(), _options(runtime)) is not None


def smallest_graph() -> bytes:
    """Return a graph that copies one number, x (1,) float32, to y."""
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
    return onnx_schema.serialize_model(model)


def first_line(error: Exception) -> str:
    """Return what ONNX Runtime says, without its source lines and at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
