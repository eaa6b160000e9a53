"""Stage 2 of PAD's training: from preference text to preference weights, with the head of stage 1 as it is.

    w = tanh(M [s, Δh, 1])           s, Δh: how the base reacts to the text (`padlite.reaction`)

M is fitted by the same loss as the head, under KL regularization. On the signature s it is diagonal, one gain for each
dimension: what the base makes of the text, said in the head's dimensions, needs no learning but for its strength, and
holds for texts and dimensions that were never seen. What is learned of Δh comes on top. Stops early on texts that it
isn't fitted to, in groups that neither stage was fitted to. Shapes: T texts, P pairs, m dimensions, d width. Knows no
file.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from padlite.reaction import Features
from padlite.seams import FloatArray, TokenArray
from padlite.text_map import Reaction, TextMap
from padlite_training.low_rank_head import LowRankHead
from padlite_training.pairs.fit import (
    FittedHead,
    IndexArray,
    JudgedPairs,
    PairBatches,
    chunks,
    judge_batches,
    require_number,
    train_to_the_best,
)  # fmt: skip
from padlite_training.pairs.loss import Batch, pair_loss
from padlite_training.pairs.recipe import PairTraining
from padlite_training.reaction_scales import reaction_scales

logger = logging.getLogger(__name__)

HELD_OUT_TEXTS = 0.2
_FEW_TEXTS = 5  # fewer can't be divided
_FEW_PAIRS = 20  # fewer judge nothing
_BEGINNING = 1.0  # of M on the signature, in units of its size


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldPairs:
    """Pairs whose preference was said in words: numbers of *pairs* and of their *texts*, and *weights*, each (P,)."""

    pairs: IndexArray
    texts: IndexArray
    weights: FloatArray

    def where(self, wanted: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> "ToldPairs":
        """Return those that are *wanted* (P,)."""
        return ToldPairs(pairs=self.pairs[wanted], texts=self.texts[wanted], weights=self.weights[wanted])


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedText:
    """The map, after how many *epochs*, and the *loss* on what was held out; `NO_REWARD_LOSS` is that of no weights."""

    text_map: TextMap
    epochs: int
    loss: float


def head_features(rows: "np.ndarray[tuple[int, int], np.dtype[np.float16]]", maps: FloatArray) -> Features:
    """Return the features of the head with the *rows* u_a (V, r) and *maps* (m, d, r), as the runtime computes them."""

    def features(candidates: TokenArray, hidden: FloatArray) -> FloatArray:
        states = np.einsum("mdr,d->rm", maps, hidden)
        return np.asarray(rows[candidates].astype(np.float32) @ states, dtype=np.float32)

    return features


def divide_texts(texts: Sequence[str], *, seed: int) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Return which of *texts* are held out, (T,): about a fifth; none where there are only a few."""
    held = np.zeros(len(texts), dtype=np.bool_)
    if len(texts) >= _FEW_TEXTS:
        ranks = [hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest() for text in texts]
        held[np.argsort(ranks)[: max(1, round(HELD_OUT_TEXTS * len(texts)))]] = True
    return held


class _Map(torch.nn.Module):
    """M on standardized reactions."""

    def __init__(self, reactions: Sequence[Reaction], used: Sequence[int], device: str) -> None:
        super().__init__()
        signatures = np.stack([each.signature for each in reactions])
        hidden = np.stack([each.hidden for each in reactions])
        self.count, width = signatures.shape[1], hidden.shape[1]
        self.middle = hidden[used].mean(0)
        self.size, self.spread = reaction_scales(signatures[used], hidden[used])
        known = np.concatenate([signatures / self.size, (hidden - self.middle) / self.spread], axis=1)
        self.reactions = torch.from_numpy(known.astype(np.float32)).to(device)
        self.gains = torch.nn.Parameter(torch.full((self.count,), _BEGINNING, device=device))
        self.matrix = torch.nn.Parameter(torch.zeros(self.count, width, device=device))
        self.bias = torch.nn.Parameter(torch.zeros(self.count, device=device))

    def forward(self, texts: Tensor) -> Tensor:
        """Return the weights (P, m) that *texts* (P,) stand for."""
        signatures, hidden = self.reactions[texts].split([self.count, self.matrix.shape[1]], dim=1)
        return torch.tanh(signatures * self.gains + hidden @ self.matrix.T + self.bias)

    def folded(self, names: Sequence[str]) -> TextMap:
        """Return the map for reactions as they are."""
        gains, matrix, bias = (each.detach().cpu().numpy() for each in (self.gains, self.matrix, self.bias))
        of_signature, of_hidden = np.diag(gains / self.size), matrix / self.spread
        shifted = bias - of_hidden @ self.middle
        return TextMap(
            names=tuple(names),
            matrix=np.concatenate([of_signature, of_hidden, shifted[:, None]], axis=1).astype(np.float32),
        )


