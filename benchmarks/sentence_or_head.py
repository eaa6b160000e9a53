"""What a sentence costs as it is and as a dimension: time for a token, and how far the answers lean towards it.

    python -m benchmarks.sentence_or_head --sentence "Be witty." --model padlite-tiny

Makes the dimension first, in a data folder of its own. Then the same
prompts are answered plainly, by the contrast (in one batch, one by one, and as padlite chooses) and by the dimension at
the weight that is as strong; the ways take turns in one process. One JSON line on stdout.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx import OnnxHead
from padlite.contrast import ContrastReward
from padlite.decode import Guidance, Token, decode
from padlite.dimensions.adding import Making, Report, Wanted, add_dimensions
from padlite.dimensions.prompts import ordinary_prompts
from padlite.dimensions.shelf import Shelf
from padlite.opening import chat_template, find_source
from padlite.options import DecodingOptions, EngineOptions
from padlite.profile import Profile
from padlite.prompt import prompt_tokens
from padlite.seams import BaseModel, Dimension, Message, RewardModel
from padlite.settings import Paths
from padlite.streams import Streams

NAME = "benchmark"


class Silent:
    """Watches the making without a word."""

    def stage(self, text: str, total: int) -> None:
        """Say nothing."""

    def reached(self, step: float) -> None:
        """Say nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentence", default="Be witty.")
    parser.add_argument("--model", default="padlite-tiny", help="a bundle's name or a GGUF file")
    parser.add_argument("--answers", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=60)
    arguments = parser.parse_args()
    model = Path(arguments.model)
    profile = Profile(base=model.absolute()) if model.suffix == ".gguf" else Profile(model=arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(config=Path(folder) / "config", data=Path(folder) / "data", cache=Path(folder) / "cache")
        shelf = Shelf(source=find_source(profile, paths=paths), paths=paths)
        began = time.perf_counter()
        making = Making(prompts=ordinary_prompts(), answers=arguments.answers, threads=arguments.threads)
        added = add_dimensions(shelf, [Wanted(name=NAME, sentence=arguments.sentence)], making, Silent())
        report = added.reports[0]
        spent = time.perf_counter() - began
        times = measure(added.head, report, shelf.source.base, arguments)
    plain = times["plain"]
    print(
        json.dumps(
            {
                "sentence": arguments.sentence,
                "model": arguments.model,
                "making_s": round(spent, 1),
                "explained": round(report.explained, 3),
                "steering_of_the_teachers_own": round(report.steering, 3),
                "equal_weight": round(report.weight, 3),
                "perplexity": {
                    "plain": round(report.plain.perplexity, 2),
                    "teacher": round(report.taught.perplexity, 2),
                    "dimension": round(report.learned.perplexity, 2),
                },
                "ms_per_token": {way: round(1000 * seconds, 4) for way, seconds in times.items()},
                "times_plain": {way: round(seconds / plain, 3) for way, seconds in times.items()},
            }
        )
    )


def measure(head: Path | None, report: Report, base_path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds a token of each way; answers have equal lengths, as ends are not obeyed."""
    if head is None:
        raise RuntimeError("the dimension was not put in place")
    options = EngineOptions(context_length=1024, threads=arguments.threads, sequences=4, contexts=2)
    laps: dict[str, list[float]] = {}
    with LlamaModel.open(base_path, options) as base, OnnxHead.open(head, device="cpu") as reward:
        template = chat_template(base)

        def contrast(together: bool | None) -> tuple[BaseModel, RewardModel]:
            streams = Streams(base, together=together)
            told = [(Dimension(name=NAME), arguments.sentence)]
            return streams, ContrastReward(streams, base.tokenizer, template, told, sequences=[1])

        ways: dict[str, tuple[BaseModel, RewardModel | None, list[float]]] = {
            "plain": (base, None, []),
            "dimension": (base, reward, [report.weight * (each.name == NAME) for each in reward.dimensions]),
            "contrast, one batch": (*contrast(True), [1.0]),
            "contrast, one by one": (*contrast(False), [1.0]),
            "contrast, as chosen": (*contrast(None), [1.0]),
        }
        for _ in range(arguments.rounds):
            for prompt in report.prompts[: arguments.prompts]:
                messages = [Message(role="user", content=prompt)]
                ids = prompt_tokens(template, base.tokenizer, messages)
                for way, (stepped, reward_model, weights) in ways.items():
                    if reward_model is not None:
                        reward_model.begin(messages, ids, never)
                    laps.setdefault(way, []).append(
                        one_answer(stepped, base, reward_model, weights, ids, arguments.tokens)
                    )
    return {way: statistics.median(each for each in times if each) for way, times in laps.items()}


def one_answer(
    stepped: BaseModel, base: LlamaModel, reward: RewardModel | None, weights: list[float], ids: list[int], count: int
) -> float:
    """Return the seconds a token that one answer took after its first."""
    guidance = Guidance(weights=np.array(weights, dtype=np.float32), strength=1.0)
    endless = Endless(base)
    times = [
        time.perf_counter()
        for event in decode(
            stepped, endless, reward, ids, options=dataclasses.replace(DecodingOptions(), max_tokens=count),
            guidance=guidance, rng=np.random.default_rng(0), cancelled=never,
        )
        if isinstance(event, Token)
    ]  # fmt: skip
    return (times[-1] - times[0]) / (len(times) - 1)


class Endless:
    """The base's tokenizer, for which no token ends an answer."""

    def __init__(self, base: LlamaModel) -> None:
        self._tokenizer = base.tokenizer
        self.encode: Callable[..., list[int]] = base.tokenizer.encode
        self.piece = base.tokenizer.piece
        self.control_texts, self.beginning = base.tokenizer.control_texts, base.tokenizer.beginning

    def is_end(self, token: int) -> bool:
        """None does."""
        return False


def never() -> bool:
    """Nobody cancels."""
    return False


if __name__ == "__main__":
    main()
