"""The chat itself, as a profile wants it: the model's files, a real load of both models, and how fast tokens come.

Raises what opening raises; `finding.examine` makes findings of it. Rates in tokens per second, decoding only.
"""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from padlite.backends.onnx_lm import OnnxLm
from padlite.backends.onnx_runtime import CUDA
from padlite.diagnosis.finding import Fact, Finding, Status
from padlite.diagnosis.machine import gigabytes
from padlite.opening import OpenChat, Source, open_chat
from padlite.profile import Profile
from padlite.session import Finished, Session
from padlite.settings import Paths

PROMPTS = ("Tell me about yourself.", "What do you like best about the sea?", "How was your day?")
ANSWER_TOKENS = 48
COMFORTABLE = 5.0  # tokens per second, about as fast as people read
COSTLY = 0.5  # of the plain rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Tokens per second without and with the rewards; *steered_by* says what the rewards were asked for."""

    plain: float
    guided: float | None
    steered_by: str


def examine_files(source: Source) -> Finding:
    """Say whether the model's files are all there and unchanged; a bare GGUF has no hashes to compare with."""
    from padlite.bundle import verify

    if source.bundle is None:
        return Finding(subject="model files", text=f"{source.base}, no bundle: nothing to compare with")
    verify(source.bundle, everything=True)
    size = sum(file.size for file in source.bundle.files)
    return Finding(
        subject="model files",
        text=f"{source.name}: {len(source.bundle.files)} files, {gigabytes(size)}, hashes match",
        facts={"bundle": source.name, "folder": str(source.bundle.folder), "bytes": size},
    )


@contextlib.contextmanager
def opened(profile: Profile, paths: Paths) -> Iterator[tuple[OpenChat, Finding]]:
    """Open the chat that *profile* means, and yield it with what there is to say about it."""
    start = time.perf_counter()
    with open_chat(profile, paths=paths) as chat:
        yield chat, _loaded(chat, time.perf_counter() - start)


def _loaded(chat: OpenChat, seconds: float) -> Finding:
    base, reward = chat.base, chat.reward
    names = tuple(dimension.name for dimension in chat.session.dimensions)
    facts: dict[str, Fact] = {
        "model": chat.model_name,
        "description": base.description,
        "context_length": base.context_length,
        "dimensions": names,
        "seconds": round(seconds, 3),
        "gpu_layers": base.gpu_layers,
        "reward_provider": reward.provider if reward else None,
    }
    length = base.context_length
    kind = "reward LM" if isinstance(reward, OnnxLm) else "reward head"
    head = f"{kind} for {', '.join(names)}" if reward else "no reward model"
    on_gpu, rewards_on_gpu = base.gpu_layers > 0, reward is not None and reward.provider == CUDA
    places = "on the GPU" if on_gpu else "on the CPU"
    if reward is not None and on_gpu is not rewards_on_gpu:
        places += ", its rewards on the GPU" if rewards_on_gpu else ", its rewards on the CPU"
    return Finding(
        subject="model",
        text=f"{chat.model_name} ({base.description}), context {length:,}, {head}; opened in {seconds:.1f} s, {places}",
        facts=facts,
    )


def measure_speed(session: Session, *, seconds: float, clock: Callable[[], float] = time.perf_counter) -> Speed:
    """Let *session* answer without and with its rewards in turns, for *seconds* in all; it is empty afterwards.

    A session whose weights are all 0 is steered by its first dimension, because otherwise there is nothing to measure.
    """
    wanted = [name for name, weight in session.weights.items() if weight]
    steered_by = "the profile" if wanted else f"{session.dimensions[0].name} = 1" if session.dimensions else ""
    if not wanted and session.dimensions:
        session.set_weight(session.dimensions[0].name, 1.0)
    options = dataclasses.replace(session.options, max_tokens=ANSWER_TOKENS)
    strengths = [0.0, options.strength or 1.0] if session.dimensions else [0.0]
    rates: dict[float, list[float]] = {strength: [] for strength in strengths}
    end, turn = clock() + seconds, 0
    while turn < 2 * len(strengths) or clock() < end:
        strength = strengths[turn % len(strengths)]
        session.options = dataclasses.replace(options, strength=strength)
        count, took = _answer(session, PROMPTS[turn // len(strengths) % len(PROMPTS)])
        if turn >= len(strengths) and took:  # the first answers warm up
            rates[strength].append(count / took)
        turn += 1
    # the median: other programs stall an answer or two
    medians = [statistics.median(rates[strength] or [0.0]) for strength in strengths]
    return Speed(plain=medians[0], guided=medians[1] if len(medians) > 1 else None, steered_by=steered_by)


def _answer(session: Session, prompt: str) -> tuple[int, float]:
    """Return the steps and the seconds that one answer took after its first token."""
    session.clear()
    answer = next(event.answer for event in session.say(prompt) if isinstance(event, Finished))
    session.clear()
    return max(0, answer.usage.completion_tokens - 1), answer.timings.decode_s


def judge_speed(speed: Speed) -> Finding:
    """Say how fast the model answers, and what the profile costs."""
    facts: dict[str, Fact] = {"plain_tokens_per_s": round(speed.plain, 1), "guided_tokens_per_s": None}
    text = f"{speed.plain:.1f} tokens per second"
    if speed.guided is not None:
        facts["guided_tokens_per_s"] = round(speed.guided, 1)
        text += f" without and {speed.guided:.1f} with guidance (by {speed.steered_by})"
    status, remedy = Status.OK, ""
    slowest = min(speed.plain, speed.guided if speed.guided is not None else speed.plain)
    if slowest == 0:
        status, text = Status.WARN, "the model ends its answers at once, so there is nothing to measure"
        remedy = "check that it is an instruction-tuned (chat) model"
    elif slowest < COMFORTABLE:
        status, remedy = Status.WARN, "choose a smaller model, or try other numbers of threads under [engine]"
        text += ": slower than people read"
    elif speed.guided is not None and speed.guided < COSTLY * speed.plain:
        status, remedy = Status.WARN, "close other programs and try again; if it stays so, report it"
        text += ": guidance should cost far less"
    return Finding(subject="speed", text=text, status=status, remedy=remedy, facts=facts)
