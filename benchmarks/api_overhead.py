"""What the Python API and the server add to a token: ratios to the decoding loop alone, all in one run.

    python benchmarks/api_overhead.py [--model random-135m|padlite-tiny] [--tokens 48] [--rounds 40]

The loop is `Session.say` on this thread; the API is `Chat.events` and `Chat.aevents` on the same loaded model; the
server is a `padlite serve` of its own that streams to one client on loopback, with its defaults. Rounds alternate,
medians count; time runs from the first token to the last. Beside it the CPU time of the process that decodes, with all
its threads: on a busy machine the steadier figure. Then the milliseconds to the first byte when the prompt is cached.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.workloads import EIGHT, MODELS, PROMPT, Json, Workload, print_result, say, workload
from padlite.bundle import write_manifest
from padlite.chat import Chat, Opened
from padlite.engine import Engine
from padlite.opening import open_models
from padlite.seams import Dimension
from padlite.session import Session, Token
from padlite_training.random_head import write_random_head
from tests.served import Served, serving

BARS = {
    "random-135m": {"events": 0.98, "aevents": 0.98, "server": 0.97},
    "padlite-tiny": {"events": 0.98, "aevents": 0.98, "server": 0.90},
}
FIRST_BYTE_MS = 50.0  # on padlite-tiny
FIRST_BYTES = 20  # how often that is measured
WARM_UP = 2  # rounds that don't count
SERVED = "measured"  # the bundle's name


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=0, help="0: one per physical core, as chat does")
    arguments = parser.parse_args()
    for name in arguments.model or MODELS:
        measure(workload(name), tokens=arguments.tokens, rounds=arguments.rounds, threads=arguments.threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One answer: its text, seconds per token after the first, of CPU time too, and the seconds to its first byte."""

    text: str
    token_s: float
    token_cpu_s: float
    first_s: float = 0.0


def measure(work: Workload, *, tokens: int, rounds: int, threads: int) -> None:
    """Print the figures of one model."""
    profile = work.profile(threads=threads)
    profile = dataclasses.replace(profile, decoding={**profile.decoding, "max_tokens": tokens})
    with _served(work, threads) as served, open_models(profile) as models:
        alone = models.session(profile)
        engine = Engine()
        chat = Chat(Opened(engine, engine.load(contextlib.nullcontext(models))), profile, owner=True)
        ways: dict[str, Callable[[], Timed]] = {
            "loop": lambda: _loop(alone),
            "events": lambda: _events(chat),
            "aevents": lambda: asyncio.run(_aevents(chat)),
            "server": lambda: _streamed(served, tokens),
        }
        answers: dict[str, list[Timed]] = {way: [] for way in ways}
        for round_ in range(rounds + WARM_UP):
            for way in sorted(ways, reverse=bool(round_ % 2)):
                answers[way].append(ways[way]())
        first_ms = 1e3 * statistics.median(_streamed(served, 2).first_s for _ in range(FIRST_BYTES))
        chat.close()
    measured = {way: each[WARM_UP:] for way, each in answers.items()}
    _report(work.name, measured, first_ms, tokens=tokens, rounds=rounds, threads=threads)
    if len({answer.text for each in answers.values() for answer in each}) > 1:
        say("  the answers differ in a near tie; the figures are of answers of the same length")


