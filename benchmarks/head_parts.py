"""What a reward head costs beside a step, by how many dimensions weigh anything; and how much of it any call would.

    python -m benchmarks.head_parts [--rounds 60] [--threads 0]

Answers of equal length on padlite-tiny, the ways in turns in one process: no reward, one that gives zeros, one that
runs an empty graph (ONNX Runtime's own floor), and the bundled head with one, two and all dimensions. One JSON line.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.sentence_or_head import never, one_answer
from padlite.backends.llama import LlamaModel
from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_runtime import bind, open_session, run_options, smallest_graph
from padlite.bundle import find_bundle
from padlite.opening import chat_template
from padlite.options import EngineOptions
from padlite.prompt import prompt_tokens
from padlite.seams import Dimension, FloatArray, Message, RewardModel, Step

TOKENS = 60


@dataclass(slots=True)
class Zeros:
    """A reward of zeros that does *work* at every step."""

    dimensions: tuple[Dimension, ...]
    work: Callable[[], object]
    reserved_tokens: int = 0

    def begin(self, messages: Sequence[Message], prompt: Sequence[int], cancelled: Callable[[], bool]) -> None:
        """Do nothing."""

    def advance(self, context: Sequence[int], weights: FloatArray) -> None:
        """Do nothing."""

    def features(self, step: Step) -> FloatArray:
        """Do the work and return zeros, (k, m)."""
        self.work()
        return np.zeros((len(step.candidates), len(self.dimensions)), dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    bundle = find_bundle("padlite-tiny")
    if bundle.reward is None:
        raise RuntimeError("the bundled model has a reward head")
    options = EngineOptions(context_length=1024, threads=arguments.threads, sequences=3)
    with LlamaModel.open(bundle.base, options) as base, OnnxHead.open(bundle.reward, device="cpu") as head:
        ids = prompt_tokens(chat_template(base), base.tokenizer, [Message(role="user", content="Tell me a story.")])
        ways: dict[str, tuple[RewardModel | None, int]] = {
            "plain": (None, 0),
            "zeros": (Zeros(head.dimensions, never), 1),
            "empty graph": (Zeros(head.dimensions, empty_graph()), 1),
            "1 dimension": (head, 1),
            "2 dimensions": (head, 2),
            "all dimensions": (head, len(head.dimensions)),
        }
        laps: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            for way, (reward, wanted) in ways.items():
                weights = [0.5 * (number < wanted) for number in range(len(head.dimensions))]
                laps[way].append(one_answer(base, base, reward, weights, ids, TOKENS))
    medians = {way: 1e6 * statistics.median(times) for way, times in laps.items()}
    print(
        json.dumps(
            {
                "us_per_token": {way: round(time, 1) for way, time in medians.items()},
                "added_us": {way: round(time - medians["plain"], 1) for way, time in medians.items()},
                "times_plain": {way: round(time / medians["plain"], 3) for way, time in medians.items()},
            }
        )
    )


def empty_graph() -> Callable[[], object]:
    """Return a run of a graph that copies one number, bound as the head's is."""
    session, settings = open_session(smallest_graph(), "cpu"), run_options()
    x, y = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.float32)
    binding = bind(session, {"x": x}, {"y": y})

    def run() -> object:
        session.run_with_iobinding(binding, settings)
        return x, y  # which must live as long as the binding

    return run


if __name__ == "__main__":
    main()
