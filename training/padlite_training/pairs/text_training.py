"""Runs the second stage: reads the texts of the pairs with the base model, divides them, fits the map and judges it.

Knows no file. Shapes: T texts, m dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from padlite.backends.llama import LlamaModel
from padlite.contrast import SentencePlace
from padlite.errors import DecodingCancelled
from padlite.opening import chat_template
from padlite.reaction import PROBES, Features, TextReader
from padlite.seams import FloatArray, Message
from padlite.text_map import Reaction, TextMap
from padlite_training.completions import Completions
from padlite_training.means import Values, mean_and_error
from padlite_training.pairs.fit import FittedHead, IndexArray, PairBatches
from padlite_training.pairs.reading import Pair
from padlite_training.pairs.recipe import PairTraining
from padlite_training.pairs.split import PairSplit
from padlite_training.pairs.telling import Teller
from padlite_training.pairs.text_stage import (
    ToldPairs,
    divide_texts,
    fit_texts,
    judge_texts,
    judged_by,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFigures:
    """How the map from text to weights does on held-out *pairs* whose preference is said in words.

    *held_out_texts* of the *texts* were not trained on; only they are judged where there are any. *policy_accuracy* and
    its standard error over groups, *policy_error* (none for a single group), at strength 1; *base_accuracy* is that of
    the base alone.
    """

    texts: int
    held_out_texts: int
    pairs: int
    epochs: int
    policy_accuracy: float
    policy_error: float | None
    base_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStage:
    """The head of the first stage, as the second one needs it: its *features*, *names* of dimensions, and pairs."""

    base: LlamaModel
    batches: PairBatches
    head: FittedHead
    features: Features
    names: Sequence[str]

    def read(self, texts: Sequence[str], teller: Teller, *, cancelled: Callable[[], bool]) -> list[Reaction]:
        """Return how the base reacts to each of *texts*.

        What the base's first sequence holds is forgotten: it shares one context with the one that reads.
        """
        self.base.forget(0)
        reader = TextReader(self.base, self.base.tokenizer, chat_template(self.base), self.features, sequence=1)
        reactions = []
        with teller.counting("read texts", len(texts)) as show:
            for number, text in enumerate(texts):
                if cancelled():
                    raise DecodingCancelled("stopped", remedy="")
                reactions.append(reader.reaction(text))
                show(number + 1)
        return reactions

    def train(
        self,
        pairs: Sequence[Pair],
        split: PairSplit,
        plan: PairTraining,
        teller: Teller,
        *,
        seed: int,
        cancelled: Callable[[], bool],
    ) -> tuple[TextMap | None, TextFigures | None]:
        """Return the map from text to weights and how it does, or nothing if too few pairs say their preference."""
        told = divide_told(pairs, split, seed=seed)
        texts, training, judging = told.texts, told.training, told.judging
        if not told.suffices:
            if texts:
                teller.say("too few pairs say in words what is preferred: the head gets no map from text to weights")
            return None, None
        reactions = self.read(texts, teller, cancelled=cancelled)
        with teller.counting("fit texts, at most", plan.epochs) as show:
            fitted = fit_texts(
                self.batches, self.head, self.names, reactions, training, judging, plan,
                progress=lambda epoch, loss: show(epoch), cancelled=cancelled,
            )  # fmt: skip
        weights = weights_of(fitted.text_map, reactions)
        guided = judge_texts(self.head, self.batches, weights, judging, clamp=np.inf)
        plain = judge_texts(self.head, self.batches, np.zeros_like(weights), judging, clamp=np.inf)
        groups = [pairs[at].group for at in judging.pairs]
        accuracy, error = mean_and_error([Values.of_shares(guided.likelihoods > 0, groups)])
        base_accuracy, _ = mean_and_error([Values.of_shares(plain.likelihoods > 0, groups)])
        return fitted.text_map, TextFigures(
            texts=len(texts),
            held_out_texts=len(set(judging.texts.tolist()) & set(np.flatnonzero(told.held_texts).tolist())),
            pairs=len(judging.pairs),
            epochs=fitted.epochs,
            policy_accuracy=accuracy or 0.0,
            policy_error=error,
            base_accuracy=base_accuracy or 0.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DividedTold:
    """Pairs that say their preference, divided: those to train on and those to judge by; *held_texts* (T,) of *texts*.

    *suffices*: there are some of both.
    """

    texts: list[str]
    held_texts: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    training: ToldPairs
    judging: ToldPairs

    @property
    def suffices(self) -> bool:
        """Whether a map can be fitted to them, and judged."""
        return bool(len(self.training.pairs) and len(self.judging.pairs))


def divide_told(pairs: Sequence[Pair], split: PairSplit, *, seed: int) -> DividedTold:
    """Return those of *pairs* that say in words what is preferred, divided by text and by the groups of *split*."""
    texts, told = told_pairs(pairs)
    held_texts = divide_texts(texts, seed=seed)
    training, judging = judged_by(told, places_of(pairs, split.held_out), held_texts)
    return DividedTold(texts=texts, held_texts=held_texts, training=training, judging=judging)


def read_length(text: str, texts: Completions, place: SentencePlace) -> int:
    """Return how many tokens the base reads at once, at most, to react to the preference *text*."""
    said, answer = max(PROBES, key=lambda probe: len("".join(probe)))
    return len(texts.prompt(place.put(text, [Message(role="user", content=said)]))) + len(texts.answer(answer))


def weights_of(text_map: TextMap, reactions: Sequence[Reaction]) -> FloatArray:
    """Return the weights that each of *reactions* stands for, (T, m), as a profile would have them."""
    return np.array([list(text_map.weights(each).values()) for each in reactions], dtype=np.float32)


def told_pairs(pairs: Sequence[Pair]) -> tuple[list[str], ToldPairs]:
    """Return the different texts of *pairs* in alphabetical order, and the pairs that have one."""
    texts = sorted({pair.preference for pair in pairs if pair.preference is not None})
    numbers = {text: number for number, text in enumerate(texts)}
    told = [(at, numbers[pair.preference], pair.weight) for at, pair in enumerate(pairs) if pair.preference is not None]
    return texts, ToldPairs(
        pairs=np.array([at for at, _, _ in told], dtype=np.int64),
        texts=np.array([text for _, text, _ in told], dtype=np.int64),
        weights=np.array([weight for _, _, weight in told], dtype=np.float32),
    )


def places_of(pairs: Sequence[Pair], part: Sequence[Pair]) -> IndexArray:
    """Return the places in *pairs* of those in *part*."""
    lines = {pair.line for pair in part}
    return np.array([at for at, pair in enumerate(pairs) if pair.line in lines], dtype=np.int64)
