"""Proof that a GGUF file computes what its source does: logits (V,) and hidden states (d,) after the same tokens.

The source runs in PyTorch in float32; GGUF files run in llama.cpp, their cache in float32 as well, so that nothing but
the weights' number format is measured. Differences of logits are in nats. Also whether both read text alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from tokenizers import Tokenizer

from padlite.backends.llama import LlamaModel, LlamaTokenizer
from padlite.errors import BackendError
from padlite.options import EngineOptions
from padlite.seams import FloatArray
from padlite_export.checkpoint import Checkpoint
from padlite_export.parity import TEXT
from padlite_export.reward import AWKWARD

LONGEST = 128  # tokens of a prompt
PROMPTS = {
    "english": TEXT,
    "code": "def area(radius: float) -> float:\n    return 3.14159 * radius ** 2  # in m²\n\nprint(area(2.5))\n",
    "languages": "Grüße aus Köln. 東京は夜です。 Привет, мир! ¿Qué tal? emoji 👩‍👩‍👧 🚀",
}
"""Read as the source's tokenizer reads them; random tokens besides."""

Outputs: TypeAlias = list[tuple[FloatArray, FloatArray]]
"""Logits (T, V) and hidden states (T, d) of each prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closeness:
    """How close two models are after *states* prefixes of *prompt*: cosines are the least, differences the largest.

    *same_best* is the share of states after which both have the same most likely token.
    """

    prompt: str
    states: int
    logits_cosine: float
    logits_difference: float
    same_best: float
    hidden_cosine: float
    hidden_difference: float

    def row(self) -> str:
        """Return its figures on one line."""
        return (
            f"{self.logits_cosine:.6f}, {self.logits_difference:.3g} nats; {self.same_best:.2%}; "
            f"hidden {self.hidden_cosine:.6f}, {self.hidden_difference:.3g} ({self.states})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The closeness of two models on every prompt, and over all."""

    overall: Closeness
    prompts: tuple[Closeness, ...]

    def require(self, largest: float, same: float, *, remedy: str) -> None:
        """Raise BackendError unless no logit is off by over *largest* and at least *same* of the states agree."""
        if not (self.overall.logits_difference <= largest and self.overall.same_best >= same):
            raise BackendError(
                f"the GGUF doesn't compute what its source does: a logit is off by "
                f"{self.overall.logits_difference:.4g} (allowed {largest:g}), the most likely token is the same after "
                f"{self.overall.same_best:.1%} of the texts (needed {same:.1%})",
                remedy=remedy,
            )

    def rows(self, title: str) -> list[tuple[str, str]]:
        """Return it as rows of a table."""
        return [(title, self.overall.row()), *((f"  {each.prompt}", each.row()) for each in self.prompts)]


def prompts_of(checkpoint: Checkpoint, *, seed: int = 0) -> dict[str, list[int]]:
    """Return the prompts as token ids, none longer than the model's context."""
    config = checkpoint.model.config
    longest = min(LONGEST, int(getattr(config, "max_position_embeddings", LONGEST)))
    random = np.random.default_rng(seed).integers(0, int(config.vocab_size), longest).tolist()
    read = {
        name: checkpoint.tokenizer.encode(text, add_special_tokens=False).ids[:longest]
        for name, text in PROMPTS.items()
    }
    return {**{name: ids for name, ids in read.items() if ids}, "random tokens": random}


@torch.no_grad()
def source_outputs(checkpoint: Checkpoint, prompts: Sequence[list[int]]) -> Outputs:
    """Return what the source computes, without PAD's value head if it has one: that is no part of a base."""
    found: Outputs = []
    for ids in (torch.tensor([prompt]) for prompt in prompts):
        hidden = checkpoint.model.base_model(input_ids=ids).last_hidden_state[0]
        found.append((checkpoint.model(input_ids=ids).logits[0].numpy(), hidden.numpy()))
    return found


