"""What is measured: a random 135M model, the bundled model, and heads of eight dimensions for both, made when needed.

Files are kept in the system's temporary folder, so that the next measurement starts at once.
"""

import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from padlite.bundle import find_bundle
from padlite.profile import Profile
from padlite_training.random_head import write_random_head
from padlite_training.random_llama import LLAMA_135M, write_random_llama

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

EIGHT = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")
CANDIDATES = 10
PROMPT = "Tell me a story."
MODELS = ("random-135m", "padlite-tiny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A base model, a head for it with the eight dimensions of `EIGHT`, and the length of the context."""

    name: str
    base: Path
    reward: Path
    context_length: int

    def profile(self, *, threads: int = 0) -> Profile:
        """A profile that wants something of every dimension."""
        return Profile(
            name="benchmark",
            base=self.base,
            reward=self.reward,
            preferences=dict.fromkeys(EIGHT, 0.5),
            decoding={"candidates": CANDIDATES, "stop": ("\nUser:",)},
            context_length=self.context_length,
            threads=threads,
        )


def workload(name: str) -> Workload:
    """Return one of `MODELS`, written first where it isn't there yet."""
    folder = Path(tempfile.gettempdir()) / "padlite-benchmarks"
    folder.mkdir(exist_ok=True)
    if name == "random-135m":
        base = folder / "random-135m.gguf"
        if not base.exists():
            write_random_llama(base, LLAMA_135M, seed=1)
    else:
        base = find_bundle(name).base
    reward = folder / f"{name}.onnx"
    if not reward.exists() or reward.stat().st_mtime < base.stat().st_mtime:
        write_random_head(reward, base, dimensions=EIGHT, seed=1)
    return Workload(name=name, base=base, reward=reward, context_length=1024)


def machine() -> dict[str, Json]:
    """Return what a figure depends on besides the code: processor, cores, and how busy the machine is."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count(), "load": load}


def print_result(benchmark: str, result: Mapping[str, Json]) -> None:
    """Print one JSON line on stdout."""
    print(json.dumps({"benchmark": benchmark, **result, **machine()}, ensure_ascii=False), flush=True)


def say(text: str) -> None:
    """Print a line for people on stderr."""
    print(text, file=sys.stderr, flush=True)
