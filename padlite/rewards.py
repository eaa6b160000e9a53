"""Several reward models as one: their features side by side, so that a reward head, sentences and a reward LM add up.

Shapes: k candidates, m dimensions of all together. Knows rewards only through their protocol, and what none of them
needs to know: which of them are wanted at a token at all.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from padlite.errors import UsageError
from padlite.seams import Dimension, FloatArray, Message, RewardModel, Step


def joined(rewards: Sequence[RewardModel]) -> RewardModel | None:
    """Return *rewards* as one: None if there are none, a single one as it is.

    Raises UsageError if two have a dimension of the same name.
    """
    if len(rewards) > 1:
        return JoinedRewards(rewards)
    return rewards[0] if rewards else None


class JoinedRewards:
    """Reward models with their dimensions in a row (`RewardModel` in `padlite.seams`)."""

    def __init__(self, rewards: Sequence[RewardModel]) -> None:
        self.dimensions: tuple[Dimension, ...] = tuple(each for reward in rewards for each in reward.dimensions)
        names = [dimension.name for dimension in self.dimensions]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(
                    f"the dimension {name!r} is there twice", remedy="give the one that you added another name"
                )
        self._rewards = tuple(rewards)

    @property
    def reserved_tokens(self) -> int:
        """What the one with the longest prompt needs."""
        return max(reward.reserved_tokens for reward in self._rewards)

    def begin(self, messages: Sequence[Message], prompt: Sequence[int], cancelled: Callable[[], bool]) -> None:
        """Let every reward know that an answer begins."""
        for reward in self._rewards:
            reward.begin(messages, prompt, cancelled)

    def advance(self, context: Sequence[int], weights: FloatArray) -> None:
        """Let those that weigh anything know that the last token of *context* is about to be evaluated."""
        for reward, begin, end in self._wanted(weights):
            reward.advance(context, weights[begin:end])

    def features(self, step: Step) -> FloatArray:
        """Return the rewards of all, (k, m); those with no dimension that weighs anything are not asked and count 0."""
        features = np.zeros((len(step.candidates), len(self.dimensions)), dtype=np.float32)
        hidden = step.hidden.copy()  # one reward may step the engine, in whose memory it lies, before another reads it
        for reward, begin, end in self._wanted(step.weights):
            part = step._replace(hidden=hidden, weights=step.weights[begin:end])
            features[:, begin:end] = reward.features(part)
        return features

    def _wanted(self, weights: FloatArray) -> Iterator[tuple[RewardModel, int, int]]:
        """Yield the rewards that weigh anything, and where their dimensions begin and end."""
        end = 0
        for reward in self._rewards:
            begin, end = end, end + len(reward.dimensions)
            if np.count_nonzero(weights[begin:end]):
                yield reward, begin, end
