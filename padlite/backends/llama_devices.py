"""Which processors llama.cpp may use: all that it finds, the CPU alone, or NVIDIA's through CUDA.

Knows devices by the names that llama.cpp gives them (`CUDA0`); nothing of models.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import llama_cpp

from padlite.errors import BackendError
from padlite.options import EngineOptions

# ggml's own functions, which llama_cpp doesn't declare.
_library = llama_cpp.llama_cpp._lib  # pyright: ignore[reportPrivateUsage]
_count, _get, _kind = (_library[f"ggml_backend_dev_{what}"] for what in ("count", "get", "type"))
_name, _description = (_library[f"ggml_backend_dev_{what}"] for what in ("name", "description"))
_registered = _library["ggml_backend_reg_by_name"]
_count.argtypes, _count.restype = [], ctypes.c_size_t
_get.argtypes, _get.restype = [ctypes.c_size_t], ctypes.c_void_p
_kind.argtypes, _kind.restype = [ctypes.c_void_p], ctypes.c_int
_name.argtypes, _name.restype = [ctypes.c_void_p], ctypes.c_char_p
_description.argtypes, _description.restype = [ctypes.c_void_p], ctypes.c_char_p
_registered.argtypes, _registered.restype = [ctypes.c_char_p], ctypes.c_void_p

_CPU = 0  # ggml_backend_dev_type
_WITHOUT_CUDA = (
    "use the device 'auto' or 'cpu', or compile llama.cpp for CUDA: "
    "CMAKE_ARGS=-DGGML_CUDA=on pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python"
)
_WITHOUT_GPU = "use the device 'auto' or 'cpu', or see that nvidia-smi lists a GPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A device other than the CPU: its *name* for llama.cpp, what it is, and llama.cpp's handle of it."""

    name: str
    description: str
    handle: int

    @property
    def is_cuda(self) -> bool:
        """Whether CUDA drives it."""
        return self.name.startswith("CUDA")


def gpus() -> tuple[Gpu, ...]:
    """Return what this build of llama.cpp finds beside the CPU."""
    llama_cpp.llama_backend_init()
    handles = [_get(i) for i in range(_count())]
    return tuple(
        Gpu(name=_name(handle).decode(), description=_description(handle).decode("utf-8", "replace"), handle=handle)
        for handle in handles
        if _kind(handle) != _CPU
    )


def allowed(options: EngineOptions, found: Sequence[Gpu] | None = None) -> Sequence[Gpu] | None:
    """Return which of the GPUs *found* (None: those of this machine) a model may use; None means llama.cpp's choice.

    Raises BackendError where CUDA was asked for and can't be had.
    """
    if options.device == "auto":
        return None
    if options.device == "cpu" or options.gpu_layers == 0:
        return ()
    cuda = [gpu for gpu in (gpus() if found is None else found) if gpu.is_cuda]
    if cuda:
        return cuda
    if not _registered(b"CUDA"):
        raise BackendError("CUDA was asked for, but llama.cpp is built without it", remedy=_WITHOUT_CUDA)
    raise BackendError("CUDA was asked for, but llama.cpp finds no NVIDIA GPU", remedy=_WITHOUT_GPU)


def as_list(chosen: Sequence[Gpu]) -> "ctypes.Array[ctypes.c_void_p]":
    """Return *chosen* as llama.cpp wants it, ended by NULL; keep it until the model is loaded."""
    return (ctypes.c_void_p * (len(chosen) + 1))(*[gpu.handle for gpu in chosen], None)
