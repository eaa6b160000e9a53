"""PAD's loss on harvested states, in PyTorch.

    lr_w(y) = Σ_t [ w·φ(h_t, y_t) − log Z_t ],   Z_t = Σ_a p_base(a | h_t) exp(w·φ(h_t, a))
    loss    = −log σ( γ [lr_w(y⁺) − lr_w(y⁻)] )  +  kl · KL(π_w ‖ p_base)  −  likelihood · mean lr_w per chosen token

π_w ∝ p_base exp(w·φ) is the guided model, so lr_w(y) = log π_w(y) − log p_base(y): PAD's token reward, summed. Only the
token itself and the K most likely others are known; φ counts as 0 for the rest, whose probability is in Z.
Shapes: n states of c completions, K + 1 candidates (the token itself first), m dimensions, r rank, d width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from padlite_training.low_rank_head import LowRankHead
from padlite_training.pairs.recipe import PairTraining

_SMALLEST_REST = 1e-6  # of the probability of all other tokens; keeps its logarithm finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some completions.

    *hidden* (n, d), *words* (n, K + 1) rows of the head's table, *scores* (n, K + 1) log-probabilities, *owner* (n,)
    which completion a state belongs to (0 to c − 1), *weights* (c, m). The first half of the completions was chosen,
    the second half rejected, in the same order.
    """

    hidden: Tensor
    words: Tensor
    scores: Tensor
    owner: Tensor
    weights: Tensor


def rewards_of(head: LowRankHead, batch: Batch, rows: Tensor) -> Tensor:
    """Return w·φ (n, K + 1) of all candidates of *batch*; *rows* (V', d) are the output table's."""
    projected = torch.nn.functional.embedding(batch.words, rows @ head.projection)
    return head.rewards(batch.hidden, projected, batch.weights[batch.owner])


def log_normalizer(scores: Tensor, rewards: Tensor) -> Tensor:
    """Return log Z (n,) of *rewards* (n, K + 1) over the base's *scores* (n, K + 1) and the rest of the vocabulary."""
    rest = (1 - scores.exp().sum(1)).clamp_min(_SMALLEST_REST).log()
    return torch.logaddexp(torch.logsumexp(scores + rewards, 1), rest)


def token_ratios(scores: Tensor, rewards: Tensor) -> Tensor:
    """Return log π_w − log p_base of each state's own token, (n,)."""
    return rewards[:, 0] - log_normalizer(scores, rewards)


def divergence(scores: Tensor, rewards: Tensor) -> Tensor:
    """Return KL(π_w ‖ p_base) of each state, (n,), in nats."""
    normalizer = log_normalizer(scores, rewards)
    return ((scores + rewards - normalizer[:, None]).exp() * rewards).sum(1) - normalizer


def sum_by_completion(values: Tensor, batch: Batch) -> Tensor:
    """Return the sum of *values* (n,) over the states of each completion, (c,)."""
    return torch.zeros(len(batch.weights), dtype=values.dtype, device=values.device).index_add(0, batch.owner, values)


def margins(values: Tensor) -> Tensor:
    """Return by how much the chosen completion's value exceeds the rejected one's, (c / 2,), for *values* (c,)."""
    chosen, rejected = values.chunk(2)
    return chosen - rejected


def pair_loss(head: LowRankHead, batch: Batch, rows: Tensor, plan: PairTraining) -> Tensor:
    """Return the loss of the module's description, averaged over pairs and over states."""
    rewards = rewards_of(head, batch, rows)
    ratios = token_ratios(batch.scores, rewards)
    preferred = torch.nn.functional.softplus(-plan.sharpness * margins(sum_by_completion(ratios, batch))).mean()
    chosen = ratios[batch.owner < len(batch.weights) // 2].mean()
    return preferred + plan.kl * divergence(batch.scores, rewards).mean() - plan.likelihood * chosen
