"""The computer: processor, cores, memory, graphics. Facts are read in one half and judged in the other.

Instruction sets go by llama.cpp's names (`AVX2`, `DOTPROD`), whatever the system calls them. Sizes in bytes. psutil is
imported where it is used, so that a broken one is a finding.
"""

import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from padlite.diagnosis.finding import Finding, Status

LINUX_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "ssse3": "SSSE3", "avx": "AVX", "avx2": "AVX2", "f16c": "F16C", "fma": "FMA", "bmi2": "BMI2",
        "avx_vnni": "AVX_VNNI", "avx512f": "AVX512", "avx512vbmi": "AVX512_VBMI", "avx512_vnni": "AVX512_VNNI",
        "avx512_bf16": "AVX512_BF16", "amx_int8": "AMX_INT8",
        "asimd": "NEON", "asimddp": "DOTPROD", "asimdhp": "FP16_VA", "i8mm": "MATMUL_INT8", "sve": "SVE", "sme": "SME",
    }
)  # fmt: skip
MAC_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "avx1_0": "AVX", "avx2_0": "AVX2", "f16c": "F16C", "fma": "FMA", "bmi2": "BMI2", "avx512f": "AVX512",
        "neon": "NEON", "AdvSIMD": "NEON", "FEAT_DotProd": "DOTPROD", "FEAT_FP16": "FP16_VA",
        "FEAT_I8MM": "MATMUL_INT8", "FEAT_SME": "SME",
    }
)  # fmt: skip
BUSY = 0.5  # share of the processor's time that others take, above which llama.cpp's threads wait for each other
COMMAND_LIMIT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """The processor: its instruction sets, the logical cores *usable* by this process, and how *busy* it is, 0 to 1."""

    model: str
    features: frozenset[str]
    physical: int
    logical: int
    usable: int
    busy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Main memory, in bytes."""

    total: int
    available: int


def read_processor() -> Processor:
    """Return this computer's processor; takes a third of a second to see how busy it is."""
    import psutil

    model, features = _model_and_features()
    logical = psutil.cpu_count() or 1
    process = psutil.Process()
    affinity = process.cpu_affinity() if hasattr(process, "cpu_affinity") else None
    return Processor(
        model=model,
        features=features,
        physical=psutil.cpu_count(logical=False) or logical,
        logical=logical,
        usable=len(affinity) if affinity else logical,
        busy=psutil.cpu_percent(interval=0.3) / 100,
    )


def read_memory() -> Memory:
    """Return this computer's memory."""
    import psutil

    memory = psutil.virtual_memory()
    return Memory(total=memory.total, available=memory.available)


def read_graphics() -> tuple[str, ...]:
    """Return the graphics processors that llama.cpp could use: NVIDIA's by its own tool, Apple's by the chip."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return (f"{_output('sysctl', '-n', 'machdep.cpu.brand_string').strip() or 'Apple silicon'} GPU",)
    listed = _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    return tuple(line.strip() for line in listed.splitlines() if line.strip())


def read_nvidia_driver() -> str:
    """Return the version of NVIDIA's driver, or an empty string where there is none."""
    return _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0].strip()


def has_cuda_wheels(system: str | None = None, architecture: str | None = None) -> bool:
    """Tell whether onnxruntime-gpu has wheels for this kind of machine."""
    found = (system or platform.system(), (architecture or platform.machine()).lower())
    return found in {("Linux", "x86_64"), ("Windows", "amd64")}


def judge_processor(processor: Processor) -> Finding:
    """Say what the processor is and which instruction sets it has."""
    listed = tuple(sorted(processor.features))
    cores = f"{processor.physical} physical and {processor.logical} logical cores"
    if processor.usable < processor.logical:
        cores += f", {processor.usable} of them usable"
    return Finding(
        subject="processor",
        text=f"{processor.model}; {cores}; {' '.join(listed) or 'instruction sets unknown'}",
        facts={
            "model": processor.model,
            "physical_cores": processor.physical,
            "logical_cores": processor.logical,
            "usable_cores": processor.usable,
            "features": listed,
        },
    )


