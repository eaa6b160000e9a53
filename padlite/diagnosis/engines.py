"""The two libraries that run models: do they load at all, do they fit this processor, are they installed whole?

A library that was built for another processor can kill the process that loads it, so it is tried in a process of its
own first. Here llama.cpp and ONNX Runtime are only ever imported inside functions.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from padlite import settings
from padlite.diagnosis.finding import Fact, Finding, Status, first_line

TRIAL_LIMIT_S = 120
DECISIVE = ("AVX2", "FMA", "F16C", "NEON", "DOTPROD")
"""Instruction sets whose absence from the build makes llama.cpp several times slower."""

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


def judge_onnx_trial(trial: Trial) -> Finding:
    """Say that ONNX Runtime can't be loaded, and why."""
    return Finding(
        subject="ONNX Runtime",
        status=Status.FAIL,
        text=f"it can't be loaded: {trial.reason}",
        remedy="pip install --force-reinstall onnxruntime",
    )


def examine_onnx_runtime() -> Finding:
    """Say how ONNX Runtime is installed and what it can use."""
    from padlite.backends.onnx_runtime import RuntimeState, runtime_state

    report = runtime_state()
    broken = report.state in (RuntimeState.BROKEN, RuntimeState.MISSING)
    text = f"{report.version}, {report.state.value}".lstrip(", ")
    return Finding(
        subject="ONNX Runtime",
        text=f"{text}; uses {_short(report.providers)}" if report.providers else text,
        status=Status.FAIL if broken else Status.WARN if report.remedy else Status.OK,
        remedy=report.remedy,
        facts={"version": report.version, "state": report.state.value, "providers": report.providers},
    )


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


def _short(providers: Sequence[str]) -> str:
    return ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
