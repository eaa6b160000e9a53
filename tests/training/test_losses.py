"""What the base is trained on: the tokens that count, questions apart from each other, and what they are about."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from padlite_training.losses import separating_mask, token_loss, topic_loss
from padlite_training.muon import Muon
from padlite_training.sampler import NO_TOPIC, Rows

TOKENS = np.array([[3, 1, 4, 1], [5, 2, 2, 0]])
TARGETS = np.array([[1, 4, 1, 5], [2, 2, 0, 3]])
WEIGHTS = np.array([[0.0, 1.0, 0.5, 0.0], [1.0, 0.0, 0.0, 0.25]], dtype=np.float32)
DOCUMENTS = np.array([[0, 0, 1, 1], [0, 0, 0, 0]], dtype=np.int32)
WIDTH, VOCABULARY, SCENARIOS = 8, 6, 3


def rows(topics: list[list[int]]) -> Rows:
    return Rows(
        tokens=TOKENS, targets=TARGETS, weights=WEIGHTS, documents=DOCUMENTS, topics=np.array(topics, dtype=np.int64)
    )


def states() -> torch.Tensor:
    return torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(1))


NOWHERE = rows([[NO_TOPIC] * 4] * 2)


def test_the_loss_of_tokens_is_weighted() -> None:
    table = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(2))
    losses = functional.cross_entropy(
        (states() @ table.T).flatten(0, 1), torch.from_numpy(TARGETS).flatten(), reduction="none"
    )
    wanted = np.average(losses.numpy(), weights=WEIGHTS.flatten())
    assert float(token_loss(states(), table, NOWHERE)) == pytest.approx(wanted, rel=1e-5)


def test_no_document_sees_another_or_what_comes_after() -> None:
    mask = separating_mask(NOWHERE, torch.device("cpu"))[:, 0]
    seen = mask == 0
    assert (mask[~seen] == -np.inf).all()
    assert seen[0].tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]
    assert seen[1].tolist() == torch.ones(4, 4, dtype=torch.bool).tril().tolist()


@torch.no_grad()
def test_topics_are_judged_where_an_answer_begins_and_nowhere_else() -> None:
    classifier = torch.nn.Linear(WIDTH, SCENARIOS)
    batch = rows([[NO_TOPIC, 2, NO_TOPIC, 0], [NO_TOPIC, NO_TOPIC, 1, NO_TOPIC]])
    guessed = classifier(states()[torch.tensor([0, 0, 1]), torch.tensor([1, 3, 2])])
    asked = torch.tensor([2, 0, 1])
    found = topic_loss(states(), classifier, batch)
    assert found is not None
    assert float(found.loss) == pytest.approx(float(functional.cross_entropy(guessed, asked)), rel=1e-5)
    assert float(found.right) == pytest.approx(float((guessed.argmax(1) == asked).float().mean()))
    assert topic_loss(states(), classifier, NOWHERE) is None


def test_the_optimizer_leaves_matrices_without_a_gradient_alone() -> None:
    moved, left = torch.ones(4, 4, requires_grad=True), torch.ones(4, 4, requires_grad=True)
    optimizer = Muon([left, moved], weight_decay=0.1)
    optimizer.step(0.1)
    assert torch.equal(moved, torch.ones(4, 4))
    torch.autograd.backward(moved.square().sum())
    optimizer.step(0.1)
    assert torch.equal(left, torch.ones(4, 4))
    assert not torch.equal(moved, torch.ones(4, 4))
