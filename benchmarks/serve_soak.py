"""Many clients for a long time: nothing fails but what was meant to, no slot sticks, memory stays level.

    python benchmarks/serve_soak.py [--requests 1000] [--clients 8]

The clients ask a real `padlite serve` at once, for models and persons, short and long, streamed and whole. A third of
the requests is left at a random moment: in line, while the prompt is read, in mid-answer. Then it measures how long an
answer that was left keeps the engine: from closing the connection until /health says that nothing is being decoded.
"""

import argparse
import collections
import random
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.workloads import Json, print_result, say
from tests.served import Served, serving

QUESTIONS = ("Hi", "What should I do today?", "Do you like music?", "Tell me a story.", "How was your day?")
WORDS = ["tea", "walk", "rain", "music", "friend", "night", "story", "garden", "window", "letter", "river", "bread"]
LONG = 600  # words of a prompt that takes a while to read
ENDLESS = {str(token): -100 for token in range(8)}  # the bundled model's control tokens, so that it ends no answer
LEVEL_MIB = 8.0  # what memory may differ between the second quarter and the last
FREE_MS = 100.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), "--waiting", "64") as served:
        soak = Soak(served)
        with ThreadPoolExecutor(arguments.clients) as clients:
            list(clients.map(soak.request, range(arguments.requests)))
        stuck = not settles(served)
        free_ms = {where: [time_to_free_ms(served, where) for _ in range(20)] for where in ("prompt", "answer")}
        code = served.stop()
    traceback = "Traceback" in "".join(served.lines)
    growth_mib = soak.growth_mib()
    result: dict[str, Json] = {
        "outcomes": dict(soak.outcomes),
        "failures": soak.failures[:5],
        "stuck": stuck,
        "growth_mib": round(growth_mib, 2),
        "memory_mib": round(soak.memory_mib[-1]),
        "free_ms": {where: round(statistics.median(each), 1) for where, each in free_ms.items()},
        "free_worst_ms": {where: round(max(each), 1) for where, each in free_ms.items()},
        "exit_code": code,
        "traceback": traceback,
    }
    print_result("serve_soak", result)
    say(f"\n{dict(soak.outcomes)}, {len(soak.failures)} failed {soak.failures[:5]}")
    say(f"  {'a slot is stuck' if stuck else 'no slot is stuck'}, exit code {code}, traceback: {traceback}")
    say(f"  memory {growth_mib:+.1f} MiB from the second quarter to the last, {soak.memory_mib[-1]:.0f} MiB at the end")
    for where, each in free_ms.items():
        say(
            f"  leaving in the {where} frees the engine in {statistics.median(each):.0f} ms, "
            f"at worst {max(each):.0f} (bar {FREE_MS:g})"
        )
    fine = not soak.failures and not stuck and not traceback and code == 0 and growth_mib < LEVEL_MIB
    sys.exit(0 if fine and all(statistics.median(each) < FREE_MS for each in free_ms.values()) else 1)


class Soak:
    """The requests, and what came of them."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._process = psutil.Process(served.process.pid)
        self._lock = threading.Lock()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.memory_mib: list[float] = []

    def request(self, number: int) -> None:
        """Ask for one answer and read it, or leave it."""
        rng = random.Random(number)
        record = {
            "model": rng.choice(("padlite-tiny", "padlite-tiny@ada", "padlite-tiny@max", "padlite-tiny@pirate")),
            "messages": [{"role": "user", "content": rng.choice(QUESTIONS) if rng.random() < 0.7 else prompt(rng)}],
            "max_tokens": rng.randrange(1, 80), "stream": rng.random() < 0.7, "temperature": rng.choice((0, 1)),
            "n": rng.choice((1, 1, 1, 2)),
        }  # fmt: skip
        leaves_after_s = rng.random() * rng.choice((0.1, 1.0, 4.0)) if rng.random() < 1 / 3 else None
        received, left = ask(self._served, record, leaves_after_s)
        if left:
            outcome = "left in mid-answer" if received else "left before the first byte"
        elif received.startswith(b"HTTP/1.1 200") and (b"[DONE]" in received or b'"usage"' in received):
            outcome = "finished"
        else:
            outcome = "failed"
        with self._lock:
            self.outcomes[outcome] += 1
            self.memory_mib.append(self._process.memory_info().rss / 2**20)
            if outcome == "failed":
                self.failures.append(received[:300].decode("utf-8", "replace"))

    def growth_mib(self) -> float:
        """Return how much more memory the last quarter of the requests took than the second one."""
        quarter = max(1, len(self.memory_mib) // 4)
        second, last = self.memory_mib[quarter : 2 * quarter], self.memory_mib[-quarter:]
        return statistics.median(last) - statistics.median(second or last)


def prompt(rng: random.Random) -> str:
    """Return a long text that no cache holds."""
    return " ".join(rng.choices(WORDS, k=LONG))


def ask(served: Served, record: object, leaves_after_s: float | None) -> tuple[bytes, bool]:
    """Return what came, and whether the request was left before its end."""
    received = b""
    with served.ask(record, timeout_s=300) as connection:
        until = None if leaves_after_s is None else time.monotonic() + leaves_after_s
        while until is None or time.monotonic() < until:
            if until is not None:
                connection.settimeout(max(0.001, until - time.monotonic()))
            try:
                chunk = connection.recv(65536)
            except TimeoutError:
                break
            if not chunk:
                return received, False
            received += chunk
    return received, True


def time_to_free_ms(served: Served, where: str) -> float:
    """Leave an answer while its prompt is read, or in mid-answer; return how long it then keeps the engine."""
    rng = random.Random(time.time_ns())
    while True:
        text = prompt(rng) if where == "prompt" else "Hi"
        record = {"model": "padlite-tiny", "messages": [{"role": "user", "content": text}], "stream": True}
        received, left = ask(served, {**record, "logit_bias": ENDLESS}, 0.03 if where == "prompt" else 0.2)
        left_at = time.perf_counter()
        if left and bool(received) == (where == "answer"):
            break
        settles(served)
    while served.load() != (0, 0):
        pass
    return 1e3 * (time.perf_counter() - left_at)


def settles(served: Served) -> bool:
    """Tell whether nothing is being decoded soon."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if served.load() == (0, 0):
            return True
        time.sleep(0.05)
    return False


if __name__ == "__main__":
    main()