def _report(
    model: str, measured: dict[str, list[Timed]], first_ms: float, *, tokens: int, rounds: int, threads: int
) -> None:
    wall_ms = {way: 1e3 * statistics.median(answer.token_s for answer in each) for way, each in measured.items()}
    cpu_ms = {way: 1e3 * statistics.median(answer.token_cpu_s for answer in each) for way, each in measured.items()}
    pairs = {
        way: statistics.median(
            loop.token_s / own.token_s for loop, own in zip(measured["loop"], measured[way], strict=True)
        )
        for way in BARS[model]
    }
    result: dict[str, Json] = {
        "model": model,
        "ratios": {way: round(wall_ms["loop"] / wall_ms[way], 4) for way in BARS[model]},
        "ratios_of_pairs": {way: round(ratio, 4) for way, ratio in pairs.items()},
        "cpu_ratios": {way: round(cpu_ms["loop"] / cpu_ms[way], 4) for way in BARS[model]},
        "bars": BARS[model],
        "token_ms": {way: round(value, 4) for way, value in wall_ms.items()},
        "token_cpu_ms": {way: round(value, 4) for way, value in cpu_ms.items()},
        "first_byte_ms": round(first_ms, 2),
        "tokens": tokens,
        "rounds": rounds,
        "threads": threads,
    }
    print_result("api_overhead", result)
    say(f"\n{model}, {tokens} tokens, {rounds} rounds, {threads or 'all'} threads")
    say("  ms per token; ratios to the loop of medians, of pairs, of CPU time")
    say(f"  loop    {wall_ms['loop']:8.3f}")
    for way, bar in BARS[model].items():
        ratio, of_cpu = wall_ms["loop"] / wall_ms[way], cpu_ms["loop"] / cpu_ms[way]
        say(f"  {way:7} {wall_ms[way]:8.3f}  {ratio:.3f}  {pairs[way]:.3f}  {of_cpu:.3f}  (bar {bar})")
    say(f"  first byte of an answer whose prompt is cached: {first_ms:.1f} ms (bar {FIRST_BYTE_MS:g} on padlite-tiny)")


@contextlib.contextmanager
def _served(work: Workload, threads: int) -> Iterator[Served]:
    """Serve the workload's models, as a bundle of their own."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "data" / "models" / SERVED
        bundle.mkdir(parents=True)
        (bundle / "base.gguf").symlink_to(work.base)
        write_random_head(bundle / "reward.onnx", work.base, dimensions=EIGHT, seed=1)
        write_manifest(
            bundle, name=SERVED, license="none", dimensions=[Dimension(name=name) for name in EIGHT],
            context_length=work.context_length,
        )  # fmt: skip
        length = str(work.context_length)
        with serving(Path(folder), "--model", SERVED, "--threads", str(threads), "--context-length", length) as served:
            yield served


def _loop(session: Session) -> Timed:
    """Answer once on this thread."""
    session.clear()
    return _timed([(*_now(), event) for event in session.say(PROMPT) if isinstance(event, Token)])


def _events(chat: Chat) -> Timed:
    """Answer once through the API."""
    chat.clear()
    return _timed([(*_now(), event) for event in chat.events(PROMPT) if isinstance(event, Token)])


async def _aevents(chat: Chat) -> Timed:
    """Answer once through the API, in an event loop."""
    chat.clear()
    return _timed([(*_now(), event) async for event in chat.aevents(PROMPT) if isinstance(event, Token)])


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _timed(heard: list[tuple[float, float, Token]]) -> Timed:
    (first, first_cpu, _), (last, last_cpu, _), count = heard[0], heard[-1], len(heard) - 1
    text = "".join(token.text for *_, token in heard)
    return Timed(text=text, token_s=(last - first) / count, token_cpu_s=(last_cpu - first_cpu) / count)


def _streamed(served: Served, tokens: int) -> Timed:
    """Answer once through the server; the client only reads, and takes it apart afterwards."""
    record = {
        "model": SERVED, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": tokens, "stream": True,
        "stream_options": {"include_usage": True}, "stop": ["\nUser:"],
        "padlite": {"weights": dict.fromkeys(EIGHT, 0.5), "candidates": 10},
    }  # fmt: skip
    chunks: list[tuple[float, float, bytes]] = []
    asked = time.perf_counter()
    with served.ask(record, timeout_s=120) as connection:
        while chunk := connection.recv(65536):
            chunks.append((time.perf_counter(), _cpu_s(served.process.pid), chunk))
    speaking = [(at, cpu) for at, cpu, chunk in chunks if b'"content"' in chunk]
    lines = b"".join(chunk for *_, chunk in chunks).splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    count = max(1, events[-1]["usage"]["completion_tokens"] - 1)
    return Timed(
        text="".join(delta.get("content", "") for delta in deltas),
        token_s=(speaking[-1][0] - speaking[0][0]) / count,
        token_cpu_s=(speaking[-1][1] - speaking[0][1]) / count,
        first_s=chunks[0][0] - asked,
    )


def _cpu_s(process: int) -> float:
    """Return the CPU time that the threads of *process* have taken; psutil's is too coarse. 0 where it isn't told."""
    threads = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(thread.read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


if __name__ == "__main__":
    main()
