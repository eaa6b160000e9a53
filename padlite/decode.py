"""One token's life, start to finish: the whole product in one loop.

    context → base logits, hidden state → top-k → rewards per dimension → combined scores → choice → text
                (V,)         (d,)          (k,)        (k, m)                 (k,)

Everything it calls is a pure function on arrays (`scoring`), text handling (`streaming`) or one of three protocols
(`seams`). It knows no library, no file, no conversation and no terminal.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from padlite.errors import ContextFullError, DecodingCancelled
from padlite.options import DecodingOptions
from padlite.scoring import (
    add_bias,
    choose,
    combine,
    log_normalizer,
    penalize_repetition,
    penalize_said,
    permitted,
    top_k,
)
from padlite.seams import BaseModel, BaseState, Constraint, FloatArray, RewardModel, Step, TokenArray, Tokenizer
from padlite.streaming import TextStream


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"  # the model ended it, or a stop string
    LENGTH = "length"  # max_tokens
    CONTEXT = "context"  # no room left
    CANCELLED = "cancelled"


class Guidance:
    """How hard each dimension pushes: preference *weights* (m,) and guidance *strength* β, set together by `aim`.

    *push* (m,) is β·w, *active* whether any of it isn't 0. Read at every token, so a change takes effect with the next
    one and nothing is evaluated again.
    """

    __slots__ = ("active", "push", "strength", "weights")

    def __init__(self, *, weights: FloatArray, strength: float) -> None:
        self.aim(weights, strength)

    def aim(self, weights: FloatArray, strength: float) -> None:
        """Push with *strength* towards *weights*, which must not be written to afterwards."""
        self.weights: FloatArray = weights
        self.strength: float = strength
        self.push: FloatArray = weights * np.float32(strength)
        self.active: bool = strength != 0.0 and bool(np.count_nonzero(weights))


class TokenTrace(NamedTuple):
    """Why a token was chosen.

    *candidates* (k,) ids, best first for the base model; *base_scores* (k,) log-probabilities in nats; *features*
    (k, m) the rewards, *push* (m,) = β·w. *chosen* and *base_choice* are indices into the candidates: what was taken,
    and what the base model alone would have taken. *fallback*: the rewards were not finite and the base decided.
    """

    candidates: TokenArray
    base_scores: FloatArray
    features: FloatArray
    push: FloatArray
    chosen: int
    base_choice: int
    fallback: bool

    @property
    def contributions(self) -> FloatArray:
        """What each dimension added to each candidate's score, (k, m), in nats."""
        return self.features * self.push

    @property
    def changed(self) -> bool:
        """Whether the profile changed the choice."""
        return self.chosen != self.base_choice

    @property
    def strongest_dimension(self) -> int | None:
        """The dimension that did most to change the choice, or None if nothing changed."""
        if not self.changed:
            return None
        return int((self.contributions[self.chosen] - self.contributions[self.base_choice]).argmax())


class Token(NamedTuple):
    """One decoded token and why; *text* is what it released: nothing after half a character or a part of a stop."""

    id: int
    text: str
    trace: TokenTrace


class End(NamedTuple):
    """The end of an answer: the *reason*, and *text* that had been held back.

    *cut*: the text ends before its tokens do, at a stop string.
    """

    reason: FinishReason
    text: str
    cut: bool = False


