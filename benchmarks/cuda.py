"""An NVIDIA GPU against the CPU: base alone, base and head, base and reward LM; and whether both compute the same.

    python benchmarks/cuda.py [--base GGUF --head ONNX] [--reward-lm ONNX --told TEXT] [--tokens 128] [--rounds 8]

Needs a llama.cpp that is built for CUDA; the head runs on CUDA with onnxruntime-gpu, else on the CPU. A reward LM runs
on the CPU in any case, beside a base on the GPU. Rounds on both devices alternate, medians count. `--rehearse` runs all
of it without a GPU, the CPU against itself.
"""

import argparse
import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bare_loop import silence
from benchmarks.workloads import PROMPT, print_result, say, workload
from padlite.backends import llama_devices
from padlite.backends.llama import LlamaModel
from padlite.backends.onnx import OnnxHead
from padlite.errors import BackendError
from padlite.opening import OpenChat, open_chat
from padlite.options import EngineOptions
from padlite.profile import Decoding, Profile
from padlite.seams import Step
from padlite.session import Finished

TEXT = (
    "The lighthouse keeper counted the ships that passed, wrote their names into a book, and told the gulls about them."
)
CONTEXT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far two devices are apart on `TEXT`: largest differences, and the share of equal first choices."""

    base_logprob: float
    base_top_1: float
    head_feature: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path)
    parser.add_argument("--head", type=Path)
    parser.add_argument("--reward-lm", type=Path)
    parser.add_argument("--told", default="helpfulness", help="what the reward LM is told to prefer")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    silence()
    gpu = "cpu" if arguments.rehearse else "auto"
    if not arguments.rehearse:
        try:
            found = llama_devices.allowed(EngineOptions(device="cuda")) or ()
        except BackendError as error:
            sys.exit(f"{error.message}\ntry: {error.remedy}")
        say(", ".join(each.description for each in found))
    if arguments.base is None:
        work = workload("random-135m")
        base, head = work.base, work.reward
    else:
        base, head = arguments.base, arguments.head
    plain = Profile(base=base, context_length=CONTEXT)
    cases = {"base alone": plain}
    if head is not None:
        cases["base and head"] = replace(plain, reward=head)
    if arguments.reward_lm is not None:
        cases["base and reward LM"] = replace(plain, reward=arguments.reward_lm, reward_text=arguments.told)
    for name, profile in cases.items():
        measure(name, profile, gpu=gpu, tokens=arguments.tokens, rounds=arguments.rounds)
    same = parity(base, head, gpu=gpu)
    print_result(
        "cuda_parity",
        {
            "base_logprob": same.base_logprob, "base_top_1": same.base_top_1, "head_feature": same.head_feature,
            "rehearsal": arguments.rehearse,
        },
    )  # fmt: skip
    say(
        f"parity: log-probabilities within {same.base_logprob:.2g}, first choice the same in {same.base_top_1:.1%}, "
        f"features within {same.head_feature:.2g}"
    )


def measure(name: str, profile: Profile, *, gpu: str, tokens: int, rounds: int) -> None:
    """Print tokens per second of *profile* on the CPU and on the device *gpu*."""
    decoding: Decoding = {"max_tokens": tokens}
    with ExitStack() as stack:
        chats = {
            label: stack.enter_context(open_chat(replace(profile, decoding=decoding, device=device)))
            for label, device in (("cpu", "cpu"), ("gpu", gpu))
        }
        rates: dict[str, list[float]] = {label: [] for label in chats}
        for turn in range(rounds + 1):
            for label, chat in chats.items():
                rate = _rate(chat)
                if turn:  # the first round warms up
                    rates[label].append(rate)
        on_gpu = chats["gpu"]
        medians = {label: statistics.median(values) for label, values in rates.items()}
        print_result(
            "cuda",
            {
                "case": name, "model": on_gpu.model_name, "gpu_layers": on_gpu.base.gpu_layers,
                "reward_provider": on_gpu.reward.provider if on_gpu.reward else "", "tokens": tokens, "rounds": rounds,
                "cpu_tokens_per_s": round(medians["cpu"], 1), "gpu_tokens_per_s": round(medians["gpu"], 1),
            },
        )  # fmt: skip
        say(f"{name:20} CPU {medians['cpu']:9.1f} tokens/s   GPU {medians['gpu']:9.1f} tokens/s")


def parity(base: Path, head: Path | None, *, gpu: str) -> Parity:
    """Return how far the CPU and the device *gpu* are apart on `TEXT`."""
    with ExitStack() as stack:
        models = [
            stack.enter_context(LlamaModel.open(base, EngineOptions(context_length=CONTEXT, device=device)))
            for device in ("cpu", gpu)
        ]
        tokens = models[0].tokenizer.encode(TEXT, special=False)
        logprobs, states = [], []
        for model in models:
            rows = [(state.logits.copy(), state.hidden.copy()) for state in model.states(tokens, first=0)]
            logprobs.append(np.stack([logits - np.logaddexp.reduce(logits) for logits, _ in rows]))
            states.append([hidden for _, hidden in rows])
        features = 0.0
        if head is not None:
            heads = [stack.enter_context(OnnxHead.open(head, device=device)) for device in ("cpu", gpu)]
            for hidden, row in zip(states[0], logprobs[0], strict=True):
                step = Step(
                    context=(), candidates=np.argsort(-row)[:10].astype(np.int64), base_logits=row[:10], hidden=hidden,
                    weights=np.ones(len(heads[0].dimensions), dtype=np.float32),
                )  # fmt: skip
                one, other = (each.features(step).copy() for each in heads)
                features = max(features, float(np.abs(one - other).max()))
        return Parity(
            base_logprob=float(np.abs(logprobs[0] - logprobs[1]).max()),
            base_top_1=float((logprobs[0].argmax(axis=1) == logprobs[1].argmax(axis=1)).mean()),
            head_feature=features,
        )


def _rate(chat: OpenChat) -> float:
    """Return the tokens per second after the first one, of one answer."""
    session = chat.session
    session.clear()
    for dimension in session.dimensions:
        session.set_weight(dimension.name, 0.5)
    answer = next(event.answer for event in session.say(PROMPT) if isinstance(event, Finished))
    return max(1, answer.usage.completion_tokens - 1) / max(answer.timings.decode_s, 1e-9)


if __name__ == "__main__":
    main()
