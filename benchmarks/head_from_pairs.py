"""What training a head from preference pairs costs: seconds for the harvest and for the fit, and the peak memory.

    python -m benchmarks.head_from_pairs --pairs 2000 --model random-135m

Runs `padlite train head` in a process of its own on pairs from padlite's small talk, both stages. What the head learns
on a random model means nothing; what it costs depends on sizes alone. One JSON line on stdout.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.workloads import MODELS, print_result, say, workload
from padlite_training.style_pairs import main as write_style_pairs

BAR_MIB = 4 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--model", choices=MODELS, default="random-135m")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    work = workload(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        pairs = some_pairs(Path(folder), arguments.pairs)
        report = train(work.base, pairs, Path(folder) / "out", threads=arguments.threads)
    result = {name: report[name] for name in ("pairs", "states", "harvest_mib", "harvest_s", "fit_s", "epochs")}
    peak = report["peak_memory_mib"]
    print_result(
        "head_from_pairs",
        {"model": work.name, "threads": arguments.threads, **result, "peak_memory_mib": peak, "bar_mib": BAR_MIB},
    )
    say(f"\n{work.name}: {report['pairs']:,} pairs, {report['states']:,} states, {report['harvest_mib']:,.0f} MiB")
    say(f"  harvest      {report['harvest_s']:8.0f} s")
    say(f"  both fits    {report['fit_s']:8.0f} s")
    say(f"  peak memory  {peak:8,.0f} MiB ({'within' if peak < BAR_MIB else 'MORE THAN'} {BAR_MIB:,})")


def some_pairs(folder: Path, count: int) -> Path:
    """Write *count* pairs, evenly from all rounds of the small talk, and return their file."""
    write_style_pairs(["--out", str(folder)])
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    groups: dict[str, list[str]] = {}
    for line in lines:
        groups.setdefault(str(json.loads(line)["group"]), []).append(line)
    chosen = [line for group in groups.values() for line in group][:count]
    path = folder / "some.jsonl"
    path.write_text("".join(chosen), encoding="utf-8")
    return path


def train(base: Path, pairs: Path, out: Path, *, threads: int) -> dict[str, float]:
    """Train a head in another process and return its report."""
    command = [sys.executable, "-m", "padlite", "train", "head", "--model", str(base), "--pairs", str(pairs)]
    subprocess.run([*command, "--out", str(out), "--threads", str(threads), "--json"], check=True, stdout=sys.stderr)
    report: dict[str, float] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report


if __name__ == "__main__":
    main()
