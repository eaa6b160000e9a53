"""Laws of the bridge on small tokenizers: a stream tokenizes as the whole text, candidates score as by brute force."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from padlite.bridge import BridgedReward
from padlite.retokenizing import FORCED, LONGEST, Retokenized
from padlite.scoring import pad_rewards
from padlite.seams import Dimension, FloatArray, Message, Step, TokenArray
from padlite.template import ChatTemplate
from tests.vocabularies import CORPUS, KINDS, BaseTokenizer, brute_force, own, trained, whole_tokens

TEMPLATE = ChatTemplate(
    "{% for m in messages %}{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}{% endif %}"
)
BASE = BaseTokenizer(trained("bytes"))
WORDS = sorted({word for line in CORPUS for word in line.split(" ")})
PROSE = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=60).map(" ".join)
ANYTHING = st.text(max_size=40) | PROSE | st.text(alphabet="ab =\n1é😀", max_size=300)
kinds = pytest.mark.parametrize("kind", KINDS)


class SeededLm:
    """Log-probabilities that depend on the last three tokens; checks what it is told it holds."""

    context_length = 100_000

    def __init__(self, vocabulary_size: int) -> None:
        self._size = vocabulary_size
        self._held: list[int] = []
        self.asked = 0

    @property
    def cached_tokens(self) -> int:
        return len(self._held)

    def logits(self, tokens: Sequence[int]) -> FloatArray:
        return np.random.default_rng(list(tokens[-3:])).standard_normal(self._size).astype(np.float32)

    def advance(self, tokens: Sequence[int], *, keep: int) -> None:
        raise AssertionError("what comes isn't known before the candidates are")

    def scores(self, tokens, candidates: TokenArray, *, keep: int, cancelled=None) -> FloatArray:  # type: ignore[no-untyped-def]
        assert tokens
        assert keep <= len(self._held)
        self._held = [*self._held[:keep], *tokens]
        self.asked += 1
        row = self.logits(self._held)
        return np.asarray((row - np.logaddexp.reduce(row))[candidates], dtype=np.float32)


def pieces_of(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut *data* into pieces of these *sizes*, over and over."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
    return pieces


@kinds
@given(text=ANYTHING, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_streamed_text_has_the_tokens_of_the_whole_text(kind: str, text: str, sizes: list[int]) -> None:
    stream, settled, data = Retokenized(own(kind)), list[int](), b""
    for piece in pieces_of(text.encode("utf-8", "replace"), sizes):
        expected = whole_tokens(own(kind), data + piece)
        ahead = stream.end_with(piece)
        assert ahead is None if expected is None else settled + (ahead or []) == expected
        settled += stream.feed(piece)
        data += piece
    assert settled + stream.end() == whole_tokens(own(kind), data)


@kinds
@given(data=st.binary(max_size=60), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_bytes_that_are_no_text_are_read_as_they_are_shown(kind: str, data: bytes, sizes: list[int]) -> None:
    stream, settled = Retokenized(own(kind)), list[int]()
    for piece in pieces_of(data, sizes):
        settled += stream.feed(piece)
    expected = whole_tokens(own(kind), data)
    if expected is not None:
        assert settled + stream.end() == expected


@kinds
@pytest.mark.parametrize("text", ["".join(CORPUS) * 20, " ".join(CORPUS) * 20], ids=["joined", "spaced"])
def test_over_2_000_tokens_nothing_drifts_and_only_a_short_end_is_tokenized(kind: str, text: str) -> None:
    longest = 0

    class Watched:
        def continued(self, text: str) -> list[int]:
            nonlocal longest
            longest = max(longest, len(text))
            return own(kind).continued(text)

        def unfinished(self, data: bytes) -> list[int] | None:
            return own(kind).unfinished(data)

    stream, settled = Retokenized(Watched()), list[int]()
    tokens = BASE.encode(text, special=False)
    for token in tokens:
        settled += stream.feed(BASE.piece(token))
    assert len(tokens) > 2000
    assert longest < 2 * LONGEST
    assert settled + stream.end() == own(kind).continued(text)


@kinds
def test_a_run_without_any_boundary_is_cut_all_the_same(kind: str) -> None:
    stream, settled = Retokenized(own(kind)), list[int]()
    for _ in range(3000):
        settled += stream.feed(b"=")
    assert len(settled) > 0
    assert len(stream.end()) <= FORCED
    assert sum(len(trained(kind).id_to_token(token) or "") for token in [*settled, *stream.end()]) == 3000


def bridged(kind: str) -> tuple[BridgedReward, SeededLm]:
    lm = SeededLm(own(kind).vocabulary_size)
    reward = BridgedReward(
        lm, BASE, TEMPLATE, own=own(kind), dimension=Dimension(name="humor"), preference="funny"
    )  # fmt: skip
    return reward, lm


def features_by_brute_force(kind: str, lm: SeededLm, prompt: list[int], answer: bytes, step: Step) -> FloatArray:
    """The rule, word for word: the tokens of the whole text with each candidate, each from the whole text before it."""
    end = trained(kind).token_to_id("<end>") or 0
    now = whole_tokens(own(kind), answer)
    if now is None:  # an unfinished character that this tokenizer has no bytes for isn't there yet
        now = own(kind).continued(answer.decode("utf-8", "ignore"))
    scores: dict[int, float] = {}
    for place, candidate in enumerate(step.candidates):
        piece = BASE.piece(int(candidate))
        tokens = whole_tokens(own(kind), answer + piece) if piece else None
        if BASE.is_end(int(candidate)):
            tokens = [*now, end]
        if tokens and tokens != now:
            scores[place] = brute_force(lm.logits, prompt, tokens)
    features = np.zeros((len(step.candidates), 1), dtype=np.float32)
    if scores:
        at = list(scores)
        features[at] = pad_rewards(np.array(list(scores.values())), step.base_logits[at])
    return features


@kinds
@given(
    text=PROSE,
    cut=st.integers(0, 200),
    candidates=st.lists(st.integers(0, BASE.vocabulary_size - 1), min_size=1, max_size=8, unique=True),
    seed=st.integers(0, 99),
)
def test_every_candidate_scores_as_by_brute_force(
    kind: str, text: str, cut: int, candidates: list[int], seed: int
) -> None:
    reward, lm = bridged(kind)
    answer = BASE.encode(text, special=False)[:cut]
    whole = len(answer)
    for begins, size in ((True, whole // 2), (False, whole), (True, whole // 3)):  # forward, and back as after /undo
        if begins:
            reward.begin([Message(role="user", content="hello")], [7, 7], lambda: False)
        step = Step(
            context=[7, 7, *answer[:size]],
            candidates=np.array(candidates, dtype=np.int64),
            base_logits=np.random.default_rng(seed).standard_normal(len(candidates)).astype(np.float32),
            hidden=np.zeros(4, dtype=np.float32),
            weights=np.ones(1, dtype=np.float32),
        )
        found = reward.features(step)
        data = b"".join(BASE.piece(token) for token in answer[:size])
        prompt = own(kind).encode(TEMPLATE_TEXT, special=True)
        np.testing.assert_allclose(found, features_by_brute_force(kind, lm, prompt, data, step), atol=1e-3)


@kinds
def test_tokens_that_later_letters_change_are_evaluated_anew(kind: str) -> None:
    reward, lm = bridged(kind)
    reward.begin([Message(role="user", content="hello")], [7], lambda: False)
    text = "unbelievable believer nothing"
    letters = [token for letter in text for token in BASE.encode(letter, special=False)]
    candidates = np.array([token for letter in " .?" for token in BASE.encode(letter, special=False)], dtype=np.int64)
    prompt, logits = own(kind).encode(TEMPLATE_TEXT, special=True), np.zeros(3, dtype=np.float32)
    for size in range(len(letters)):
        step = Step(
            context=[7, *letters[:size]], candidates=candidates, base_logits=logits,
            hidden=np.zeros(4, dtype=np.float32), weights=np.ones(1, dtype=np.float32),
        )  # fmt: skip
        expected = features_by_brute_force(kind, lm, prompt, text[:size].encode(), step)
        np.testing.assert_allclose(reward.features(step), expected, atol=1e-3)


TEMPLATE_TEXT = (
    "[Guidelines] Your task is to generate response by considering the following principle. "
    "[Principles] funny [Instruction] hello<end>"
)
