"""The two libraries that run models: do they load at all, do they fit this processor, are they installed whole?

A library that was built for another processor can kill the process that loads it, so it is tried in a process of its
own first. Here llama.cpp and ONNX Runtime are only ever imported inside functions.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from padlite import settings
from padlite.backends import onnx_packages
from padlite.backends.onnx_packages import RuntimeState
from padlite.diagnosis.finding import Fact, Finding, Status, first_line

if TYPE_CHECKING:
    from padlite.backends.onnx_runtime import RuntimeReport

TRIAL_LIMIT_S = 120
DECISIVE = ("AVX2", "FMA", "F16C", "NEON", "DOTPROD")
"""Instruction sets whose absence from the build makes llama.cpp several times slower."""

CUDA_DRIVER = 580
"""The oldest major version of NVIDIA's driver that runs CUDA 13, which onnxruntime-gpu is built for."""

_WORTH = "to run reward heads on this GPU (they are as fast without: docs/install.md)"
_COMPILE = "pip install --force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
_LLAMA_TRIAL = "import llama_cpp; llama_cpp.llama_print_system_info()"
_ONNX_TRIAL = "import onnxruntime; onnxruntime.SessionOptions()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How a library took to being loaded in a process of its own; *reason* is empty when all went well."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaBuild:
    """An installed llama.cpp: the version of llama-cpp-python, and the *features* it was built with."""

    version: str
    features: frozenset[str]
    graphics: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaHere:
    """What this machine has for CUDA: NVIDIA's *driver*, its version or empty, and *wheels* of onnxruntime-gpu."""

    driver: str
    wheels: bool

    @property
    def possible(self) -> bool:
        """Whether ONNX Runtime could run on its GPU."""
        return bool(self.driver) and self.wheels

    @property
    def needs(self) -> Sequence[str]:
        """What must be done before anything is installed, as lines."""
        major = self.driver.partition(".")[0]
        old = major.isdecimal() and int(major) < CUDA_DRIVER
        return (f"first a newer NVIDIA driver: CUDA 13 needs {CUDA_DRIVER}, this is {self.driver}",) if old else ()


def try_llama() -> Trial:
    """Load llama.cpp in another process."""
    return try_in_process(_LLAMA_TRIAL)


def try_onnx_runtime() -> Trial:
    """Load ONNX Runtime in another process, its telemetry off as everywhere in padlite."""
    return try_in_process(f"import padlite; {_ONNX_TRIAL}")


def try_in_process(code: str) -> Trial:
    """Run Python *code* in a process of its own and say how that ended."""
    try:
        ran = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TRIAL_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Trial(reason=f"it didn't load within {TRIAL_LIMIT_S} seconds")
    except OSError as error:
        return Trial(reason=f"no other process can be started: {error.strerror}")
    if ran.returncode == 0:
        return Trial()
    if ran.returncode < 0:
        return Trial(reason=f"loading it ends the process with signal {-ran.returncode}")
    lines = [line for line in ran.stderr.splitlines() if line.strip()]
    return Trial(reason=first_line(lines[-1]) if lines else f"loading it ends with code {ran.returncode}")


def read_llama() -> LlamaBuild:
    """Return the llama.cpp that is installed."""
    from padlite.backends import llama

    return LlamaBuild(
        version=llama.version(),
        features=features_of_system_info(llama.system_info()),
        graphics=llama.supports_gpu(),
    )


def features_of_system_info(text: str) -> frozenset[str]:
    """Return the names that llama.cpp's line of features sets to 1."""
    return frozenset(re.findall(r"(\w+) = 1\b", text))


def judge_llama_trial(trial: Trial) -> Finding:
    """Say that llama.cpp can't be loaded, and why."""
    missing = "No module named 'llama_cpp'" in trial.reason
    return Finding(
        subject="llama.cpp",
        status=Status.FAIL,
        text="llama-cpp-python is not installed" if missing else f"llama-cpp-python can't be loaded: {trial.reason}",
        remedy="pip install llama-cpp-python" if missing else f"compile it for this machine: {_COMPILE}",
    )


