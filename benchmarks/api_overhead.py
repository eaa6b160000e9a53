"""What the Python API and the server add to a token: ratios to the decoding loop alone, all in one run.

    python benchmarks/api_overhead.py [--model random-135m|padlite-tiny] [--tokens 48] [--rounds 40]

The loop is `Session.say`; the API is `Chat.events` and `Chat.aevents`; the server streams to one client, a process of
its own, on loopback. All of them are on one loaded copy of the models and decode on one thread, the engine's: copies of
the same weights differ by up to 5 % in speed, and every thread that decodes has a pool of helpers of its own. Rounds
alternate, medians count; time runs from the first token to the last. Beside it the CPU time of the process that
decodes, with all its threads: on a busy machine the steadier figure. Then the milliseconds to the first byte when the
prompt is cached.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.workloads import EIGHT, MODELS, PROMPT, Json, Workload, print_result, say, workload
from padlite.chat import Chat, Opened
from padlite.engine import Engine, Job, Over
from padlite.opening import open_models
from padlite.profile import Profile
from padlite.server.app import build
from padlite.server.guards import Access
from padlite.server.running import listen, run
from padlite.server.shelf import Engines, Shelf
from padlite.session import Event, Session, Token
from padlite.settings import Paths
from tests.served import ask

BARS = {
    "random-135m": {"events": 0.98, "aevents": 0.98, "server": 0.97},
    "padlite-tiny": {"events": 0.98, "aevents": 0.98, "server": 0.90},
}
FIRST_BYTE_MS = 50.0  # on padlite-tiny
FIRST_BYTES = 20  # how often that is measured
PARALLEL = 2  # as `padlite serve` has it
WARM_UP = 2  # rounds that don't count
REQUEST: dict[str, Json] = {
    "messages": [{"role": "user", "content": PROMPT}], "stream": True,
    "stream_options": {"include_usage": True}, "stop": ["\nUser:"],
    "padlite": {"weights": dict.fromkeys(EIGHT, 0.5), "candidates": 10},
}  # fmt: skip


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


T = TypeVar("T")
Client = Callable[[int], Timed]


def measure(work: Workload, *, tokens: int, rounds: int, threads: int) -> None:
    """Print the figures of one model."""
    profile = work.profile(threads=threads)
    profile = dataclasses.replace(profile, decoding={**profile.decoding, "max_tokens": tokens})
    engine = Engine(slots=PARALLEL)
    models = engine.load(open_models(profile, parallel=PARALLEL))
    alone = models.session(profile)
    with Chat(Opened(engine, models), profile, owner=True) as chat:

        def take_turns(client: Client) -> tuple[dict[str, list[Timed]], float]:
            ways: dict[str, Callable[[], Timed]] = {
                "loop": lambda: _on_thread_of(engine, lambda: _loop(alone)),
                "events": lambda: _events(chat),
                "aevents": lambda: asyncio.run(_aevents(chat)),
                "server": lambda: client(tokens),
            }
            answers: dict[str, list[Timed]] = {way: [] for way in ways}
            for round_ in range(rounds + WARM_UP):
                for way in sorted(ways, reverse=bool(round_ % 2)):
                    answers[way].append(ways[way]())
            return answers, 1e3 * statistics.median(client(2).first_s for _ in range(FIRST_BYTES))

        answers, first_ms = _while_served(work, chat, take_turns)
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


class _OneModel(Shelf):
    """A shelf whose only model, a GGUF file, is loaded already."""

    def __init__(self, chat: Chat, base: Path, paths: Paths) -> None:
        super().__init__((str(base),), paths, Engines(parallel=PARALLEL))
        self._chat = chat

    def profile(self, model: str, name: str | None) -> Profile:
        """Return what requests start from."""
        return dataclasses.replace(self._chat.profile, preferences={})

    @contextlib.asynccontextmanager
    async def model(self, name: str) -> AsyncIterator[Chat]:
        """Yield it."""
        yield self._chat


def _while_served(work: Workload, chat: Chat, measuring: Callable[[Client], T]) -> T:
    """Serve *chat* on this thread until *measuring* on another has returned."""
    with tempfile.TemporaryDirectory() as folder, listen("127.0.0.1", 0) as listening, ThreadPoolExecutor(1) as thread:
        paths = Paths(**{name: Path(folder) / name for name in ("config", "data", "cache")})
        port = listening.getsockname()[1]
        measured: list[Future[T]] = []

        def measure_and_stop() -> T:
            try:
                with _client_of(port, work.base.name) as client:
                    return measuring(client)
            finally:
                signal.raise_signal(signal.SIGTERM)

        server = build(_OneModel(chat, work.base, paths), Access())
        run(server, listening, grace_s=1.0, ready=lambda: measured.append(thread.submit(measure_and_stop)))
        return measured[0].result()


@contextlib.contextmanager
def _client_of(port: int, model: str) -> Iterator[Client]:
    """Yield a client of *model* on *port*, in a process of its own: it is asked for an answer of so many tokens."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_ask_and_read, args=(there, port, model, os.getpid()), daemon=True)
    process.start()
    there.close()  # so that a client that fails isn't waited for

    def order(tokens: int) -> Timed:
        here.send(tokens)
        return cast(Timed, here.recv())

    try:
        yield order
    finally:
        process.terminate()
        process.join()


def _ask_and_read(orders: "Connection[Timed, int]", port: int, model: str, decoding: int) -> None:
    """Stream answers from *port* as they are ordered; the server's process is *decoding*."""
    while True:
        orders.send(_streamed(port, model, orders.recv(), decoding))


def _on_thread_of(engine: Engine, work: Callable[[], Timed]) -> Timed:
    """Do *work* on the engine's thread, all of it in one turn."""
    done: Future[Timed] = Future()

    def turn() -> Iterator[Event]:
        done.set_result(work())
        yield from ()

    def deliver(event: Event | Over) -> None:
        if isinstance(event, Over) and event.error is not None:
            done.set_exception(event.error)

    engine.submit(Job(events=turn(), deliver=deliver, stop=lambda: None))
    return done.result()


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


def _streamed(port: int, model: str, tokens: int, decoding: int) -> Timed:
    """Answer once through the server; the client only reads, and takes it apart afterwards."""
    chunks: list[tuple[float, bytes]] = []
    first_cpu: float | None = None
    asked = time.perf_counter()
    with ask(port, {**REQUEST, "model": model, "max_tokens": tokens}, timeout_s=120) as connection:
        while chunk := connection.recv(65536):
            chunks.append((time.perf_counter(), chunk))
            if first_cpu is None and b'"content"' in chunk:
                first_cpu = _cpu_s(decoding)
    last_cpu = _cpu_s(decoding)
    if first_cpu is None:
        raise RuntimeError(b"".join(chunk for _, chunk in chunks).decode())
    speaking = [at for at, chunk in chunks if b'"content"' in chunk]
    lines = b"".join(chunk for _, chunk in chunks).splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    count = max(1, events[-1]["usage"]["completion_tokens"] - 1)
    return Timed(
        text="".join(delta.get("content", "") for delta in deltas),
        token_s=(speaking[-1] - speaking[0]) / count,
        token_cpu_s=(last_cpu - first_cpu) / count,
        first_s=chunks[0][0] - asked,
    )


def _cpu_s(process: int) -> float:
    """Return the CPU time that the threads of *process* have taken; psutil's is too coarse. 0 where it isn't told."""
    threads = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(thread.read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


if __name__ == "__main__":
    main()
