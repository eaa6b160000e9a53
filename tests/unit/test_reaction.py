"""What a text changes in a base model: nothing where it says nothing, and along the dimension where it pushes."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from padlite.errors import ContextFullError
from padlite.reaction import PROBES, TextReader, features_of
from padlite.seams import BaseState, FloatArray
from padlite.template import ChatTemplate
from padlite.text_map import Reaction, TextMap
from tests.fakes import ALPHABET, FunctionReward, LetterTokenizer

TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
V, D = len(ALPHABET), 3
PUSH = np.sin(np.arange(V)).astype(np.float32)  # what the word "zz" in a prompt does to every next letter
OTHER = np.cos(2.0 * np.arange(V)).astype(np.float32)


class Reacting:
    """A base of letters whose logits move by `PUSH` and whose hidden state by 1 in its second place after a "zz"."""

    vocabulary_size, hidden_size, context_length = V, D, 400

    def __init__(self) -> None:
        self.held: list[int] = []

    def states(
        self, tokens: Sequence[int], *, first: int, sequence: int = 0, cancelled: Callable[[], bool] | None = None
    ) -> Iterator[BaseState]:
        if len(tokens) > self.context_length:
            raise ContextFullError("too long")
        self.held.append(sequence)
        told = "zz" in "".join(ALPHABET[token] for token in tokens)
        for at in range(first, len(tokens)):
            logits = np.linspace(0, 2, V, dtype=np.float32) + np.float32(0.1 * at % 1)
            yield BaseState(
                logits=logits + PUSH if told else logits, hidden=np.array([at, float(told), 0], dtype=np.float32)
            )


def reader(names: Sequence[str] = ("push", "other")) -> tuple[TextReader, Reacting]:
    both = np.stack([PUSH, OTHER], axis=1)
    reward = FunctionReward(lambda step: both[step.candidates], ("push", "other"))
    base = Reacting()
    template = ChatTemplate(TEMPLATE, beginning="", end="")
    return TextReader(base, LetterTokenizer(), template, features_of(reward, names), sequence=5), base


def test_a_text_that_changes_nothing_has_no_reaction() -> None:
    read, base = reader()
    reaction = read.reaction("a quiet text")
    assert reaction.signature == pytest.approx([0, 0], abs=1e-6)
    assert reaction.hidden[1:].tolist() == [0, 0]
    assert set(base.held) == {5}
    assert len(base.held) == 2 * len(PROBES)  # each probe once without the text, once with it


def test_the_signature_says_along_which_dimension_a_text_pushes() -> None:
    read, _ = reader()
    reaction = read.reaction("more zz")
    push, other = reaction.signature
    assert push > 0.5
    assert abs(other) < 0.2
    assert reaction.hidden.tolist() == pytest.approx([len("s:more zz\n"), 1, 0])
    swapped, _ = reader(("other", "push"))
    assert swapped.reaction("more zz").signature == pytest.approx(reaction.signature[::-1], abs=1e-5)


def test_a_text_that_does_not_fit_the_context_is_refused() -> None:
    with pytest.raises(ContextFullError):
        reader()[0].reaction("long " * 100)


def small_map() -> TextMap:
    matrix = np.zeros((2, 2 + D + 1), dtype=np.float32)
    matrix[0, 0], matrix[1, 3], matrix[1, -1] = 2.0, 1.0, -0.5
    return TextMap(names=("push", "other"), matrix=matrix)


def test_weights_are_the_bounded_linear_map_of_the_reaction() -> None:
    reaction = Reaction(signature=np.array([0.25, 0], dtype=np.float32), hidden=np.array([0, 1, 0], dtype=np.float32))
    weights: dict[str, float] = small_map().weights(reaction)
    assert weights == {"push": round(float(np.tanh(0.5)), 2), "other": round(float(np.tanh(0.5)), 2)}
    strong: FloatArray = np.array([1e6, 0], dtype=np.float32)
    assert small_map().weights(Reaction(signature=strong, hidden=reaction.hidden))["push"] == 1.0


def test_a_map_loses_a_dimension_and_keeps_what_the_others_read() -> None:
    left = small_map().without("push")
    assert left is not None
    assert left.names == ("other",)
    reaction = Reaction(signature=np.zeros(1, dtype=np.float32), hidden=np.array([0, 1, 0], dtype=np.float32))
    assert left.weights(reaction) == {"other": round(float(np.tanh(0.5)), 2)}
    assert left.without("other") is None
    assert small_map().without("unknown") is not None
    assert small_map().renamed("push", "pull").names == ("pull", "other")
