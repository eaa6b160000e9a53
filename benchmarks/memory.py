"""How much memory the guided chat needs above a bare llama.cpp loop on the same model.

    python benchmarks/memory.py [--model random-135m|padlite-tiny]

Each side is a process of its own that answers the same prompt with the same number of tokens: the bare loop, and
`padlite chat` itself, one-shot and in a terminal. Compared are their peaks of resident memory; both map the model file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bare_loop import BareLoop, silence
from benchmarks.workloads import EIGHT, MODELS, PROMPT, Workload, print_result, say, workload

BAR_MB = 150.0
TOKENS = 64
SAMPLE_S = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        _be_the_bare_loop(arguments.bare)
        return
    for name in arguments.model or MODELS:
        measure(workload(name))


def measure(work: Workload) -> None:
    """Print the figures of one model."""
    bare_mb = _peak_mb([sys.executable, __file__, "--bare", str(work.base)])
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile.toml"
        profile.write_text(_profile_text(work), encoding="utf-8")
        chat = [sys.executable, "-m", "padlite", "chat", "--profile", str(profile), "--no-save"]
        one_shot_mb = _peak_mb([*chat, "-p", PROMPT])
        terminal_mb = _peak_in_terminal_mb(chat) if os.name == "posix" else None
    extra_mb = max(one_shot_mb, terminal_mb or 0.0) - bare_mb
    print_result(
        "memory",
        {
            "model": work.name,
            "extra_mb": round(extra_mb, 1),
            "bar_mb": BAR_MB,
            "bare_mb": round(bare_mb, 1),
            "one_shot_mb": round(one_shot_mb, 1),
            "terminal_mb": None if terminal_mb is None else round(terminal_mb, 1),
        },
    )
    say(f"\n{work.name}: peak resident memory, {TOKENS} tokens")
    say(f"  bare loop                {bare_mb:8.1f} MB")
    say(f"  padlite chat -p          {one_shot_mb:8.1f} MB")
    if terminal_mb is not None:
        say(f"  padlite chat, terminal   {terminal_mb:8.1f} MB")
    say(f"  above the bare loop      {extra_mb:8.1f} MB ({'within' if extra_mb <= BAR_MB else 'MORE THAN'} {BAR_MB:g})")


def _be_the_bare_loop(path: Path) -> None:
    silence()
    with BareLoop(path, threads=max(1, psutil.cpu_count(logical=False) or 1), context_length=1024) as bare:
        bare.run(list(range(100, 140)), TOKENS)


def _profile_text(work: Workload) -> str:
    weights = "\n".join(f"{name} = 0.5" for name in EIGHT)
    return f"""base = {json.dumps(str(work.base))}
reward = {json.dumps(str(work.reward))}
[preferences]
{weights}
[decoding]
max_tokens = {TOKENS}
[engine]
context_length = {work.context_length}
"""


def _peak_mb(command: list[str]) -> float:
    """Run *command* to its end and return its largest resident memory, in MB (10⁶ bytes)."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        watch = _Watch(process.pid)
        _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{command[1:4]} ended with {process.returncode}: {errors[-500:]}")
    return watch.peak_mb()


def _peak_in_terminal_mb(command: list[str]) -> float:
    """Type the prompt into *command* in a pseudo-terminal, wait for the answer, leave, and return the peak."""
    import pexpect

    child = pexpect.spawn(command[0], command[1:], dimensions=(40, 200), timeout=120, encoding="utf-8")
    watch = _Watch(child.pid)
    child.expect_exact("›")
    child.send(f"{PROMPT}\r")
    child.expect_exact("tok/s")  # in the status line after the answer, where it is wide enough
    child.sendcontrol("d")
    child.expect(pexpect.EOF)
    child.close()
    return watch.peak_mb()


class _Watch:
    """Samples the resident memory of a process until it ends."""

    def __init__(self, pid: int) -> None:
        self._peak = 0
        self._process = psutil.Process(pid)
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        pause = threading.Event()
        try:
            while self._process.status() != psutil.STATUS_ZOMBIE:
                self._peak = max(self._peak, self._process.memory_info().rss)
                pause.wait(SAMPLE_S)
        except psutil.NoSuchProcess:
            return

    def peak_mb(self) -> float:
        """Return the peak, once the process has ended."""
        self._thread.join()
        return self._peak / 1e6


if __name__ == "__main__":
    main()
