"""The low-rank reward head in PyTorch, as it is trained: from a teacher, and from pairs.

φ_i(h, a) = u_aᵀ A_iᵀ h with u_a = Pᵀ e_a, as in `padlite.backends.onnx_head`; e_a is the row of the base's output table
and h its last hidden state. Shapes: n states, k candidates, m dimensions, r rank, d width. Knows no loss.
"""

import torch
from torch import Tensor


class LowRankHead(torch.nn.Module):
    """The weights: *projection* P (d, r) and *maps* A (m, d, r). Rewards are kept within ±*clamp*."""

    def __init__(self, *, width: int, rank: int, dimensions: int, clamp: float) -> None:
        super().__init__()
        self.clamp = clamp
        self.projection = torch.nn.Parameter(torch.randn(width, rank) / width**0.5)
        self.maps = torch.nn.Parameter(0.1 * torch.randn(dimensions, width, rank) / width**0.5)

    def features(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Return φ (n, k, m) for *hidden* (n, d) and the table's rows *words* (n, k, d), each clamped."""
        features = torch.einsum("nkr,nmr->nkm", words @ self.projection, self._asked(hidden))
        return features.clamp(-self.clamp, self.clamp)

    def rewards(self, hidden: Tensor, projected: Tensor, weights: Tensor) -> Tensor:
        """Return w·φ (n, k), clamped, for *hidden* (n, d), the rows u_a *projected* (n, k, r) and *weights* (n, m)."""
        wanted = torch.einsum("nmr,nm->nr", self._asked(hidden), weights)
        return torch.einsum("nkr,nr->nk", projected, wanted).clamp(-self.clamp, self.clamp)

    def _asked(self, hidden: Tensor) -> Tensor:
        """Return A_iᵀ h, (n, m, r)."""
        return torch.einsum("nd,mdr->nmr", hidden, self.maps)
