"""What the base model is trained on: the next token, and what a question is about.

The second one, the topic loss, is a classifier on hidden states two thirds of the way through the model, at the token
where an answer begins: which scenario of small talk was asked for? Next tokens alone teach that slowly, because all but
the first words of an answer are told by the words before them. The classifier isn't kept. Losses are in nats. Shapes:
B rows, T positions, d width, V vocabulary. Knows models only by the states that they give.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from padlite_training.sampler import NO_TOPIC, Rows

States = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""From tokens (B, T) and an attention mask to hidden states (B, T, d), the last ones and those midway."""

Midway = Callable[[Tensor, Tensor | None], Tensor]
"""The same to those midway alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicLoss:
    """Mean loss in nats over the questions of a batch, and which share of them the classifier gets right."""

    loss: Tensor
    right: Tensor


def separating_mask(rows: Rows, device: torch.device) -> Tensor:
    """Return what is added to the attention scores so that no document sees another one, (B, 1, T, T)."""
    documents = torch.from_numpy(rows.documents).to(device)
    length = documents.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    allowed = (documents[:, None, :, None] == documents[:, None, None, :]) & causal
    mask = torch.zeros(allowed.shape, device=device)  # bool masks are converted in every layer
    return mask.masked_fill(~allowed, -math.inf)


def token_loss(hidden: Tensor, table: Tensor, rows: Rows) -> Tensor:
    """Return the weighted mean loss of the next tokens after *hidden* (B, T, d); *table* (V, d) is the output table."""
    weights = torch.from_numpy(rows.weights).flatten()
    counted = weights.nonzero().squeeze(1)  # the output layer is the dearest one: leave out what doesn't count
    targets = torch.from_numpy(rows.targets).flatten()[counted].to(table.device)
    weights = weights[counted].to(table.device)
    logits = functional.linear(hidden.flatten(0, 1)[counted.to(table.device)], table).float()
    losses = functional.cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


def topic_loss(states: Tensor, classifier: torch.nn.Module, rows: Rows) -> TopicLoss | None:
    """Return how well *classifier* tells from *states* (B, T, d) what the questions are about; None without any."""
    topics = torch.from_numpy(rows.topics).flatten()
    places = (topics != NO_TOPIC).nonzero().squeeze(1)
    if not len(places):
        return None
    asked = topics[places].to(states.device)
    guessed = classifier(states.flatten(0, 1)[places.to(states.device)]).float()
    right = (guessed.detach().argmax(1) == asked).float().mean()
    return TopicLoss(loss=functional.cross_entropy(guessed, asked), right=right)
