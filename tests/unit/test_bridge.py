"""A reward LM with a tokenizer of its own in a conversation, and what is refused when its tokenizer isn't right."""

import builtins
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from padlite.backends.onnx_lm import OnnxLm
from padlite.backends.reward_tokenizer import RewardTokenizer
from padlite.bridge import BridgedReward
from padlite.decode import FinishReason, Token
from padlite.errors import BackendError, ContextFullError, NotFoundError, PadliteError, RewardMismatchError
from padlite.options import DecodingOptions
from padlite.scoring import pad_rewards, top_k
from padlite.seams import Dimension, FloatArray, Step
from padlite.session import Event, Finished, Session
from padlite.template import ChatTemplate
from tests import lms
from tests.fakes import TableBase
from tests.vocabularies import END, BaseTokenizer, brute_force, own, place, trained, whole_tokens

KIND = "spaces"
BASE = BaseTokenizer(trained("bytes"))
V = BASE.vocabulary_size
TEMPLATE = ChatTemplate(
    "{% for m in messages %}{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}{% endif %}"
)
SHORT = "be {preference}: {message}"
WEIGHTS = lms.random_weights(own(KIND).vocabulary_size, 32, seed=5)
LENGTH = 12


def base_rule(tokens: Sequence[int]) -> FloatArray:
    """Logits that depend on the last two tokens and never favour the end."""
    logits = np.random.default_rng(list(tokens[-2:])).standard_normal(V).astype(np.float32)
    logits[trained("bytes").token_to_id(END)] = -9.0
    return logits


@pytest.fixture
def lm(tmp_path: Path) -> Iterator[OnnxLm]:
    path = lms.write_lm(tmp_path / "reward.onnx", WEIGHTS, normalized=True, context_length=512)
    with OnnxLm.open(path) as lm:
        yield lm


def session(lm: OnnxLm, *, weight: float = 1.0, strength: float = 1.0, base_context_length: int = 256) -> Session:
    reward = BridgedReward(
        lm, BASE, TEMPLATE, own=own(KIND), dimension=Dimension(name="humor"), preference="funny", prompt=SHORT,
        base_context_length=base_context_length,
    )  # fmt: skip
    return Session(
        base=TableBase(base_rule, vocabulary_size=V),
        tokenizer=BASE,
        template=TEMPLATE,
        reward=reward,
        weights={"humor": weight},
        options=DecodingOptions(candidates=5, max_tokens=LENGTH, strength=strength),
    )


def ids(events: Iterator[Event]) -> list[int]:
    return [event.id for event in events if isinstance(event, Token)]


def features_by_hand(told: Sequence[int], answer: Sequence[int], best: Sequence[int], base: FloatArray) -> FloatArray:
    before = b"".join(BASE.piece(token) for token in answer)
    chains = [whole_tokens(own(KIND), before + BASE.piece(token)) or [] for token in best]
    scores = [brute_force(lambda tokens: lms.reference_scores(WEIGHTS, tokens), told, chain) for chain in chains]
    return pad_rewards(np.array(scores, dtype=np.float32), base)


def by_hand(said: Sequence[str], *, weight: float = 1.0) -> list[int]:
    """PAD's loop with nothing kept: all of both texts tokenized and evaluated for every candidate of every step."""
    prompt = BASE.encode("".join(f"{each}<end>" for each in said), special=True)
    told = own(KIND).encode("".join(f"{each}<end>" for each in [f"be funny: {said[0]}", *said[1:]]), special=True)
    answer: list[int] = []
    for _ in range(LENGTH):
        logits = base_rule([*prompt, *answer])
        best = top_k(logits, 5)
        features = features_by_hand(told, answer, list(best), logits[best])
        answer.append(int(best[np.argmax(logits[best] + weight * features[:, 0])]))
    return answer


@pytest.mark.parametrize("weight", [0.5, 1.0, -1.0])
def test_an_answer_is_that_of_a_loop_that_keeps_nothing(lm: OnnxLm, weight: float) -> None:
    chat = session(lm, weight=weight)
    answer = ids(chat.say("hello"))
    assert answer == by_hand(["hello"], weight=weight)
    assert answer != by_hand(["hello"], weight=0.0)


