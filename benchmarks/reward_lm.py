"""What guidance by a reward LM costs, against the released loop's way and against transformers with a cache.

    python benchmarks/reward_lm.py [--context 512] [--tokens 24] [--rounds 7] [--threads 2]

One process, one set of weights everywhere: a random 60M Llama as GGUF (Q8_0) is the base; the same numbers in
transformers are its base model and its reward LM and, exported as int8, ours. Three ways to make a token at this
context take turns, medians count; the fourth is the bare base in llama.cpp, for the price of guidance. Times are those
on the clock and those of the processor, which mean something on a busy machine too if nobody spins (--threads 1).

    released     base and reward LM evaluate the whole text in PyTorch (float32), no cache
    with cache   base and reward LM evaluate one token in PyTorch (float32), each with its cache
    ours         `Session.say`: llama.cpp, the reward LM in ONNX Runtime, trace and text included; from two threads
                 on both evaluate a token at the same time

Needs the extras export and train.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers.modeling_outputs import CausalLMOutputWithPast

from benchmarks.bare_loop import BareLoop, silence
from benchmarks.same_weights import write_same_weights
from benchmarks.workloads import CANDIDATES, Json, print_result, say
from padlite.decode import Token
from padlite.opening import OpenChat, open_chat
from padlite.profile import Profile
from padlite.prompt import prompt_tokens
from padlite.template import Message
from padlite_export.reward import export_reward
from padlite_training.random_llama import LlamaShape, write_random_llama

LLAMA_60M = LlamaShape(
    vocabulary_size=49_152, hidden_size=512, layers=12, heads=8, kv_heads=4, feed_forward=1408, context_length=2048
)
BARS = {"released": 40.0, "with cache": 3.0, "bare": 0.5}
WEIGHT = 0.8
WARM_UP = 1  # rounds that don't count


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Time on the clock, and of the processor, all cores together."""

    seconds: float
    cpu_seconds: float

    @classmethod
    def now(cls) -> Self:
        """Read both clocks."""
        return cls(seconds=time.perf_counter(), cpu_seconds=time.process_time())

    def since(self, start: "Spent", count: int) -> "Spent":
        """Return what passed since *start*, divided by *count*."""
        return Spent(
            seconds=(self.seconds - start.seconds) / count, cpu_seconds=(self.cpu_seconds - start.cpu_seconds) / count
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The base, the same weights as a checkpoint, and the reward LM made of that."""

    base: Path
    checkpoint: Path
    reward: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--context", type=int, default=512, help="tokens before the first that is timed")
    parser.add_argument("--tokens", type=int, default=24, help="of a round, but for the released way, which makes one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    silence()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    files = written(Path(tempfile.gettempdir()) / "padlite-benchmarks" / "reward-lm-two-parts", LLAMA_60M)
    measure(
        files, context=arguments.context, tokens=arguments.tokens, rounds=arguments.rounds, threads=arguments.threads
    )


def written(folder: Path, shape: LlamaShape) -> Files:
    """Return the files of *shape* in *folder*, made where they aren't there yet."""
    files = Files(base=folder / "base.gguf", checkpoint=folder / "checkpoint", reward=folder / "reward.onnx")
    if not files.reward.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_random_llama(files.base, shape, seed=1)
        write_same_weights(files.base, shape, files.checkpoint)
        report = export_reward(files.checkpoint, files.reward, base=files.base, dtype="int8", preference="helpfulness")
        for label, value in report.rows():
            say(f"  {label:<36}{value}")
    return files


def measure(files: Files, *, context: int, tokens: int, rounds: int, threads: int) -> None:
    """Print the figures."""
    model = transformers.AutoModelForCausalLM.from_pretrained(files.checkpoint, dtype=torch.float32).eval()
    profile = Profile(
        base=files.base, reward=files.reward, preferences={"preference": WEIGHT}, threads=threads,
        context_length=context + 256,
        decoding={"candidates": CANDIDATES, "max_tokens": tokens},
    )  # fmt: skip
    with open_chat(profile) as chat, BareLoop(files.base, threads=threads, context_length=context + 256) as bare:
        message = filling(chat, context)
        prompt = prompt_tokens(chat.template, chat.base.tokenizer, [Message(role="user", content=message)])
        theirs = Theirs(model, prompt)
        ways: dict[str, Callable[[], Spent]] = {
            "released": theirs.without_cache,
            "with cache": lambda: theirs.with_cache(tokens),
            "ours": lambda: ours(chat, message),
            "bare": lambda: of_bare_loop(bare, prompt, tokens),
        }
        spent = taking_turns(ways, rounds)
    medians = {name: statistics.median(each.seconds for each in rows) for name, rows in spent.items()}
    cpu = {name: statistics.median(each.cpu_seconds for each in rows) for name, rows in spent.items()}
    ratios = {name: medians[name] / medians["ours"] for name in BARS}
    cpu_ratios = {name: cpu[name] / cpu["ours"] for name in BARS}
    paired = {
        name: statistics.median(a.seconds / b.seconds for a, b in zip(spent[name], spent["ours"], strict=True))
        for name in BARS
    }
    result: dict[str, Json] = {
        "context": len(prompt), "tokens": tokens, "rounds": rounds, "threads": threads,
        "parameters": sum(each.numel() for each in model.parameters()),
    }  # fmt: skip
    tables = {"ms": medians, "cpu_ms": cpu}
    result |= {f"{_key(name)}_{kind}": round(1e3 * s, 3) for kind, table in tables.items() for name, s in table.items()}
    kinds = {"ratio": ratios, "paired": paired, "cpu_ratio": cpu_ratios}
    result |= {f"{kind}_{_key(name)}": round(each, 3) for kind, table in kinds.items() for name, each in table.items()}
    print_result("reward_lm", result)
    say(f"\n60M base and reward LM, {len(prompt)} tokens of context, {threads} threads, {rounds} rounds, ms per token")
    for name, value in medians.items():
        say(f"  {name:12}{1e3 * value:10.2f}   {1e3 * cpu[name]:10.2f} of the processor")
    for name, bar in BARS.items():
        verdict = "reaches" if ratios[name] >= bar else "MISSES"
        figures = f"{ratios[name]:8.2f} × (pairs {paired[name]:.2f}, processor {cpu_ratios[name]:.2f}"
        say(f"  ours against {name:12}{figures}; {verdict} {bar:g})")


def _key(name: str) -> str:
    return name.replace(" ", "_")


def taking_turns(ways: dict[str, Callable[[], Spent]], rounds: int) -> dict[str, list[Spent]]:
    """Return what a token of each way took in each round: the order alternates, the first round doesn't count."""
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    for number in range(-WARM_UP, rounds):
        names: Sequence[str] = list(ways) if number % 2 else list(reversed(ways))
        for name in names:
            token = ways[name]()
            if number >= 0:
                spent[name].append(token)
    return spent


def filling(chat: OpenChat, context: int) -> str:
    """Return a message whose prompt has about *context* tokens."""
    words = "the one in other hand you and that "
    text = words
    while len(prompt_tokens(chat.template, chat.base.tokenizer, [Message(role="user", content=text)])) < context:
        text += words
    return text


def ours(chat: OpenChat, message: str) -> Spent:
    """Return what a token of an answer to *message* takes, from its first token to its last."""
    clocks = list(_clocks(chat, message))
    chat.session.undo()
    return clocks[-1].since(clocks[0], len(clocks) - 1)


def of_bare_loop(bare: BareLoop, prompt: Sequence[int], count: int) -> Spent:
    """Return what a token of the base alone takes."""
    run = bare.run(prompt, count)
    return Spent(seconds=run.seconds / (count - 1), cpu_seconds=run.cpu_seconds / (count - 1))


def _clocks(chat: OpenChat, message: str) -> Iterator[Spent]:
    for event in chat.session.say(message):
        if isinstance(event, Token):
            yield Spent.now()


class Theirs:
    """PAD's step in transformers: base and reward LM have the same weights, so one model plays both."""

    def __init__(self, model: transformers.PreTrainedModel, prompt: Sequence[int]) -> None:
        self._model, self._prompt = model, list(prompt)

    @torch.no_grad()
    def without_cache(self) -> Spent:
        """Return what one token takes as the released loop makes it."""
        began = Spent.now()
        ids = torch.tensor([self._prompt])
        self._choose(
            self._model(input_ids=ids, use_cache=False).logits, self._model(input_ids=ids, use_cache=False).logits
        )
        return Spent.now().since(began, 1)

    @torch.no_grad()
    def with_cache(self, count: int) -> Spent:
        """Return what a token takes of *count* tokens after the prompt, which is evaluated before."""
        outputs = [
            self._model(input_ids=torch.tensor([self._prompt]), use_cache=True, logits_to_keep=1) for _ in range(2)
        ]
        token = self._choose(*(each.logits for each in outputs))
        began = Spent.now()
        for _ in range(count):
            outputs = [self._next(each, token) for each in outputs]
            token = self._choose(*(each.logits for each in outputs))
        return Spent.now().since(began, count)

    def _next(self, before: CausalLMOutputWithPast, token: int) -> CausalLMOutputWithPast:
        name = next(name for name in ("cache", "past_key_values") if name in before)  # renamed in transformers 5
        return self._model(input_ids=torch.tensor([[token]]), use_cache=True, **{name: before[name]})

    @staticmethod
    def _choose(base: torch.Tensor, reward: torch.Tensor) -> int:
        """Return the best of the base's candidates by (1 − w) · base + w · reward."""
        scores, ids = torch.topk(base[0, -1], CANDIDATES)
        judged = torch.log_softmax(reward[0, -1][ids], dim=-1) - torch.log_softmax(scores, dim=-1)
        return int(ids[(scores + WEIGHT * judged).argmax()])


if __name__ == "__main__":
    main()