def judge_threads(processor: Processor, threads: int, *, chosen: bool) -> Finding:
    """Say how many threads a chat uses, and whether they would get in each other's way; *chosen* by the profile."""
    cores = min(processor.physical, processor.usable)
    text = f"{threads}, {'as the profile says' if chosen else 'one per physical core'}"
    status, remedy = Status.OK, ""
    if threads > cores:
        status = Status.WARN
        text += f", but there are only {cores} cores to run them: they wait for each other"
        remedy = f"set threads = {cores} under [engine] in the profile, or remove it"
    elif threads > 1 and processor.busy > BUSY:
        status = Status.WARN
        text += f"; the processor is {processor.busy:.0%} busy with other work, which slows every thread down"
        remedy = f"close other programs, or set threads = {threads - 1} under [engine] in the profile"
    return Finding(
        subject="threads",
        text=text,
        status=status,
        remedy=remedy,
        facts={"threads": threads, "busy": round(processor.busy, 2)},
    )


def judge_memory(memory: Memory, needed: int) -> Finding:
    """Say how much memory there is, and whether *needed* bytes of model files fit into what is free."""
    tight = needed > memory.available
    return Finding(
        subject="memory",
        text=f"{gigabytes(memory.available)} of {gigabytes(memory.total)} free"
        + (f", but the model takes {gigabytes(needed)}: it would be read from disk again and again" if tight else ""),
        status=Status.WARN if tight else Status.OK,
        remedy="close other programs, or choose a smaller model" if tight else "",
        facts={"total_bytes": memory.total, "available_bytes": memory.available, "needed_bytes": needed},
    )


def judge_graphics(names: Sequence[str], *, supported: bool) -> Finding:
    """Say which graphics processors there are, and whether this build of llama.cpp can use one."""
    unused = bool(names) and not supported
    if not names:
        text = "none found; chat runs on the processor" + (", though llama.cpp is built for one" if supported else "")
    else:
        text = ", ".join(names) + (", but this build of llama.cpp can't use it" if unused else "")
    return Finding(
        subject="graphics",
        text=text,
        status=Status.WARN if unused else Status.OK,
        remedy="install llama-cpp-python for it: docs/install.md has the commands" if unused else "",
        facts={"names": tuple(names), "supported_by_llama_cpp": supported},
    )


def gigabytes(size: int) -> str:
    """Return *size* bytes in GB, or MB when small."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def features_of_cpuinfo(text: str) -> frozenset[str]:
    """Return the instruction sets that Linux lists in /proc/cpuinfo."""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    words = set(line[1].split()) if line else set[str]()
    return frozenset(name for flag, name in LINUX_NAMES.items() if flag in words)


def features_of_sysctl(text: str) -> frozenset[str]:
    """Return the instruction sets that macOS lists under `sysctl hw.optional`."""
    present = {line.split(":")[0].rpartition(".")[2] for line in text.splitlines() if line.rstrip().endswith(": 1")}
    return frozenset(name for flag, name in MAC_NAMES.items() if flag in present)


def _model_and_features() -> tuple[str, frozenset[str]]:
    fallback = platform.processor() or platform.machine() or "unknown processor"
    if platform.system() == "Darwin":
        features = features_of_sysctl(_output("sysctl", "hw.optional"))
        return _output("sysctl", "-n", "machdep.cpu.brand_string").strip() or fallback, features
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return fallback, frozenset()
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return (model[1].strip() if model else fallback), features_of_cpuinfo(text)


def _output(*command: str) -> str:
    """Return what *command* prints, or an empty string where it is missing or fails."""
    path = shutil.which(command[0])
    if path is None:
        return ""
    try:
        ran = subprocess.run(
            [path, *command[1:]], capture_output=True, text=True, errors="replace", timeout=COMMAND_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout if ran.returncode == 0 else ""