def decode(
    base: BaseModel,
    tokenizer: Tokenizer,
    reward: RewardModel | None,
    prompt: Sequence[int],
    *,
    options: DecodingOptions,
    guidance: Guidance,
    rng: np.random.Generator,
    cancelled: Callable[[], bool],
    sequence: int = 0,
    constraint: Constraint | None = None,
) -> Iterator[Token | End]:
    """Yield the tokens that answer *prompt* (token ids, at least one), then one `End`.

    *constraint* says which tokens the answer may have. Tokens are yielded before the next one is evaluated. Raises
    ContextFullError if the prompt itself doesn't fit.
    """
    context = list(prompt)
    stream = TextStream(options.stop)
    scratch = np.empty(base.vocabulary_size, dtype=np.float32)
    try:
        state = base.prefill(context, sequence=sequence, cancelled=cancelled)
    except DecodingCancelled:
        yield End(reason=FinishReason.CANCELLED, text="")
        return
    reason = FinishReason.CANCELLED
    try:
        while not cancelled():
            trace = decide(
                state, reward, context, options=options, guidance=guidance, rng=rng, scratch=scratch,
                begin=len(prompt), constraint=constraint,
            )  # fmt: skip
            token = int(trace.candidates[trace.chosen])
            if tokenizer.is_end(token):
                reason = FinishReason.STOP
                break
            context.append(token)
            if constraint is not None:
                constraint.accept(token)
            yield Token(id=token, text=stream.feed(tokenizer.piece(token)), trace=trace)
            if stream.stopped:
                reason = FinishReason.STOP
                break
            if len(context) - len(prompt) == options.max_tokens:
                reason = FinishReason.LENGTH
                break
            if len(context) >= base.context_length:
                reason = FinishReason.CONTEXT
                break
            state = _step(base, reward, context, guidance=guidance, sequence=sequence)
    except DecodingCancelled:  # while a reward caught up with the conversation
        reason = FinishReason.CANCELLED
    except ContextFullError:  # of a reward, whose prompt is longer, or of the cells that the base shares with it
        reason = FinishReason.CONTEXT
    yield End(reason=reason, text=stream.finish(), cut=stream.stopped)


def _step(
    base: BaseModel, reward: RewardModel | None, context: Sequence[int], *, guidance: Guidance, sequence: int
) -> BaseState:
    """Evaluate the last token of *context*; a reward model that evaluates it too may do so at the same time."""
    if reward is not None and guidance.active:
        reward.advance(context, guidance.weights)
    return base.step(context[-1], sequence=sequence)


def decide(
    state: BaseState,
    reward: RewardModel | None,
    context: Sequence[int],
    *,
    options: DecodingOptions,
    guidance: Guidance,
    rng: np.random.Generator,
    scratch: FloatArray,
    begin: int = 0,
    constraint: Constraint | None = None,
) -> TokenTrace:
    """Choose one token: score(a) = log p_base(a) + β · Σ_i w_i φ_i(a) over the k most likely (PAD, docs/paper-map.md).

    Without a reward model, at strength 0 or with all weights 0 the rewards are not even computed. Rewards that aren't
    finite leave the decision to the base model. *scratch* (V,) is overwritten. The answer begins at *begin* in the
    context; *constraint* says which candidates there are.
    """
    logits = own = state.logits
    if options.repetition_penalty != 1.0 and options.repetition_window:
        logits = penalize_repetition(own, context[-options.repetition_window :], options.repetition_penalty)
    if options.frequency_penalty or options.presence_penalty:
        frequency, presence = options.frequency_penalty, options.presence_penalty
        logits = penalize_said(logits, context[begin:], frequency=frequency, presence=presence)
    if options.logit_bias:
        logits = add_bias(logits, options.logit_bias)
    candidates = top_k(logits, options.candidates)
    peak: np.float32 = logits[int(candidates[0])]
    if constraint is not None:
        candidates = permitted(candidates, logits, constraint)
    base_logits = logits[candidates]
    own_logits = base_logits if logits is own else own[candidates]
    # Before the rewards: they may step the engine, in whose memory the logits lie.
    base_scores = base_logits - np.float32(log_normalizer(logits, scratch, peak=peak))
    weights, push, scores = guidance.weights, guidance.push, base_logits
    features: FloatArray | None = None
    fallback = False
    if reward is not None and guidance.active:
        features = reward.features(
            Step(context=context, candidates=candidates, base_logits=own_logits, hidden=state.hidden, weights=weights)
        )
        fallback = bool(np.count_nonzero(np.isfinite(features)) != features.size)
    if features is None or fallback:
        features, push = np.zeros((len(candidates), len(weights)), dtype=np.float32), np.zeros_like(push)
    else:
        scores = combine(base_logits, features, push)
    if options.temperature == 0.0:
        chosen, base_choice = int(scores.argmax()), 0  # the first of equals: the one the base prefers
    else:
        draw = rng.random()
        chosen, base_choice = (
            choose(each, temperature=options.temperature, top_p=options.top_p, min_p=options.min_p, draw=draw)
            for each in (scores, base_logits)
        )
    return TokenTrace(
        candidates=candidates,
        base_scores=base_scores,
        features=features,
        push=push,
        chosen=chosen,
        base_choice=base_choice,
        fallback=fallback,
    )
