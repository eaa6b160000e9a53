"""How long a person waits: for `padlite --help`, and for the first word of `padlite chat -p hi` on the bundled model.

    python benchmarks/startup.py [--rounds 7]

Times run from the start of the process. The help is judged by its CPU time and by what it must not import.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.workloads import Json, print_result, say

HELP_BAR_S = 0.2
FIRST_TOKEN_BAR_S = 2.0
FORBIDDEN = ("numpy", "llama_cpp", "onnxruntime")
_HELP = """
import sys
from padlite.cli import main
code = main(["--help"])
print(*sorted(sys.modules), file=sys.stderr)
raise SystemExit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    _report_help(rounds)
    _report_first_token(rounds)


def _report_help(rounds: int) -> None:
    modules = _modules_of_help()
    imported = [name for name in FORBIDDEN if name in modules]
    times = [_cpu_s([sys.executable, "-m", "padlite", "--help"]) for _ in range(rounds)]
    median = statistics.median(times)
    good = median < HELP_BAR_S and not imported
    figures: dict[str, Json] = {
        "help_cpu_s": round(median, 4),
        "bar_s": HELP_BAR_S,
        "forbidden_imports": imported,
        "modules": len(modules),
    }
    print_result("help", figures)
    say(f"padlite --help: {median:.3f} s CPU ({'within' if good else 'MISSES'} {HELP_BAR_S} s), {len(modules)} modules")
    say(f"  imports of {', '.join(FORBIDDEN)}: {', '.join(imported) or 'none'}")


def _report_first_token(rounds: int) -> None:
    command = [sys.executable, "-m", "padlite", "chat", "-p", "hi", "--no-save"]
    times = [_first_byte_s(command) for _ in range(rounds)]
    median = statistics.median(times)
    figures: dict[str, Json] = {
        "first_token_s": round(median, 3),
        "worst_s": round(max(times), 3),
        "bar_s": FIRST_TOKEN_BAR_S,
    }
    print_result("first_token", figures)
    verdict = "within" if median < FIRST_TOKEN_BAR_S else "MISSES"
    say(
        f"padlite chat -p hi: first text after {median:.2f} s (worst {max(times):.2f}; {verdict} {FIRST_TOKEN_BAR_S} s)"
    )


def _modules_of_help() -> set[str]:
    ran = subprocess.run([sys.executable, "-c", _HELP], capture_output=True, text=True, check=True)
    return set(ran.stderr.split())


def _cpu_s(command: list[str]) -> float:
    """Return the CPU seconds, user and system, that *command* takes."""
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _first_byte_s(command: list[str]) -> float:
    """Return the seconds until *command* writes its first byte to a pipe."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process:
        if process.stdout is None or not process.stdout.read(1):
            raise RuntimeError(f"{command[1:5]} said nothing")
        waited = time.perf_counter() - start
        process.stdout.read()
    if process.returncode != 0:
        raise RuntimeError(f"{command[1:5]} ended with {process.returncode}")
    return waited


if __name__ == "__main__":
    main()
