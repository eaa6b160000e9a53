"""How to decode and how to run the engine: immutable options, checked once when they are made.

Defaults are the ones of `padlite chat`. Knows nothing of profiles, files or models.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from padlite.errors import UsageError, did_you_mean


class OverflowPolicy(StrEnum):
    """What to do when the next turn doesn't fit the context."""

    STOP = "stop"
    DROP_OLDEST = "drop-oldest"


DEVICES = ("auto", "cpu", "cuda")

LARGEST_WEIGHT = 10.0  # of a preference, either way; from -1 to 1 by convention


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingOptions:
    """One answer's settings.

    *strength* is the guidance strength β (0 = the base model, exactly), *candidates* the number k of tokens that the
    base proposes. *temperature* 0 always takes the best one; above 0 the scores of those left by *top_p* and *min_p*
    are sampled. *repetition_penalty* 1 is off; it looks at the last *repetition_window* tokens.
    *max_tokens* 0 means: until the model ends the answer or the context is full.

    *frequency_penalty* takes so many nats from a token for each time that the answer has it, *presence_penalty* once;
    *logit_bias* adds to the logits of single tokens (id, nats). *grammar* (GBNF, rule ``root``) is what the answer must
    fit, or empty.
    """

    strength: float = 1.0
    candidates: int = 10
    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = 64
    seed: int | None = None
    max_tokens: int = 0
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: str = ""

    def __post_init__(self) -> None:
        _check("strength", self.strength, low=-100.0, high=100.0)
        _check("candidates", self.candidates, low=1, high=1000)
        _check("temperature", self.temperature, low=0.0, high=100.0)
        _check("top_p", self.top_p, low=0.0, high=1.0)
        _check("min_p", self.min_p, low=0.0, high=1.0)
        _check("repetition_penalty", self.repetition_penalty, low=0.01, high=100.0)
        _check("repetition_window", self.repetition_window, low=0, high=1_000_000)
        _check("max_tokens", self.max_tokens, low=0, high=1_000_000_000)
        _check("frequency_penalty", self.frequency_penalty, low=-100.0, high=100.0)
        _check("presence_penalty", self.presence_penalty, low=-100.0, high=100.0)
        for _, bias in self.logit_bias:
            _check("logit_bias", bias, low=-1000.0, high=1000.0)
        if self.seed is not None:
            _check("seed", self.seed, low=0, high=2**64 - 1)
        if any(not text for text in self.stop):
            raise UsageError("stop: an empty stop string would end every answer", remedy="leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How the models run.

    *device* 'auto' takes a GPU where one can be used and says nothing where not, 'cpu' uses none, 'cuda' insists.
    0 *threads* = one per physical core; *context_length* in tokens, 0 = what the model was trained for but at most
    *largest_context* (a cache for 128k would take gigabytes); *gpu_layers* -1 = as many as fit; *batch_size* tokens are
    prefilled at once; *sequences* share a cache with room for *contexts* full contexts; *hidden_states* are needed by a
    reward head; *exact* keeps the cache in float32 and attends without shortcuts, for comparisons.
    """

    context_length: int = 0
    largest_context: int = 8192
    threads: int = 0
    gpu_layers: int = -1
    device: str = "auto"
    batch_size: int = 512
    sequences: int = 4
    contexts: int = 1
    hidden_states: bool = True
    exact: bool = False

    def __post_init__(self) -> None:
        _check("context_length", self.context_length, low=0, high=10_000_000)
        _check("largest_context", self.largest_context, low=1, high=10_000_000)
        _check("threads", self.threads, low=0, high=1024)
        _check("gpu_layers", self.gpu_layers, low=-1, high=100_000)
        if self.device not in DEVICES:
            raise UsageError(
                f"device: {self.device!r} is none{did_you_mean(self.device, DEVICES)}",
                remedy=f"set device to one of: {', '.join(DEVICES)}",
            )
        if self.device == "cpu" and self.gpu_layers > 0:
            raise UsageError(
                f"gpu_layers: {self.gpu_layers} layers on the GPU contradict the device 'cpu'",
                remedy="leave out one of the two",
            )
        _check("batch_size", self.batch_size, low=1, high=65_536)
        _check("sequences", self.sequences, low=1, high=64)
        _check("contexts", self.contexts, low=1, high=64)


def _check(name: str, value: float, *, low: float, high: float) -> None:
    """Raise UsageError unless *value* is a finite number in [*low*, *high*]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(
            f"{name}: {value!r} is not a finite number", remedy=f"set {name} to a number from {low:g} to {high:g}"
        )
    if not low <= value <= high:
        raise UsageError(
            f"{name}: {value!r} is out of range", remedy=f"set {name} to a number from {low:g} to {high:g}"
        )
