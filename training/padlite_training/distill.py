"""Fits the low-rank reward head to the contrast teacher, and calibrates it.

φ_i(s, a) = u_aᵀ A_iᵀ h with u_a = Pᵀ e_a (e_a the row of the base's output table). What is minimized is
KL(teacher ‖ student) over the candidates, both being softmax(base + clamped φ_i) of one dimension i, so the numbers
need not match where they don't matter. Shapes: N states, k candidates, m dimensions, r rank, d width, V vocabulary.
"""

import logging
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from padlite.errors import PadliteError
from padlite_training.harvest import Harvest
from padlite_training.low_rank_head import LowRankHead
from padlite_training.recipe import HeadTraining
from padlite_training.scaling import scale_for

logger = logging.getLogger(__name__)

BATCH = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A fitted head: *projection* P (d, r), *maps* A (m, d, r); *scales* (m,) are already contained in the maps.

    *explained* is the share of the teacher's mean KL from the base that the head accounts for on held-out scenarios.
    """

    projection: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]
    scales: npt.NDArray[np.float32]
    explained: float
    epochs: int

    def features(self, table: npt.NDArray[np.float32], harvest: Harvest) -> npt.NDArray[np.float32]:
        """Return φ (N, k, m) of the candidates of *harvest*; *table* (V, d) is the base's output table."""
        words = (table @ self.projection)[harvest.candidates]
        states = np.einsum("nd,mdr->nmr", harvest.hidden, self.maps)
        return np.asarray(np.einsum("nkr,nmr->nkm", words, states), dtype=np.float32)


def teacher_loss(base: Tensor, taught: Tensor, features: Tensor) -> Tensor:
    """Return mean KL(softmax(base + *taught*) ‖ softmax(base + *features*)) in nats; (n, k) and (n, k, m)."""
    wanted = torch.log_softmax(base[:, :, None] + taught, dim=1)
    got = torch.log_softmax(base[:, :, None] + features, dim=1)
    return (wanted.exp() * (wanted - got)).sum(1).mean()


def fit_head(harvest: Harvest, table: npt.NDArray[np.float32], plan: HeadTraining) -> Head:
    """Return the head that fits *harvest* best, judged by its held-out scenarios; *table* (V, d) is the output table.

    The rate falls to nothing over the epochs, which explains more of the teacher than stopping early does. Hidden
    states and table rows are brought to unit size inside and the sizes folded back into the result. Raises PadliteError
    if no epoch explains anything of the held-out scenarios.
    """
    torch.manual_seed(plan.seed)
    size_hidden = float(np.sqrt((harvest.hidden**2).mean()))
    size_table = float(np.sqrt((table**2).mean()))
    hidden, rows = torch.from_numpy(harvest.hidden / size_hidden), torch.from_numpy(table / size_table)
    candidates, base = torch.from_numpy(harvest.candidates).long(), torch.from_numpy(harvest.base)
    taught = torch.from_numpy(harvest.features).clamp(-plan.clamp, plan.clamp)
    train = torch.from_numpy(np.flatnonzero(~harvest.validation))
    held = torch.from_numpy(np.flatnonzero(harvest.validation))
    module = LowRankHead(width=hidden.shape[1], rank=plan.rank, dimensions=taught.shape[2], clamp=plan.clamp)
    optimizer = torch.optim.AdamW(module.parameters(), lr=plan.rate, weight_decay=plan.weight_decay)
    steps = plan.epochs * -(-len(train) // BATCH)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)

    def loss_of(index: Tensor) -> Tensor:
        return teacher_loss(base[index], taught[index], module.features(hidden[index], rows[candidates[index]]))

    @torch.no_grad()
    def held_loss() -> float:
        parts = [(float(loss_of(index)), len(index)) for index in held.split(BATCH)]
        return sum(loss * count for loss, count in parts) / sum(count for _, count in parts)

    nothing = float(teacher_loss(base[held], taught[held], torch.zeros_like(taught[held])))
    best, best_state, best_epoch = nothing, deepcopy(module.state_dict()), 0
    for epoch in range(1, plan.epochs + 1):
        for index in train[torch.randperm(len(train))].split(BATCH):
            optimizer.zero_grad()
            loss_of(index).backward()
            optimizer.step()
            falling.step()
        loss = held_loss()
        if loss < best:
            best, best_epoch = loss, epoch
            best_state = deepcopy(module.state_dict())
        logger.info("epoch %d: explained on held-out scenarios %.3f", epoch, 1 - loss / nothing)
    if best_epoch == 0:
        raise PadliteError(
            "the teacher taught nothing that holds for held-out scenarios: no epoch explained any of it",
            remedy="gather more answers, or lower the rate of the head in the recipe",
        )
    return Head(
        projection=(best_state["projection"] / size_table).numpy(),
        maps=(best_state["maps"] / size_hidden).numpy(),
        scales=np.ones(taught.shape[2], dtype=np.float32),
        explained=1 - best / nothing,
        epochs=best_epoch,
    )


def calibrate(head: Head, harvest: Harvest, table: npt.NDArray[np.float32], *, shift: float) -> Head:
    """Return *head* scaled so that each dimension at weight 1 and strength 1 shifts the base by *shift* nats per token.

    Measured on the plain answers to the held-out scenarios' questions in *harvest*, or to all where there are none.
    Raises PadliteError if a dimension does next to nothing.
    """
    chosen = harvest.plain & harvest.validation
    if not chosen.any():
        chosen = harvest.plain
    base, features = harvest.base[chosen], head.features(table, harvest)[chosen]
    count = features.shape[2]
    scales = np.array(
        [scale_for(base, features[:, :, i], shift, name=f"{i + 1} of {count}") for i in range(count)], dtype=np.float32
    )
    return Head(
        projection=head.projection,
        maps=head.maps * scales[:, None, None],
        scales=head.scales * scales,
        explained=head.explained,
        epochs=head.epochs,
    )