def test_a_second_turn_reads_the_first_answer_as_text_and_evaluates_only_what_is_new(lm: OnnxLm) -> None:
    chat = session(lm)
    ids(chat.say("hello"))
    text, held = chat.messages[-1].content, lm.cached_tokens
    lm.evaluated_tokens = 0
    assert ids(chat.say("and more")) == by_hand(["hello", text, "and more"])
    assert lm.evaluated_tokens < held + 4 * LENGTH * 5  # every candidate may need a few pieces, the rest is held


def test_regenerate_undo_and_edit_roll_the_cache_back(lm: OnnxLm) -> None:
    chat = session(lm)
    answer = ids(chat.say("hello " * 20))
    first = lm.evaluated_tokens
    assert ids(chat.regenerate()) == answer
    assert lm.evaluated_tokens - first < first / 2  # the prompt is held
    assert ids(chat.edit("help")) == by_hand(["help"])
    chat.undo()
    assert ids(chat.say("hello " * 20)) == answer


def test_strength_0_asks_the_reward_lm_nothing(lm: OnnxLm) -> None:
    ids(session(lm, strength=0.0).say("hello"))
    assert lm.evaluated_tokens == 0


def test_a_weight_set_in_mid_answer_makes_it_catch_up(lm: OnnxLm) -> None:
    chat, found = session(lm, weight=0.0), list[int]()
    for event in chat.say("hello"):
        if isinstance(event, Token):
            found.append(event.id)
            if len(found) == 5:
                assert lm.evaluated_tokens == 0
                chat.set_weight("humor", 1.0)
    plain = by_hand(["hello"], weight=0.0)
    logits = base_rule([*BASE.encode("hello<end>", special=True), *plain[:5]])
    best = top_k(logits, 5)
    told = own(KIND).encode("be funny: hello<end>", special=True)
    guided = logits[best] + features_by_hand(told, plain[:5], list(best), logits[best])[:, 0]
    assert found[:6] == [*plain[:5], int(best[np.argmax(guided)])]


def test_why_shows_what_it_added_to_each_candidate(lm: OnnxLm) -> None:
    chat = session(lm)
    step = next(event.trace for event in chat.say("hello") if isinstance(event, Token))
    assert not step.fallback
    logits = base_rule(BASE.encode("hello<end>", special=True))
    best = top_k(logits, 5)
    told = own(KIND).encode("be funny: hello<end>", special=True)
    expected = features_by_hand(told, [], list(best), logits[best])
    np.testing.assert_allclose(step.features, expected, atol=1e-3)


def test_an_end_token_is_judged_as_the_end_token_of_the_reward_lm(lm: OnnxLm) -> None:
    reward = session(lm)._reward
    assert reward is not None
    end = trained("bytes").token_to_id(END)
    letters = BASE.encode("e", special=False)
    step = Step(
        context=[1], candidates=np.array([end, *letters], dtype=np.int64), base_logits=np.zeros(2, dtype=np.float32),
        hidden=np.zeros(4, dtype=np.float32), weights=np.ones(1, dtype=np.float32),
    )  # fmt: skip
    features = reward.features(step)[:, 0]
    row = lms.reference_scores(WEIGHTS, reward._tokens)  # type: ignore[attr-defined]
    mine = [trained(KIND).token_to_id(END), *own(KIND).continued("e")]
    assert features[0] - features[1] == pytest.approx(row[mine[0]] - row[mine[1]], abs=1e-3)


def test_what_its_tokens_of_the_text_would_not_fit_is_not_given_to_the_conversation(tmp_path: Path) -> None:
    path = lms.write_lm(tmp_path / "reward.onnx", WEIGHTS, normalized=True, context_length=100)
    with OnnxLm.open(path) as lm:
        chat = session(lm)
        assert 0 < chat.context_length < 100 < session(lm, base_context_length=0).context_length
        with pytest.raises(ContextFullError):
            list(chat.say("the cat sat on the mat. " * 12))
        assert lm.evaluated_tokens == 0


def test_a_text_that_fills_the_reward_lm_ends_the_answer(tmp_path: Path) -> None:
    path = lms.write_lm(tmp_path / "reward.onnx", WEIGHTS, normalized=True, context_length=20)
    with OnnxLm.open(path) as lm:
        *_, last = session(lm, base_context_length=0).say("hello")
    assert isinstance(last, Finished)
    assert last.answer.finish_reason == FinishReason.CONTEXT
    assert 0 < last.answer.usage.completion_tokens < LENGTH


