"""What padlite adds to a token: its guided loop, as `chat` runs it, against a bare llama.cpp loop on the same model.

    python benchmarks/step_overhead.py [--model random-135m|padlite-tiny] [--tokens 48] [--rounds 40]

One process, the same GGUF, prompt and threads, k = 10 candidates and m = 8 dimensions; rounds alternate, medians count.
Time runs from the first token to the last, so both sides are decoding only. `ratio` is tokens per second of the guided
loop divided by those of the bare one. A profile run then says what the difference is spent on.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bare_loop import BareLoop, silence
from benchmarks.workloads import MODELS, PROMPT, Workload, print_result, say, workload
from padlite.backends.onnx import OnnxHead
from padlite.decode import Token, TokenTrace
from padlite.opening import OpenChat, open_chat
from padlite.prompt import prompt_tokens
from padlite.scoring import combine, log_normalizer, top_k
from padlite.seams import Step
from padlite.streaming import TextStream
from padlite.template import Message

BARS = {"random-135m": 0.97, "padlite-tiny": 0.80}
WARM_UP = 2  # rounds that don't count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=0, help="0: one per physical core, as chat does")
    arguments = parser.parse_args()
    silence()
    for name in arguments.model or MODELS:
        measure(workload(name), tokens=arguments.tokens, rounds=arguments.rounds, threads=arguments.threads)


def measure(work: Workload, *, tokens: int, rounds: int, threads: int) -> None:
    """Print the figures of one model."""
    with open_chat(work.profile(threads=threads)) as chat:
        prompt = prompt_tokens(chat.template, chat.base.tokenizer, [Message(role="user", content=PROMPT)])
        with BareLoop(work.base, threads=chat.base.threads, context_length=chat.base.context_length) as bare:
            times = _compare(chat, bare, prompt, tokens=tokens, rounds=rounds)
    guided_s, bare_s = statistics.median(times.guided_s), statistics.median(times.bare_s)
    ratio, extra_ms = bare_s / guided_s, 1e3 * (guided_s - bare_s)
    paired = statistics.median(b / g for g, b in zip(times.guided_s, times.bare_s, strict=True))
    parts = {name: 1e3 * statistics.median(laps) for name, laps in times.laps.items()}
    alone = {name: parts.pop(name) for name in ("llama_decode", "greedy sampler")}
    parts["session, generators, clock"] = 1e3 * guided_s - sum(parts.values())
    bar = BARS[work.name]
    print_result(
        "step_overhead",
        {
            "model": work.name,
            "ratio": round(ratio, 4),
            "ratio_of_pairs": round(paired, 4),
            "bar": bar,
            "extra_ms": round(extra_ms, 4),
            "bare_ms": round(1e3 * bare_s, 4),
            "guided_ms": round(1e3 * guided_s, 4),
            "threads": chat.base.threads,
            "tokens": tokens,
            "rounds": rounds,
            "bare_parts_ms": {name: round(value, 4) for name, value in alone.items()},
            "guided_parts_ms": {name: round(value, 4) for name, value in parts.items()},
        },
    )
    say(f"\n{work.name}, {chat.base.threads} threads, {tokens} tokens, {rounds} rounds")
    say(f"  bare loop     {1 / bare_s:9.1f} tokens/s  {1e3 * bare_s:8.3f} ms per token")
    say(f"  guided loop   {1 / guided_s:9.1f} tokens/s  {1e3 * guided_s:8.3f} ms per token")
    say(f"  ratio         {ratio:9.3f} ({'reaches' if ratio >= bar else 'MISSES'} {bar}), {extra_ms:+.3f} ms per token")
    for title, table in (("bare", alone), ("guided", parts)):
        say(f"  a {title} token, profile run (ms):")
        for name, value in table.items():
            say(f"    {name:44} {value:8.4f}")


@dataclass(slots=True)
class _Times:
    """Seconds per token of each round, and the seconds of each part of each token of the profile run."""

    guided_s: list[float] = field(default_factory=list)
    bare_s: list[float] = field(default_factory=list)
    laps: dict[str, list[float]] = field(default_factory=dict)


def _compare(chat: OpenChat, bare: BareLoop, prompt: list[int], *, tokens: int, rounds: int) -> _Times:
    """Run both loops in turns, the order alternating, and the profile run among them."""
    times = _Times()
    for round_ in range(rounds + WARM_UP):
        if round_ == WARM_UP:
            times = _Times()
        if round_ % 2:
            times.guided_s.append(_guided(chat, tokens))
            times.bare_s.append(bare.run(prompt, tokens).seconds / (tokens - 1))
        else:
            times.bare_s.append(bare.run(prompt, tokens).seconds / (tokens - 1))
            times.guided_s.append(_guided(chat, tokens))
        decoding, sampling = bare.parts(prompt, tokens)
        times.laps.setdefault("llama_decode", []).extend(decoding)
        times.laps.setdefault("greedy sampler", []).extend(sampling)
        with _stopwatch(times.laps) as lap:
            _profiled_answer(chat, prompt, tokens, lap)
    return times


def _guided(chat: OpenChat, count: int) -> float:
    """Answer once through the session, *count* tokens long; return seconds per token after the first."""
    session = chat.session
    session.clear()
    times = []
    for event in session.say(PROMPT):
        if isinstance(event, Token):
            times.append(time.perf_counter())
            if len(times) == count:
                return (times[-1] - times[0]) / (count - 1)
    raise RuntimeError(f"the answer ended after {len(times)} tokens: too short to measure {count}")


@contextmanager
def _stopwatch(laps: dict[str, list[float]]) -> Iterator[Callable[[str], None]]:
    """Yield a stopwatch: called with a name, it books the time since its last call under that name."""
    last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        if name:
            laps.setdefault(name, []).append(now - last)
        last = time.perf_counter()

    yield lap


def _profiled_answer(chat: OpenChat, prompt: list[int], count: int, lap: Callable[[str], None]) -> None:
    """Do what `decode` and `decide` do to *count* tokens, with a stopwatch between the parts."""
    base, reward, tokenizer = chat.base, chat.reward, chat.base.tokenizer
    if not isinstance(reward, OnnxHead):
        raise TypeError("the workload has a reward head")
    options = chat.session.options
    weights = np.array(list(chat.session.weights.values()), dtype=np.float32)
    push = weights * np.float32(options.strength)
    scratch = np.empty(base.vocabulary_size, dtype=np.float32)
    context, stream = list(prompt), TextStream(options.stop)
    state = base.prefill(context)
    lap("")
    for _ in range(count - 1):
        candidates = top_k(state.logits, options.candidates)
        base_logits = state.logits[candidates]
        lap("top-k")
        features = reward.features(
            Step(context=context, candidates=candidates, base_logits=base_logits, hidden=state.hidden, weights=weights)
        )
        lap("reward head")
        fallback = np.count_nonzero(np.isfinite(features)) != features.size
        chosen = int(combine(base_logits, features, push).argmax())
        lap("guided scores, choice")
        normalizer = log_normalizer(state.logits, scratch, peak=base_logits[0])
        lap("log-normalizer (for the trace)")
        trace = TokenTrace(
            candidates=candidates,
            base_scores=base_logits - np.float32(normalizer),
            features=features,
            push=push,
            chosen=chosen,
            base_choice=0,
            fallback=fallback,
        )
        lap("trace")
        token = int(trace.candidates[trace.chosen])
        tokenizer.is_end(token)
        context.append(token)
        Token(id=token, text=stream.feed(tokenizer.piece(token)), trace=trace)
        lap("detokenizing, stop strings")
        state = base.step(token)
        lap("step: llama_decode, hidden state, bookkeeping")


if __name__ == "__main__":
    main()
