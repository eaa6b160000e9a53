"""The ways to ask one base model for a dimension, behind one protocol: what they say, and how likely they find answers.

Shapes: m dimensions. Knows no metric and no file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from padlite.contrast import SentencePlace
from padlite.seams import FloatArray, Message, RewardModel
from padlite_training.judging.speaker import Reply, Speaker

SAMPLING_TEMPERATURE = 0.8


class Rival(Protocol):
    """One way to ask for a dimension; *strengths* are what its dial is tried at (β, or the n of best-of-n)."""

    name: str
    strengths: tuple[float, ...]

    def reply(self, messages: Sequence[Message], dimension: str, strength: float) -> Reply:
        """Return its answer to *messages* when *dimension* is wanted."""
        ...

    def likelihoods(
        self, messages: Sequence[Message], answers: Sequence[str], dimension: str
    ) -> list[list[float]] | None:
        """Return the log-likelihood of each of *answers* at each of the strengths; None if it has no likelihood."""
        ...


@dataclass(slots=True)
class Plain:
    """The base model by itself."""

    speaker: Speaker
    name: str = "plain"
    strengths: tuple[float, ...] = (0.0,)

    def reply(self, messages: Sequence[Message], dimension: str, strength: float) -> Reply:
        """Return the base's answer, whatever is wanted."""
        return self.speaker.answer(messages, None, _NONE, strength=0.0)

    def likelihoods(self, messages: Sequence[Message], answers: Sequence[str], dimension: str) -> list[list[float]]:
        """Return the base's own log-likelihoods."""
        return [_plain_likelihoods(self.speaker, messages, answers)]


@dataclass(slots=True)
class Prompted:
    """The preference written into the prompt, in the words of *sentences*."""

    speaker: Speaker
    place: SentencePlace
    sentences: Mapping[str, str]
    name: str = "prompt"
    strengths: tuple[float, ...] = (1.0,)

    def reply(self, messages: Sequence[Message], dimension: str, strength: float) -> Reply:
        """Return the answer to the conversation with the sentence in it."""
        return self.speaker.answer(self._told(messages, dimension), None, _NONE, strength=0.0)

    def likelihoods(self, messages: Sequence[Message], answers: Sequence[str], dimension: str) -> list[list[float]]:
        """Return the log-likelihoods after the conversation with the sentence in it."""
        return [_plain_likelihoods(self.speaker, self._told(messages, dimension), answers)]

    def _told(self, messages: Sequence[Message], dimension: str) -> list[Message]:
        return self.place.put(self.sentences[dimension], messages)


@dataclass(slots=True)
class Guided:
    """Guided by a reward model: a head, or the contrast of sentences."""

    speaker: Speaker
    reward: RewardModel
    name: str
    strengths: tuple[float, ...]

    def reply(self, messages: Sequence[Message], dimension: str, strength: float) -> Reply:
        """Return the guided answer at weight 1."""
        return self.speaker.answer(messages, self.reward, _weights(self.reward, dimension), strength=strength)

    def likelihoods(self, messages: Sequence[Message], answers: Sequence[str], dimension: str) -> list[list[float]]:
        """Return the guided model's log-likelihoods at every strength."""
        weights = _weights(self.reward, dimension)
        known = [
            self.speaker.known(messages, self.speaker.texts.answer(text), self.reward, weights) for text in answers
        ]
        return [[each.log_likelihood(weights * np.float32(beta)) for each in known] for beta in self.strengths]


class BestOf:
    """The best of n answers that the base drew by itself, by what the reward makes of them."""

    def __init__(self, speaker: Speaker, reward: RewardModel, counts: Sequence[int], *, seed: int) -> None:
        self.name = "best of n"
        self.strengths: tuple[float, ...] = tuple(float(count) for count in counts)
        self._speaker, self._reward, self._seed = speaker, reward, seed
        self._drawn: dict[tuple[Message, ...], list[tuple[Reply, FloatArray]]] = {}

    def reply(self, messages: Sequence[Message], dimension: str, strength: float) -> Reply:
        """Return the best of the first *strength* answers drawn; its seconds are those of drawing them all."""
        at = [each.name for each in self._reward.dimensions].index(dimension)
        drawn = self._answers(tuple(messages))[: int(strength)]
        best = max(drawn, key=lambda pair: pair[1][at])[0]
        return Reply(
            text=best.text, tokens=best.tokens, changed=0,
            seconds=sum(reply.seconds for reply, _ in drawn), drawn=sum(reply.drawn for reply, _ in drawn),
        )  # fmt: skip

    def likelihoods(self, messages: Sequence[Message], answers: Sequence[str], dimension: str) -> None:
        """Return nothing: what it says has no likelihood that could be computed."""

    def _answers(self, messages: tuple[Message, ...]) -> list[tuple[Reply, FloatArray]]:
        """Return all answers drawn to *messages* with their rewards (m,); they are the same for every dimension."""
        if messages not in self._drawn:
            count = int(max(self.strengths))
            replies = [
                self._speaker.answer(
                    messages, None, _NONE, strength=0.0, temperature=SAMPLING_TEMPERATURE, seed=self._seed + number
                )
                for number in range(count)
            ]
            self._drawn[messages] = [(reply, self._rewards(messages, reply)) for reply in replies]
        return self._drawn[messages]

    def _rewards(self, messages: Sequence[Message], reply: Reply) -> FloatArray:
        """Return the log-ratio of *reply* in each dimension, (m,), at strength 1."""
        count = len(self._reward.dimensions)
        if not reply.tokens:
            return np.full(count, -np.inf, dtype=np.float32)
        known = self._speaker.known(messages, reply.tokens, self._reward, np.ones(count, dtype=np.float32))
        return np.array([known.log_ratio(push) for push in np.eye(count, dtype=np.float32)], dtype=np.float32)


_NONE = np.empty(0, dtype=np.float32)


def _weights(reward: RewardModel, dimension: str) -> FloatArray:
    return np.array([float(each.name == dimension) for each in reward.dimensions], dtype=np.float32)


def _plain_likelihoods(speaker: Speaker, messages: Sequence[Message], answers: Sequence[str]) -> list[float]:
    return [speaker.log_likelihood(messages, speaker.texts.answer(text)) for text in answers]
