"""A conversation of 200 turns: does memory stay flat, does a token keep its price, also when old turns are dropped?

    python benchmarks/long_conversation.py [--model padlite-tiny|random-135m] [--turns 200]

The second half is judged against the first turns after the context has filled up: by then everything that is allowed
to grow has grown.
"""

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bare_loop import silence
from benchmarks.workloads import MODELS, print_result, say, workload
from padlite.opening import open_chat
from padlite.options import OverflowPolicy
from padlite.session import Dropped, Finished, Session

MEMORY_BAR_MB = 8.0
TIME_BAR = 1.25
ANSWER_TOKENS = 48
LINES = (
    "Hello, how are you?",
    "What do you like to do on a rainy day?",
    "Tell me something about the sea.",
    "Do you think that cats are clever?",
    "I had soup for lunch, and it was far too salty.",
    "What should I read next?",
    "My sister is coming to visit on Sunday.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one turn took: resident memory after it, milliseconds per token, tokens evaluated and used."""

    rss_mb: float
    token_ms: float
    first_token_ms: float
    evaluated: int
    context_used: int
    dropped: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="padlite-tiny")
    parser.add_argument("--turns", type=int, default=200)
    arguments = parser.parse_args()
    silence()
    work = workload(arguments.model)
    profile = dataclasses.replace(work.profile(), overflow=OverflowPolicy.DROP_OLDEST)
    with open_chat(profile) as chat:
        chat.session.options = dataclasses.replace(chat.session.options, max_tokens=ANSWER_TOKENS)
        turns = converse(chat.session, arguments.turns)
    report(work.name, turns)


def converse(session: Session, count: int) -> list[Turn]:
    """Return what each of *count* turns took."""
    process = psutil.Process()
    turns = []
    for number in range(count):
        dropped = 0
        for event in session.say(LINES[number % len(LINES)]):
            if isinstance(event, Dropped):
                dropped += event.turns
            elif isinstance(event, Finished):
                usage, timings = event.answer.usage, event.answer.timings
                steps = max(1, usage.completion_tokens - 1)
                turns.append(
                    Turn(
                        rss_mb=process.memory_info().rss / 1e6,
                        token_ms=1e3 * timings.decode_s / steps,
                        first_token_ms=1e3 * timings.first_token_s,
                        evaluated=usage.evaluated_tokens,
                        context_used=usage.prompt_tokens + usage.completion_tokens,
                        dropped=dropped,
                    )
                )
    return turns


def growth_mb(turns: Sequence[Turn]) -> float:
    """Return how much more memory the last tenth of *turns* holds than the tenth after the context first overflowed."""
    early, late = _ends(turns)
    return statistics.median(turn.rss_mb for turn in late) - statistics.median(turn.rss_mb for turn in early)


def slowdown(turns: Sequence[Turn]) -> float:
    """Return the time per token of the last tenth of *turns* as a multiple of that after the context overflowed."""
    early, late = _ends(turns)
    return statistics.median(turn.token_ms for turn in late) / statistics.median(turn.token_ms for turn in early)


def _ends(turns: Sequence[Turn]) -> tuple[Sequence[Turn], Sequence[Turn]]:
    share = max(1, len(turns) // 10)
    overflow = next((i for i, turn in enumerate(turns) if turn.dropped), 0)
    first = min(overflow, len(turns) - 2 * share)
    return turns[first : first + share], turns[-share:]


def report(model: str, turns: Sequence[Turn]) -> None:
    """Print the figures and the verdict."""
    grown, slower = growth_mb(turns), slowdown(turns)
    overflow = next((i + 1 for i, turn in enumerate(turns) if turn.dropped), None)
    print_result(
        "long_conversation",
        {
            "model": model,
            "turns": len(turns),
            "first_drop_at_turn": overflow,
            "dropped_turns": sum(turn.dropped for turn in turns),
            "growth_mb": round(grown, 2),
            "memory_bar_mb": MEMORY_BAR_MB,
            "slowdown": round(slower, 3),
            "time_bar": TIME_BAR,
            "first_token_ms_median": round(statistics.median(turn.first_token_ms for turn in turns), 2),
            "first_token_ms_worst": round(max(turn.first_token_ms for turn in turns), 2),
        },
    )
    say(f"{model}, {len(turns)} turns; the first drop of old turns at turn {overflow}")
    say("  turn     RSS MB   ms/token   first token ms   evaluated   context   dropped")
    for i in sorted({*range(0, len(turns), max(1, len(turns) // 10)), len(turns) - 1}):
        turn = turns[i]
        say(
            f"  {i + 1:4} {turn.rss_mb:10.1f} {turn.token_ms:10.3f} {turn.first_token_ms:16.2f} {turn.evaluated:11}"
            f" {turn.context_used:9} {turn.dropped:9}"
        )
    good = grown <= MEMORY_BAR_MB and slower <= TIME_BAR
    say(f"  memory {grown:+.2f} MB, time per token × {slower:.2f}: {'flat' if good else 'NOT FLAT'}")


if __name__ == "__main__":
    main()
