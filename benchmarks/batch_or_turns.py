"""Two answers at once: is a batch of two faster than two single steps? What `padlite serve --parallel` rests on.

    python benchmarks/batch_or_turns.py [--model random-135m|padlite-tiny] [--tokens 24] [--rounds 20]

Both step the same two sequences by the same tokens, rounds alternate, the median of the rounds' ratios counts. Above 1
the batch is slower than the turns that the server takes.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.workloads import MODELS, PROMPT, Workload, print_result, say, workload
from padlite.backends.llama import LlamaModel, physical_cores
from padlite.options import EngineOptions

WARM_UP = 1  # rounds that don't count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=physical_cores())
    arguments = parser.parse_args()
    for name in arguments.model or MODELS:
        measure(workload(name), tokens=arguments.tokens, rounds=arguments.rounds, threads=arguments.threads)


def measure(work: Workload, *, tokens: int, rounds: int, threads: int) -> None:
    """Print the figures of one model."""
    options = EngineOptions(context_length=work.context_length, threads=threads, sequences=2, contexts=2)
    with LlamaModel.open(work.base, options) as base:
        prompts = [base.tokenizer.encode(text, special=False) for text in (PROMPT, f"{PROMPT} {PROMPT}")]

        def turns(token: int) -> None:
            base.step(token, sequence=0)
            base.step(token, sequence=1)

        def batch(token: int) -> None:
            base.step_together(token, [0, 1])

        ways: dict[str, Callable[[int], None]] = {"turns": turns, "batch": batch}
        times: dict[str, list[float]] = {way: [] for way in ways}
        for round_ in range(rounds + WARM_UP):
            for way in sorted(ways, reverse=bool(round_ % 2)):
                for sequence, prompt in enumerate(prompts):
                    base.prefill(prompt, sequence=sequence)
                start = time.perf_counter()
                for token in range(20, 20 + tokens):
                    ways[way](token)
                times[way].append((time.perf_counter() - start) / tokens)
    pairs = [batch / turns for batch, turns in zip(times["batch"], times["turns"], strict=True)][WARM_UP:]
    milliseconds = {way: 1e3 * statistics.median(each[WARM_UP:]) for way, each in times.items()}
    print_result(
        "batch_or_turns",
        {
            "model": work.name,
            "batch_by_turns": round(statistics.median(pairs), 3),
            "two_tokens_ms": {way: round(value, 3) for way, value in milliseconds.items()},
            "threads": threads,
            "tokens": tokens,
            "rounds": rounds,
        },
    )
    say(
        f"{work.name}, {threads} threads: two tokens take {milliseconds['turns']:.2f} ms in turns, "
        f"{milliseconds['batch']:.2f} ms in a batch; batch / turns {statistics.median(pairs):.2f}"
    )


if __name__ == "__main__":
    main()