def write(folder: Path, *, normalized: bool = True, source: str | None = None, sha256: str | None = None) -> Path:
    """A reward LM and its tokenizer, as an export leaves them."""
    path = folder / "reward.onnx"
    text = trained(KIND).to_str() if source is None else source
    digest = hashlib.sha256(place(path, text).read_bytes()).hexdigest()
    metadata = {"padlite.tokenizer_json_sha256": sha256 or digest}
    return lms.write_lm(path, WEIGHTS, normalized=normalized, metadata=metadata if sha256 != "" else None)


def refused(path: Path) -> PadliteError:
    with OnnxLm.open(path) as lm, pytest.raises(PadliteError) as caught:
        lm.own_tokenizer()
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return caught.value


def test_its_tokenizer_is_read_from_the_file_beside_it(tmp_path: Path) -> None:
    with OnnxLm.open(write(tmp_path)) as lm:
        assert lm.own_tokenizer().continued("the cat") == own(KIND).continued("the cat")


def test_a_reward_lm_that_brings_no_tokenizer_along_is_refused(tmp_path: Path) -> None:
    error = refused(write(tmp_path, sha256=""))
    assert isinstance(error, RewardMismatchError)
    assert "another tokenizer" in str(error)


def test_one_that_gives_no_log_probabilities_is_refused(tmp_path: Path) -> None:
    error = refused(write(tmp_path, normalized=False))
    assert isinstance(error, RewardMismatchError)
    assert "no log-probabilities" in str(error)
    assert "--normalized" in error.remedy


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "reward.onnx.tokenizer.json").unlink()
    error = refused(path)
    assert isinstance(error, NotFoundError)
    assert "reward.onnx.tokenizer.json can't be read: No such file" in str(error)


def test_another_tokenizer_than_it_was_exported_with_is_refused(tmp_path: Path) -> None:
    error = refused(write(tmp_path, sha256="0" * 64))
    assert isinstance(error, BackendError)
    assert "isn't the tokenizer that the reward LM was exported with" in str(error)


@pytest.mark.parametrize("source", ["", "{", "[]", "[[1]]", '{"model": 1}', "\x00", json.dumps({"version": "9"})])
def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path: Path, source: str) -> None:
    error = refused(write(tmp_path, source=source))
    assert isinstance(error, BackendError)
    assert "can't be read as a tokenizer" in str(error)


def test_a_tokenizer_with_more_tokens_than_the_reward_lm_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reward.onnx"
    place(path, trained(KIND).to_str())
    digest = hashlib.sha256((tmp_path / "reward.onnx.tokenizer.json").read_bytes()).hexdigest()
    small = lms.random_weights(40, 16)
    error = refused(lms.write_lm(path, small, normalized=True, metadata={"padlite.tokenizer_json_sha256": digest}))
    assert "has 480 tokens, and its reward LM 40" in str(error)


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = write(tmp_path), builtins.__import__

    def no_tokenizers(name, *arguments, **named):  # type: ignore[no-untyped-def]
        if name == "tokenizers":
            raise ModuleNotFoundError("No module named 'tokenizers'")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", no_tokenizers)
    error = refused(path)
    assert isinstance(error, NotFoundError)
    assert error.remedy == "pip install 'padlite[bridge]'"


def test_what_is_put_before_a_text_is_not_put_before_one_that_goes_on() -> None:
    assert own("spaces").encode("cat", special=True) == own("spaces").continued(" cat")
    assert own("unigram").encode("cat", special=True) == own("unigram").continued(" cat")
    assert own("spaces").continued("cat") != own("spaces").continued(" cat")


def test_control_tokens_in_an_answer_are_characters() -> None:
    end = trained("bytes").token_to_id(END)
    assert own("bytes").encode("a<end>", special=True)[-1] == end
    assert end not in own("bytes").continued("a<end>")


@pytest.mark.parametrize(
    ("source", "end_text", "expected"),
    [
        ("{% for m in messages %}{{ m.content }}<end>{% endfor %}", "", True),
        ("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", END, True),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", END, True),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "", False),
    ],
)
def test_the_token_that_ends_an_answer_is_the_templates_or_the_tokenizers(
    source: str, end_text: str, expected: bool
) -> None:
    tokenizer = RewardTokenizer(trained("bytes").to_str(), end_text=end_text)
    found = tokenizer.end(ChatTemplate(source, end=end_text))
    assert found == (trained("bytes").token_to_id(END) if expected else None)
