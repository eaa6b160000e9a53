"""Which of ONNX Runtime's two packages are installed, what state that leaves it in, and the lines that put it right.

onnxruntime and onnxruntime-gpu put their files into the same folder and overwrite each other without a word; removing
one then leaves a folder without its heart. Found out without importing any of it.
"""

import importlib.metadata
import importlib.util
from collections.abc import Collection
from enum import StrEnum

CPU_PACKAGE, GPU_PACKAGE = "onnxruntime", "onnxruntime-gpu"
_WITH_CUDA = f"{GPU_PACKAGE}[cuda,cudnn]"

INSTALL = f"pip install {CPU_PACKAGE}"
ADD_CUDA = f"pip install '{_WITH_CUDA}'"
SWAP = (f"pip uninstall -y {CPU_PACKAGE}", ADD_CUDA)
"""From the CPU's package to the one with CUDA, and its libraries."""
SWAP_BACK = (f"pip uninstall -y {GPU_PACKAGE}", INSTALL)
REPAIR = (f"pip uninstall -y {CPU_PACKAGE} {GPU_PACKAGE}", INSTALL)
REPAIR_WITH_CUDA = (REPAIR[0], ADD_CUDA)


class RuntimeState(StrEnum):
    """How ONNX Runtime is installed."""

    CPU = "cpu"
    GPU = "gpu"
    GPU_WITHOUT_CUDA = "gpu without CUDA"
    BOTH = "both packages"
    BROKEN = "half removed"
    MISSING = "missing"


def installed() -> tuple[str, ...]:
    """Return which of the two packages pip knows of."""
    return tuple(name for name in (CPU_PACKAGE, GPU_PACKAGE) if _is_installed(name))


def unusable_state(module: str = "onnxruntime") -> RuntimeState | None:
    """Return BROKEN or MISSING if there is nothing of *module* to import, or None."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        return RuntimeState.MISSING
    return RuntimeState.BROKEN if spec.origin is None else None  # a folder without __init__.py


def state_of(packages: Collection[str], *, cuda_works: bool) -> RuntimeState:
    """Return the state of an ONNX Runtime that can be imported, of which pip knows *packages*."""
    if len(packages) > 1:
        return RuntimeState.BOTH
    if GPU_PACKAGE not in packages:
        return RuntimeState.CPU
    return RuntimeState.GPU if cuda_works else RuntimeState.GPU_WITHOUT_CUDA


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