def judge_llama(build: LlamaBuild, processor: frozenset[str]) -> Finding:
    """Say how llama.cpp was built, and whether that fits a processor with these instruction sets (empty: unknown)."""
    known = processor & build.features
    lacking = sorted(_instruction_sets(build.features) - processor) if processor else []
    unused = [name for name in DECISIVE if name in processor and name not in build.features]
    text = f"llama-cpp-python {build.version}, built with {' '.join(sorted(build.features)) or 'nothing special'}"
    if "AMX_INT8" in build.features:
        text += "; AMX is left unused, because llama.cpp's code for it crashes in many builds"
    status, remedy = Status.OK, ""
    if lacking and known:
        status, remedy = Status.FAIL, f"compile it for this machine: {_COMPILE}"
        text += f"; this processor lacks {', '.join(lacking)}, so it would crash"
    elif unused:
        status, remedy = Status.WARN, f"compile it for this machine, much faster: {_COMPILE}"
        text += f"; it leaves {', '.join(unused)} of this processor unused"
    facts: dict[str, Fact] = {
        "version": build.version,
        "features": tuple(sorted(build.features)),
        "graphics": build.graphics,
        "unused_features": tuple(sorted(_instruction_sets(processor) - build.features)),
    }
    return Finding(subject="llama.cpp", text=text, status=status, remedy=remedy, facts=facts)


def judge_onnx_trial(trial: Trial, state: RuntimeState | None, cuda: CudaHere) -> Finding:
    """Say that ONNX Runtime can't be loaded, and why; *state* is BROKEN or MISSING if that was seen from outside."""
    if trial.reason.startswith("AttributeError"):
        state = RuntimeState.BROKEN  # there is a module, without what makes it ONNX Runtime
    remedy = f"pip install --force-reinstall {' '.join(onnx_packages.installed()) or onnx_packages.CPU_PACKAGE}"
    if state is not None:
        remedy = "\n".join(_repair(cuda)) if state is RuntimeState.BROKEN else onnx_packages.INSTALL
    return Finding(
        subject="ONNX Runtime",
        status=Status.FAIL,
        text=f"it is {state.value}" if state else f"it can't be loaded: {trial.reason}",
        remedy=remedy,
        facts={"state": state.value if state else ""},
    )


def judge_onnx_runtime(report: "RuntimeReport", cuda: CudaHere) -> Finding:
    """Say how ONNX Runtime is installed and what it uses, and what would let it use this machine's GPU."""
    remedies: dict[RuntimeState, Sequence[str]] = {
        RuntimeState.CPU: (f"{_WORTH}:", *cuda.needs, *onnx_packages.SWAP) if cuda.possible else (),
        RuntimeState.GPU: (),
        RuntimeState.GPU_WITHOUT_CUDA: (*cuda.needs, onnx_packages.ADD_CUDA)
        if cuda.possible
        else onnx_packages.SWAP_BACK,
        RuntimeState.BOTH: _repair(cuda),
    }
    fine = report.state in {RuntimeState.CPU, RuntimeState.GPU}
    used = ", ".join(name.removesuffix("ExecutionProvider") for name in report.providers)
    return Finding(
        subject="ONNX Runtime",
        text=f"{report.version}, {report.state.value}; uses {used}",
        status=Status.OK if fine else Status.WARN,
        remedy="\n".join(remedies[report.state]),
        facts={"version": report.version, "state": report.state.value, "providers": report.providers},
    )


def _repair(cuda: CudaHere) -> Sequence[str]:
    return (*cuda.needs, *onnx_packages.REPAIR_WITH_CUDA) if cuda.possible else onnx_packages.REPAIR


def judge_telemetry(value: str | None) -> Finding:
    """Say whether ONNX Runtime's telemetry is off, from the *value* of the variable that switches it off."""
    off = value == "1"
    return Finding(
        subject="telemetry",
        text="ONNX Runtime's is off; padlite has none"
        if off
        else "ONNX Runtime's is on: ORT_DISABLE_TELEMETRY is not 1",
        status=Status.OK if off else Status.WARN,
        remedy="" if off else "unset ORT_DISABLE_TELEMETRY; padlite then switches it off",
        facts={"off": off},
    )


def telemetry_variable() -> str | None:
    """Return the value of the variable that switches ONNX Runtime's telemetry off."""
    return settings.variable("ORT_DISABLE_TELEMETRY")


def _instruction_sets(features: frozenset[str]) -> frozenset[str]:
    """Leave out what isn't an instruction set of the processor, or isn't listed by every system."""
    from padlite.diagnosis.machine import LINUX_NAMES

    return features & frozenset(LINUX_NAMES.values())