def gguf_outputs(path: Path, prompts: Sequence[list[int]], *, threads: int) -> Outputs:
    """Return what the GGUF at *path* computes. Raises BackendError if llama.cpp can't run it."""
    options = EngineOptions(context_length=2 * LONGEST, threads=threads, device="cpu", sequences=1, exact=True)
    found: Outputs = []
    with _opened(path, options) as model:
        for ids in prompts:
            states = [(state.logits.copy(), state.hidden.copy()) for state in model.states(ids, first=0)]
            found.append((np.stack([logits for logits, _ in states]), np.stack([hidden for _, hidden in states])))
    return found


def _opened(path: Path, options: EngineOptions) -> LlamaModel:
    try:
        return LlamaModel.open(path, options)
    except BackendError as error:
        raise BackendError(
            f"llama.cpp can't run what its converter wrote: {error.message}",
            remedy="check config.json against the weights, or report the architecture",
        ) from error


def compare(names: Sequence[str], found: Outputs, wanted: Outputs) -> Agreement:
    """Return how close *found* is to *wanted*, both after the prompts called *names*."""
    each = [_closeness(name, *pair) for name, *pair in zip(names, found, wanted, strict=True)]
    return Agreement(overall=_together(each), prompts=tuple(each))


def _closeness(name: str, found: tuple[FloatArray, FloatArray], wanted: tuple[FloatArray, FloatArray]) -> Closeness:
    if found[0].shape != wanted[0].shape or found[1].shape != wanted[1].shape:
        raise BackendError(
            f"the GGUF's logits and hidden states are {found[0].shape} and {found[1].shape}, the source's "
            f"{wanted[0].shape} and {wanted[1].shape}",
            remedy="report the architecture",
        )
    return Closeness(
        prompt=name,
        states=len(found[0]),
        logits_cosine=_least_cosine(found[0], wanted[0]),
        logits_difference=float(np.abs(found[0] - wanted[0]).max()),
        same_best=float(np.mean(found[0].argmax(axis=1) == wanted[0].argmax(axis=1))),
        hidden_cosine=_least_cosine(found[1], wanted[1]),
        hidden_difference=float(np.abs(found[1] - wanted[1]).max()),
    )


def _together(each: Sequence[Closeness]) -> Closeness:
    """Return the worst of each figure; NaN stays NaN."""
    states = sum(one.states for one in each)
    return Closeness(
        prompt="all",
        states=states,
        logits_cosine=float(np.min([one.logits_cosine for one in each])),
        logits_difference=float(np.max([one.logits_difference for one in each])),
        same_best=sum(one.states * one.same_best for one in each) / states,
        hidden_cosine=float(np.min([one.hidden_cosine for one in each])),
        hidden_difference=float(np.max([one.hidden_difference for one in each])),
    )


def _least_cosine(found: FloatArray, wanted: FloatArray) -> float:
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-30)).min())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How many awkward *texts* both tokenizers read *alike*, and those that they don't."""

    texts: int
    alike: int
    differing: tuple[str, ...]

    def row(self) -> str:
        """Return it in words."""
        rest = f"; not {', '.join(repr(text) for text in self.differing)}" if self.differing else ""
        return f"{self.alike} of {self.texts} awkward texts read alike{rest}"


def compare_reading(own: LlamaTokenizer, tokenizer: Tokenizer) -> Reading:
    """Return whether llama.cpp reads text as `tokenizers` does.

    Control tokens in a text count for both, as in a chat template; and for llama.cpp not at all in what people write.
    """
    control = [added.content for added in tokenizer.get_added_tokens_decoder().values() if added.special]
    texts = [*AWKWARD, *(f"a {text} in a text" for text in control[:8])]
    differing = [t for t in texts if own.encode(t, special=True) != tokenizer.encode(t, add_special_tokens=False).ids]
    known = {tokenizer.token_to_id(text) for text in control}
    differing += [f"{text} as text" for text in control[:8] if known & set(own.encode(text, special=False))]
    count = len(texts) + len(control[:8])
    return Reading(texts=count, alike=count - len(differing), differing=tuple(differing))
