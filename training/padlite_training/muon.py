"""Muon: momentum whose update is made orthogonal, for weight matrices; everything else goes to AdamW.

Keller Jordan et al., 'Muon: An optimizer for hidden layers' (2024). PyTorch has one, but it always works in bfloat16,
which many processors are slow at; this one takes the faster type and stacks matrices of one shape into a batch.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from padlite_training.precision import fast_type

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(updates: Tensor, *, steps: int = 5) -> Tensor:
    """Return matrices (n, rows, columns) with the singular vectors of *updates* and singular values near 1."""
    tall = updates.shape[-2] > updates.shape[-1]
    x = updates.mT if tall else updates
    x = x.to(fast_type(x.device.type))
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    first, second, third = NEWTON_SCHULZ
    for _ in range(steps):
        square = x @ x.mT
        x = first * x + (second * square + third * square @ square) @ x
    return (x.mT if tall else x).to(updates.dtype)


class Muon:
    """Updates matrices in place. `rate` is per step relative to a matrix whose entries have unit scale."""

    def __init__(self, matrices: Iterable[Tensor], *, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        self.momentum, self.weight_decay = momentum, weight_decay
        self.groups: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            self.groups[matrix.shape].append(matrix)
        self.velocity = {
            shape: torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self.groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply one update of size *rate* with Nesterov momentum, to the matrices that have a gradient."""
        for shape, group in self.groups.items():
            places = [place for place, matrix in enumerate(group) if matrix.grad is not None]
            if not places:
                continue
            moved = [group[place] for place in places]
            gradients = torch.stack([matrix.grad for matrix in moved if matrix.grad is not None])
            velocity = self.velocity[shape][places].lerp_(gradients, 1 - self.momentum)
            self.velocity[shape][places] = velocity
            updates = orthogonalize(gradients.lerp(velocity, self.momentum))
            scale = rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for matrix, update in zip(moved, updates, strict=True):
                matrix.mul_(1 - rate * self.weight_decay).add_(update, alpha=-scale)

    def state(self) -> dict[str, Tensor]:
        """Return the momenta for a checkpoint."""
        return {str(tuple(shape)): velocity for shape, velocity in self.velocity.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over the momenta that `state` returned."""
        for shape, velocity in self.velocity.items():
            velocity.copy_(state[str(tuple(shape))])