def fit_texts(
    batches: PairBatches,
    head: FittedHead,
    names: Sequence[str],
    reactions: Sequence[Reaction],
    training: ToldPairs,
    judging: ToldPairs,
    plan: PairTraining,
    *,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> FittedText:
    """Return the map from *reactions* (T) to weights of *head* that fits the pairs *training* best.

    Judged by the loss on the pairs *judging*. Seeded like `fit_pairs`. Raises PadliteError when the loss is no number.
    """
    torch.manual_seed(plan.seed)
    module = batches.unfold(head, clamp=plan.clamp).requires_grad_(False)
    told = _Map(reactions, sorted(set(training.texts.tolist())), batches.device)
    decaying = {"params": [told.matrix], "weight_decay": plan.text_decay}
    level = {"params": [told.gains, told.bias], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([decaying, level], lr=plan.text_rate)
    lower = f"--text-rate {plan.text_rate / 3:.2g}"

    def tell(epoch: int, loss: float) -> None:
        progress(epoch, loss)
        logger.info("text map, epoch %d: held-out loss %.4f", epoch, loss)

    untrained = _held_loss(module, batches, told, judging, plan)
    require_number(untrained, 0, lower)
    tell(0, untrained)
    epochs, loss = train_to_the_best(
        told, optimizer, np.arange(len(training.pairs)), plan,
        loss=lambda part: pair_loss(module, _batch(batches, told, training, part), batches.rows, plan),
        judge=lambda: _held_loss(module, batches, told, judging, plan),
        beaten=untrained, lower=lower, progress=tell, cancelled=cancelled,
    )  # fmt: skip
    return FittedText(text_map=told.folded(names), epochs=epochs, loss=loss)


@torch.no_grad()
def judge_texts(
    head: FittedHead, batches: PairBatches, weights: FloatArray, told: ToldPairs, *, clamp: float
) -> JudgedPairs:
    """Return what *head* makes of the pairs *told* when each text stands for its row of *weights* (T, m)."""
    each = (weights[told.texts] * told.weights[:, None]).astype(np.float32)
    found = (
        dataclasses.replace(
            batches.batch(told.pairs[part]), weights=torch.from_numpy(np.tile(each[part], (2, 1))).to(batches.device)
        )
        for part in chunks(np.arange(len(told.pairs)), 64)
    )
    return judge_batches(batches.unfold(head, clamp=clamp), batches.rows, found)


def _batch(batches: PairBatches, told: _Map, pairs: ToldPairs, part: IndexArray) -> Batch:
    texts = torch.from_numpy(pairs.texts[part]).to(batches.device)
    own = torch.from_numpy(pairs.weights[part]).to(batches.device)
    return dataclasses.replace(batches.batch(pairs.pairs[part]), weights=(told(texts) * own[:, None]).repeat(2, 1))


@torch.no_grad()
def _held_loss(module: LowRankHead, batches: PairBatches, told: _Map, pairs: ToldPairs, plan: PairTraining) -> float:
    """Return the mean loss over *pairs*."""
    parts = [
        (pair_loss(module, _batch(batches, told, pairs, part), batches.rows, plan).item(), len(part))
        for part in chunks(np.arange(len(pairs.pairs)), plan.batch_pairs)
    ]
    return sum(loss * count for loss, count in parts) / sum(count for _, count in parts)


def judged_by(
    told: ToldPairs, held_pairs: IndexArray, held_texts: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
) -> tuple[ToldPairs, ToldPairs]:
    """Return the pairs to train on and those to judge by; no group and, where there are enough, no text is in both."""
    of_held = np.isin(told.pairs, held_pairs)
    new = held_texts[told.texts]
    judging = told.where(of_held & new)
    return told.where(~of_held & ~new), judging if len(judging.pairs) >= _FEW_PAIRS else told.where(of_held)
