"""Judges rivals on held-out pairs: do they turn the answers, what does that cost, do they rank known answers right?

For every rival, strength and dimension, with standard errors over groups (`means`):

    steering        share of generated answers in which an independent classifier sees the wanted dimension
    perplexity      of these answers under the base alone, exp of the mean over answers of their mean nats per token
    distinct        different words (distinct-1) and word pairs (distinct-2) among all that were said
    flip rate       share of tokens that the reward changed
    policy accuracy share of pairs whose chosen answer the guided model finds likelier than the rejected one
    tokens per second

Greedy answers. Which pairs are judged, and what the classifier learned from, is the business of `order`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

from padlite.errors import DecodingCancelled
from padlite.seams import Message
from padlite_training.judging.classifier import AnswerClassifier
from padlite_training.judging.rivals import Rival
from padlite_training.judging.speaker import Reply, Speaker
from padlite_training.means import Values, mean_and_error
from padlite_training.pairs.reading import Pair

T = TypeVar("T")

MEAN = "mean"
EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one rival at one strength in one dimension (or the mean over dimensions).

    None: not defined, as an error is for a single group, and the perplexity of answers that are all empty.
    """

    rival: str
    strength: float
    dimension: str
    answers: int
    steering: float
    steering_error: float | None
    nats: float | None
    nats_error: float | None
    distinct_1: float
    distinct_2: float
    flip_rate: float
    tokens_per_s: float
    pairs: int
    policy_accuracy: float | None
    policy_error: float | None

    @property
    def perplexity(self) -> float | None:
        """The perplexity of its answers under the base."""
        return None if self.nats is None else math.exp(min(self.nats, 700.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The *row* of one dimension with the single figures that its means are of; *ranked* 1 where a pair is right."""

    row: Row
    shown: Values
    nats: Values
    ranked: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All rows, how far the classifier can be trusted, chance (1 / dimensions), and some answers.

    *classifier_accuracy* is its own on groups that it hasn't seen, *preferred_steering* the share of the judged pairs'
    preferred answers in which it sees the dimension (mean over dimensions): what a way to steer would get that says
    exactly these.
    """

    rows: tuple[Row, ...]
    classifier_accuracy: float
    preferred_steering: float
    chance: float
    examples: tuple[Mapping[str, str | float], ...]

    def means(self) -> list[Row]:
        """Return the rows of means over dimensions, in the order in which the rivals came."""
        return [row for row in self.rows if row.dimension == MEAN]

    def as_record(self) -> dict[str, object]:
        """Return everything for JSON."""
        return {
            "classifier_accuracy": self.classifier_accuracy,
            "preferred_steering": self.preferred_steering,
            "chance": self.chance,
            "rows": [asdict(row) | {"perplexity": row.perplexity} for row in self.rows],
            "examples": [dict(each) for each in self.examples],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What is judged: *prompts* to answer with the group of each, and for each of the *dimensions* the pairs to rank.

    The group of a prompt is that of its pairs, the first one's where they are of several.
    """

    dimensions: tuple[str, ...]
    prompts: tuple[tuple[Message, ...], ...]
    groups: tuple[str, ...]
    pairs: Mapping[str, tuple[Pair, ...]]


def questions_of(pairs: Sequence[Pair], *, prompts: int, pairs_each: int) -> Questions:
    """Return up to *prompts* different conversations and *pairs_each* pairs of each dimension, evenly from *pairs*."""
    named = [pair for pair in pairs if pair.dimension is not None]
    dimensions = tuple(sorted({pair.dimension for pair in named if pair.dimension is not None}))
    group_of = {pair.messages: pair.group for pair in reversed(named)}
    chosen = _spread(list(dict.fromkeys(pair.messages for pair in named)), prompts)
    return Questions(
        dimensions=dimensions,
        prompts=tuple(chosen),
        groups=tuple(group_of[messages] for messages in chosen),
        pairs={
            name: tuple(_spread([pair for pair in named if pair.dimension == name], pairs_each)) for name in dimensions
        },
    )


def evaluate(
    speaker: Speaker,
    rivals: Sequence[Rival],
    questions: Questions,
    classifier: AnswerClassifier,
    *,
    progress: Callable[[int], None] = lambda done: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Return the figures of *rivals*; *progress* gets the number of (rival, dimension) done."""
    rows: list[Row] = []
    examples: list[Mapping[str, str | float]] = []
    done = 0
    for rival in rivals:
        of_rival: dict[float, list[Measured]] = {strength: [] for strength in rival.strengths}
        for dimension in questions.dimensions:
            ranked = _ranked(rival, questions.pairs[dimension], dimension, cancelled)
            for at, strength in enumerate(rival.strengths):
                replies = [_reply(rival, prompt, dimension, strength, cancelled) for prompt in questions.prompts]
                of_rival[strength].append(
                    _measured(
                        rival,
                        strength,
                        dimension,
                        replies,
                        ranked[at] if ranked else None,
                        speaker=speaker,
                        questions=questions,
                        classifier=classifier,
                    )
                )
                examples += [
                    {"rival": rival.name, "strength": strength, "dimension": dimension,
                     "said": prompt[-1].content, "answer": reply.text}
                    for prompt, reply in list(zip(questions.prompts, replies, strict=True))[:EXAMPLES]
                ]  # fmt: skip
            done += 1
            progress(done)
        for strength, found in of_rival.items():
            rows += [*(each.row for each in found), mean_row(found, strength)]
    return Evaluation(
        rows=tuple(rows),
        classifier_accuracy=classifier.accuracy,
        preferred_steering=_preferred_steering(questions, classifier),
        chance=1 / len(classifier.labels),
        examples=tuple(examples),
    )


def _preferred_steering(questions: Questions, classifier: AnswerClassifier) -> float:
    shares = []
    for dimension, pairs in questions.pairs.items():
        named = classifier.name([pair.more_and_less[0] for pair in pairs])
        shares.append(np.mean([name == dimension for name in named]))
    return float(np.mean(shares))


def _reply(
    rival: Rival, prompt: Sequence[Message], dimension: str, strength: float, cancelled: Callable[[], bool]
) -> Reply:
    if cancelled():
        raise DecodingCancelled("stopped", remedy="")
    return rival.reply(prompt, dimension, strength)


def _ranked(
    rival: Rival, pairs: Sequence[Pair], dimension: str, cancelled: Callable[[], bool]
) -> list[list[bool]] | None:
    """Return for each strength which of *pairs* the rival ranks right, or None if it can't rank."""
    ranked: list[list[bool]] = [[] for _ in rival.strengths]
    for pair in pairs:
        if cancelled():
            raise DecodingCancelled("stopped", remedy="")
        found = rival.likelihoods(pair.messages, pair.more_and_less, dimension)
        if found is None:
            return None
        for at, (wanted, other) in enumerate(found):
            ranked[at].append(wanted > other)
    return ranked


def _measured(
    rival: Rival,
    strength: float,
    dimension: str,
    replies: Sequence[Reply],
    ranked: Sequence[bool] | None,
    *,
    speaker: Speaker,
    questions: Questions,
    classifier: AnswerClassifier,
) -> Measured:
    """Return the figures of *replies* to all prompts; an empty answer shows no dimension and has no perplexity."""
    texts = [reply.text for reply in replies]
    shown = [name == dimension and bool(text) for name, text in zip(classifier.name(texts), texts, strict=True)]
    nats = [
        (-speaker.log_likelihood(prompt, reply.tokens) / len(reply.tokens), group)
        for prompt, group, reply in zip(questions.prompts, questions.groups, replies, strict=True)
        if reply.tokens
    ]
    tokens = sum(reply.drawn for reply in replies)
    own = sum(len(reply.tokens) for reply in replies)
    seconds = sum(reply.seconds for reply in replies)
    steered = Values.of_shares(shown, questions.groups)
    costs = Values(values=tuple(each for each, _ in nats), groups=tuple(group for _, group in nats))
    rights = Values.of_shares(ranked or (), [pair.group for pair in questions.pairs[dimension]] if ranked else ())
    steering, steering_error = mean_and_error([steered])
    mean_nats, nats_error = mean_and_error([costs])
    policy, policy_error = mean_and_error([rights])
    row = Row(
        rival=rival.name, strength=strength, dimension=dimension, answers=len(replies),
        steering=steering or 0.0, steering_error=steering_error, nats=mean_nats, nats_error=nats_error,
        distinct_1=distinct(texts, 1), distinct_2=distinct(texts, 2),
        flip_rate=sum(reply.changed for reply in replies) / max(1, tokens),
        tokens_per_s=own / seconds if seconds else 0.0,
        pairs=len(rights.values), policy_accuracy=policy, policy_error=policy_error,
    )  # fmt: skip
    return Measured(row=row, shown=steered, nats=costs, ranked=rights)


def mean_row(measured: Sequence[Measured], strength: float) -> Row:
    """Return the mean over the dimensions in *measured*; its errors take what a group does in all of them together."""
    rows = [each.row for each in measured]

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values))

    steering, steering_error = mean_and_error([each.shown for each in measured])
    nats, nats_error = mean_and_error([each.nats for each in measured])
    policy, policy_error = mean_and_error([each.ranked for each in measured])
    return Row(
        rival=rows[0].rival, strength=strength, dimension=MEAN, answers=sum(row.answers for row in rows),
        steering=steering or 0.0, steering_error=steering_error, nats=nats, nats_error=nats_error,
        distinct_1=mean([row.distinct_1 for row in rows]), distinct_2=mean([row.distinct_2 for row in rows]),
        flip_rate=mean([row.flip_rate for row in rows]), tokens_per_s=mean([row.tokens_per_s for row in rows]),
        pairs=sum(row.pairs for row in rows), policy_accuracy=policy, policy_error=policy_error,
    )  # fmt: skip


def distinct(texts: Sequence[str], size: int) -> float:
    """Return the share of different ones among all runs of *size* words in *texts*."""
    runs = [
        tuple(words[at : at + size])
        for words in (text.lower().split() for text in texts)
        for at in range(len(words) - size + 1)
    ]
    return len(set(runs)) / len(runs) if runs else 0.0


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Return up to *count* of *items*, evenly from all of them."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)) if items else ()
    return [items[at] for at in places]
