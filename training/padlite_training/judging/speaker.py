"""Answers and likelihoods of one base model: by itself, guided by any reward model, or with a sentence in its prompt.

Everything goes through padlite's own decoding loop. Shapes: k candidates, m dimensions. Knows no metric.
"""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from padlite.backends.llama import LlamaModel
from padlite.decode import End, FinishReason, Guidance, Token, decode
from padlite.options import DecodingOptions
from padlite.scoring import log_normalizer
from padlite.seams import FloatArray, Message, RewardModel, Step
from padlite.streams import Streams
from padlite.template import ChatTemplate
from padlite_training.completions import Completions
from padlite_training.pairs.harvest import with_others

KNOWN = 32
"""Tokens beside the one that was said at which a reward is looked at; it counts as 0 at all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer: *text*, its *tokens* with the one that ended it, how many the reward changed, and seconds.

    *drawn* counts all tokens that were decoded for it, which is more than its own where the best of several was taken.
    """

    text: str
    tokens: tuple[int, ...]
    changed: int
    seconds: float
    drawn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAnswer:
    """What base and reward make of a known answer of T tokens.

    *scores* (T, K + 1) are the base's log-probabilities of each token itself (column 0) and the best others,
    *features* (T, K + 1, m) their rewards.
    """

    scores: FloatArray
    features: FloatArray

    def log_ratio(self, push: FloatArray) -> float:
        """Return log π(answer) − log p_base(answer) where π is guided by *push* (m,) = β·w."""
        rewards = (self.features @ push).astype(np.float64)
        known = np.exp(self.scores.astype(np.float64))
        total = (known * np.exp(rewards)).sum(1) + np.maximum(1 - known.sum(1), 0.0)
        return float((rewards[:, 0] - np.log(total)).sum())

    def log_likelihood(self, push: FloatArray) -> float:
        """Return log π(answer) in nats."""
        return float(self.scores[:, 0].sum()) + self.log_ratio(push)


class Speaker:
    """One base model; rewards that step it must step *streams*.

    Likelihoods of the base alone are computed on *scoring_sequence*, which nobody else may use.
    """

    def __init__(
        self, base: LlamaModel, template: ChatTemplate, options: DecodingOptions, *, scoring_sequence: int = 1
    ) -> None:
        self.base, self.options = base, options
        self._scoring_sequence = scoring_sequence
        self.streams = Streams(base)
        self.texts = Completions(template, base.tokenizer)
        self._scratch = np.empty(base.vocabulary_size, dtype=np.float32)

    def answer(
        self,
        messages: Sequence[Message],
        reward: RewardModel | None,
        weights: FloatArray,
        *,
        strength: float,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Reply:
        """Return the answer to *messages*, guided with *weights* (m,) at *strength* β; greedy at temperature 0."""
        prompt = self.texts.prompt(messages)
        options = dataclasses.replace(self.options, strength=strength, temperature=temperature)
        if reward is not None:
            reward.begin(messages, prompt, _never)
        began = time.perf_counter()
        events = decode(
            self.streams, self.base.tokenizer, reward, prompt,
            options=options, guidance=Guidance(weights=weights, strength=strength),
            rng=np.random.default_rng(seed), cancelled=_never,
        )  # fmt: skip
        return self._reply(list(events), time.perf_counter() - began)

    def _reply(self, events: Iterable[Token | End], seconds: float) -> Reply:
        events = list(events)
        said = [event for event in events if isinstance(event, Token)]
        ended = any(isinstance(event, End) and event.reason is FinishReason.STOP for event in events)
        return Reply(
            text="".join(event.text for event in events).strip(),
            tokens=(*(event.id for event in said), *(self.texts.end if ended else ())),
            changed=sum(event.trace.changed for event in said),
            seconds=seconds,
            drawn=len(said),
        )

    def log_likelihood(self, messages: Sequence[Message], answer: Sequence[int]) -> float:
        """Return the log-probability of the *answer*'s tokens after *messages* under the base alone, in nats."""
        prompt = self.texts.prompt(messages)
        total = 0.0
        states = self.base.states([*prompt, *answer[:-1]], first=len(prompt) - 1, sequence=self._scoring_sequence)
        for token, state in zip(answer, states, strict=True):
            total += float(state.logits[token]) - log_normalizer(state.logits, self._scratch, peak=state.logits.max())
        return total

    def known(
        self, messages: Sequence[Message], answer: Sequence[int], reward: RewardModel, weights: FloatArray
    ) -> KnownAnswer:
        """Return what *reward* makes of the tokens of *answer*; dimensions that weigh 0 in *weights* need not count."""
        prompt = self.texts.prompt(messages)
        reward.begin(messages, prompt, _never)
        context = list(prompt)
        state = self.streams.prefill(prompt)
        scores, features = [], []
        for number, token in enumerate(answer):
            candidates = with_others(state.logits, token, KNOWN)
            base_logits = state.logits[candidates]
            normalizer = log_normalizer(state.logits, self._scratch, peak=state.logits.max())
            scores.append(base_logits - np.float32(normalizer))
            step = Step(
                context=context, candidates=candidates, base_logits=base_logits, hidden=state.hidden, weights=weights
            )
            features.append(reward.features(step))
            context.append(token)
            if number + 1 < len(answer):
                state = self.streams.step(token)
        return KnownAnswer(scores=np.stack(scores), features=np.stack(features))


def _never() -> bool:
    return False
