"""Stage 1 of PAD's training: fits the projection P and a map A_i for each dimension to pairs, on harvested states.

The states stay on disk and are read batch by batch. Knows neither the base model nor the files of the result.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.swa_utils import AveragedModel

from padlite.errors import DecodingCancelled, PadliteError
from padlite.seams import FloatArray
from padlite_training.low_rank_head import LowRankHead
from padlite_training.pairs.harvest import PairHarvest
from padlite_training.pairs.loss import Batch, margins, pair_loss, rewards_of, sum_by_completion, token_ratios
from padlite_training.pairs.recipe import PairTraining

logger = logging.getLogger(__name__)

NO_REWARD_LOSS = float(np.log(2.0))
"""Of a head that says 0: every pair is a coin toss, nothing diverges."""

IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedHead:
    """*projection* P (d, r) and *maps* A (m, d, r); *scales* (m,) are already contained in the maps.

    *epochs* were trained, *loss* is the one on held-out groups; `NO_REWARD_LOSS` is that of no reward at all.
    """

    projection: FloatArray
    maps: FloatArray
    scales: FloatArray
    epochs: int = 0
    loss: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPairs:
    """What a head makes of some pairs, at strength 1.

    *rewards* (P,): the log-ratio lr_w of the chosen answer minus the rejected one's. *likelihoods* (P,): the same
    difference of log π_w, the guided model's own log-probability.
    """

    rewards: FloatArray
    likelihoods: FloatArray


class PairBatches:
    """Batches of pairs from a harvest, on *device*, in the units in which the head is trained.

    Hidden states and rows of the output table are brought to unit size; `fold` takes that back out of a head.
    """

    def __init__(self, harvest: PairHarvest, table: FloatArray, weights: FloatArray, *, device: str) -> None:
        """*table* (V, d) is the base's output table, *weights* (P, m) the preference weights of each pair."""
        self._harvest, self._weights, self.device = harvest, weights, device
        used = np.unique(harvest.candidates)
        self._place = np.zeros(len(table), dtype=np.int64)
        self._place[used] = np.arange(len(used))
        rows = table[used]
        self.table_size = float(np.sqrt((rows.astype(np.float64) ** 2).mean()))
        sample = np.asarray(harvest.hidden[:: max(1, len(harvest.hidden) // 4096)], dtype=np.float64)
        self.hidden_size = float(np.sqrt((sample**2).mean()))
        self.rows = torch.from_numpy(rows / np.float32(self.table_size)).to(device)
        self.width, self.dimensions = rows.shape[1], weights.shape[1]

    def batch(self, pairs: IndexArray) -> Batch:
        """Return the completions of *pairs* (numbers of pairs)."""
        harvest = self._harvest
        numbers = harvest.sides[pairs].T.reshape(-1)  # all chosen, then all rejected
        spans = [np.arange(harvest.starts[n], harvest.starts[n + 1]) for n in numbers]
        states = np.concatenate(spans)
        owner = np.repeat(np.arange(len(numbers)), [len(span) for span in spans])
        hidden = np.asarray(harvest.hidden[states], dtype=np.float32) / np.float32(self.hidden_size)
        return Batch(
            hidden=torch.from_numpy(hidden).to(self.device),
            words=torch.from_numpy(self._place[harvest.candidates[states]]).to(self.device),
            scores=torch.from_numpy(np.asarray(harvest.scores[states])).to(self.device),
            owner=torch.from_numpy(owner).to(self.device),
            weights=torch.from_numpy(np.tile(self._weights[pairs], (2, 1))).to(self.device),
        )

    def unfold(self, head: FittedHead, *, clamp: float) -> LowRankHead:
        """Return *head* as a module in these units."""
        _, width, rank = head.maps.shape
        module = LowRankHead(width=width, rank=rank, dimensions=len(head.maps), clamp=clamp)
        module.projection.data = torch.from_numpy(head.projection * np.float32(self.table_size))
        module.maps.data = torch.from_numpy(head.maps * np.float32(self.hidden_size))
        return module.to(self.device)

    def fold(self, head: LowRankHead) -> tuple[FloatArray, FloatArray]:
        """Return P and A of *head* for hidden states and rows as they are."""
        projection, maps = head.projection.detach().cpu(), head.maps.detach().cpu()
        return (projection / self.table_size).numpy(), (maps / self.hidden_size).numpy()


def fit_pairs(
    batches: PairBatches,
    training: IndexArray,
    held_out: IndexArray,
    plan: PairTraining,
    *,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> FittedHead:
    """Return the head that fits the pairs *training* best, judged by the loss on those *held_out*.

    *progress* gets the number of the epoch and the held-out loss after it. Seeded: on the CPU, with the same number of
    threads, equal arguments give an equal head. Raises PadliteError when the loss is no longer a number, and when no
    epoch does better than no reward at all: what is left then are the random weights of the beginning.
    """
    torch.manual_seed(plan.seed)
    head = LowRankHead(
        width=batches.width, rank=plan.rank, dimensions=batches.dimensions, clamp=plan.clamp
    ).to(batches.device)  # fmt: skip
    optimizer = torch.optim.AdamW(head.parameters(), lr=plan.rate, weight_decay=plan.weight_decay)

    def tell(epoch: int, loss: float) -> None:
        progress(epoch, loss)
        logger.info("epoch %d: held-out loss %.4f", epoch, loss)

    epochs, loss = train_to_the_best(
        head, optimizer, training, plan,
        loss=lambda pairs: pair_loss(head, batches.batch(pairs), batches.rows, plan),
        judge=lambda: held_loss(head, batches, held_out, plan),
        beaten=NO_REWARD_LOSS, lower=f"--rate {plan.rate / 3:.2g}", progress=tell, cancelled=cancelled,
    )  # fmt: skip
    if epochs == 0:
        raise PadliteError(
            "the pairs taught nothing that holds for held-out groups: no epoch did better than no reward at all "
            f"(a loss of {NO_REWARD_LOSS:.3f})",
            remedy=f"train again with a lower rate, --rate {plan.rate / 3:.2g}, or give more pairs",
        )
    projection, maps = batches.fold(head)
    return FittedHead(
        projection=projection, maps=maps, scales=np.ones(len(maps), dtype=np.float32),
        epochs=epochs, loss=loss,
    )  # fmt: skip


def train_to_the_best(
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    training: IndexArray,
    plan: PairTraining,
    *,
    loss: Callable[[IndexArray], torch.Tensor],
    judge: Callable[[], float],
    beaten: float,
    lower: str,
    progress: Callable[[int, float], None],
    cancelled: Callable[[], bool],
) -> tuple[int, float]:
    """Train *module* until *judge* finds it no better, and return the best epoch and its loss; it stays as it was then.

    What is judged and kept is the running mean of the weights over about the plan's *averaged_steps*: the last step
    alone says more about the last batch. *loss* is that of some of *training*, which every epoch takes in another
    order, drawn with the plan's seed. What doesn't get below *beaten*, the loss before, counts as epoch 0. Raises
    DecodingCancelled, and PadliteError when a loss is no number: *lower* is the option that lowers the rate.
    """
    order = np.random.default_rng(plan.seed)
    best, best_epoch, step = beaten, 0, 0
    kept = deepcopy(module.state_dict())
    mean = AveragedModel(module, avg_fn=partial(_running_mean, over=plan.averaged_steps))
    for epoch in range(1, plan.epochs + 1):
        for part in chunks(order.permutation(training), plan.batch_pairs):
            if cancelled():
                raise DecodingCancelled("stopped", remedy="")
            step += 1
            optimizer.zero_grad()
            found = loss(part)
            require_number(found.item(), step, lower)
            found.backward()
            optimizer.step()
            mean.update_parameters(module)
        latest = deepcopy(module.state_dict())
        module.load_state_dict(mean.module.state_dict())
        judged = judge()
        require_number(judged, step, lower)
        progress(epoch, judged)
        if judged < best - 1e-4:
            best, best_epoch, kept = judged, epoch, deepcopy(module.state_dict())
        if epoch - best_epoch > plan.patience:
            break
        module.load_state_dict(latest)
    module.load_state_dict(kept)
    return best_epoch, best


def _running_mean(mean: torch.Tensor, now: torch.Tensor, count: torch.Tensor | int, *, over: int) -> torch.Tensor:
    """Return the *mean* of *count* weights with one more, *now*; from *over* on the older ones fade."""
    return mean + (now - mean) / min(int(count) + 1, over)


@torch.no_grad()
def held_loss(head: LowRankHead, batches: PairBatches, pairs: IndexArray, plan: PairTraining) -> float:
    """Return the mean loss over *pairs*."""
    parts = [
        (pair_loss(head, batches.batch(part), batches.rows, plan).item(), len(part))
        for part in chunks(pairs, plan.batch_pairs)
    ]
    return sum(loss * count for loss, count in parts) / sum(count for _, count in parts)


@torch.no_grad()
def judge_pairs(head: FittedHead, batches: PairBatches, pairs: IndexArray, *, clamp: float) -> JudgedPairs:
    """Return what *head* at strength 1 makes of *pairs*, under the weights with which they are in *batches*."""
    found = (batches.batch(part) for part in chunks(pairs, 64))
    return judge_batches(batches.unfold(head, clamp=clamp), batches.rows, found)


@torch.no_grad()
def judge_batches(module: LowRankHead, rows: torch.Tensor, batches: Iterable[Batch]) -> JudgedPairs:
    """Return what *module* makes of the pairs in *batches*; *rows* (V', d) are the output table's."""
    rewards, likelihoods = [], []
    for batch in batches:
        ratios = token_ratios(batch.scores, rewards_of(module, batch, rows))
        rewards.append(margins(sum_by_completion(ratios, batch)))
        likelihoods.append(margins(sum_by_completion(ratios + batch.scores[:, 0], batch)))
    return JudgedPairs(rewards=torch.cat(rewards).cpu().numpy(), likelihoods=torch.cat(likelihoods).cpu().numpy())


def chunks(pairs: IndexArray, size: int) -> Iterator[IndexArray]:
    """Yield *pairs* in parts of *size*."""
    for begin in range(0, len(pairs), size):
        yield pairs[begin : begin + size]


def require_number(loss: float, step: int, lower: str) -> None:
    """Raise PadliteError with the *step* unless *loss* is finite; *lower* is the option that lowers the rate."""
    if not np.isfinite(loss):
        raise PadliteError(
            f"training became unstable: at step {step} the loss is {loss}",
            remedy=f"train again with a lower rate: {lower}",
        )


def one_hot(names: Sequence[str], dimensions: Sequence[str | None], weights: Sequence[float]) -> FloatArray:
    """Return w (P, m): each pair's weight in the place of its dimension among *names*, nothing for None."""
    result = np.zeros((len(dimensions), len(names)), dtype=np.float32)
    for at, (name, weight) in enumerate(zip(dimensions, weights, strict=True)):
        if name is not None:
            result[at, names.index(name)] = weight
    return result
