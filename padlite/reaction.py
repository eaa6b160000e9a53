"""How a base model reacts to what a person says of themselves: the representation of a preference text.

A few ordinary exchanges, the probes, are read by the base once as they are and once with the text in its prompt, where
a preference sentence would stand. What the text changes is compared at every token of the probes' answers:

    Δh          mean of h(with) − h(without)
    signature   s = argmin Σ_t Σ_a p(a) (Δ_t(a) − s·φ_t(a))² + ridge,  Δ_t(a) = log p(a | with) − log p(a | without)

over the k most likely tokens a, both centred under p. So the base says what the text means, and the head's features φ
say it in the head's dimensions. Shapes: k candidates, m dimensions, d width of the hidden state. Costs twice the
evaluation of the probes, a few hundred tokens. Knows no profile, no file and no learned map.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from padlite.contrast import SentencePlace
from padlite.prompt import prompt_tokens
from padlite.scoring import top_k
from padlite.seams import BaseState, FloatArray, KnownTexts, Message, RewardModel, Step, TokenArray, Tokenizer
from padlite.template import ChatTemplate
from padlite.text_map import Reaction

CANDIDATES = 24
_CLAMP = 6.0  # nats; a single token that the text rules out shouldn't outweigh all others
_RIDGE = 0.3  # of the features' mean square: dimensions that the probes hardly show stay small
_EITHER = ("I think so too. What would you like to do?", "That is a good question. I like it.")
_SAID = (
    "Hello.", "How are you today?", "What should I do today?", "Tell me something about yourself.",
    "I had a long day.", "What do you think about music?", "I am going to the shop.", "Good night.",
)  # fmt: skip
PROBES = tuple((said, _EITHER[number % len(_EITHER)]) for number, said in enumerate(_SAID))
"""What is said in each probe, and how its answer goes. Part of the format of a text map: other probes, other maps."""

Features: TypeAlias = Callable[[TokenArray, FloatArray], FloatArray]
"""(candidates (k,), hidden state (d,)) → features (k, m)."""


@dataclass(frozen=True, slots=True)
class _Plain:
    """A state without the text; *likely* p (k,) sums to 1, *features* (k, m) are centred under it."""

    hidden: FloatArray
    candidates: TokenArray
    logits: FloatArray
    likely: FloatArray
    features: FloatArray


def features_of(reward: RewardModel, names: Sequence[str]) -> Features:
    """Return the features of the reward head *reward* in the dimensions *names*, in this order."""
    known = [dimension.name for dimension in reward.dimensions]
    columns = [known.index(name) for name in names]
    everything = np.ones(len(known), dtype=np.float32)

    def features(candidates: TokenArray, hidden: FloatArray) -> FloatArray:
        nothing = np.zeros(len(candidates), dtype=np.float32)
        step = Step(context=(), candidates=candidates, base_logits=nothing, hidden=hidden, weights=everything)
        return reward.features(step)[:, columns]

    return features


class TextReader:
    """Reads texts on *sequence* of *base*, in terms of the *features* of one reward head."""

    def __init__(
        self, base: KnownTexts, tokenizer: Tokenizer, template: ChatTemplate, features: Features, *, sequence: int
    ) -> None:
        self._base, self._tokenizer, self._template, self._sequence = base, tokenizer, template, sequence
        self._place = SentencePlace(template)
        self._plain = [_plain(state, features) for state in self._states("")]
        moments = sum((each.features.T * each.likely) @ each.features for each in self._plain)
        self._moments = np.asarray(moments, dtype=np.float64)

    def reaction(self, text: str) -> Reaction:
        """Return how the base reacts to *text*; ContextFullError if it is too long to be read."""
        count = len(self._moments)
        agreement, moved = np.zeros(count), np.zeros(self._base.hidden_size)
        for plain, state in zip(self._plain, self._states(text), strict=True):
            change = state.logits[plain.candidates] - plain.logits
            change = (change - plain.likely @ change).clip(-_CLAMP, _CLAMP)
            agreement += plain.features.T @ (plain.likely * change)
            moved += state.hidden - plain.hidden
        ridge = _RIDGE * np.trace(self._moments) / count + 1e-9
        return Reaction(
            signature=np.linalg.solve(self._moments + ridge * np.eye(count), agreement).astype(np.float32),
            hidden=(moved / len(self._plain)).astype(np.float32),
        )

    def _states(self, text: str) -> Iterator[BaseState]:
        """Yield the states at which the probes' answers are given, with *text* in the prompt unless it is empty."""
        for said, answer in PROBES:
            messages: Sequence[Message] = [Message(role="user", content=said)]
            if text:
                messages = self._place.put(text, messages)
            prompt = prompt_tokens(self._template, self._tokenizer, messages)
            tokens = [*prompt, *self._tokenizer.encode(answer, special=False)]
            yield from self._base.states(tokens, first=len(prompt) - 1, sequence=self._sequence)


def _plain(state: BaseState, features: Features) -> _Plain:
    candidates = top_k(state.logits, CANDIDATES)
    logits, hidden = state.logits[candidates], state.hidden.copy()
    likely = np.exp(logits - logits.max())
    likely /= likely.sum()
    rewards = features(candidates, hidden)
    return _Plain(hidden, candidates, logits, likely, rewards - likely @ rewards)
