"""A reward LM in ONNX Runtime: what it scores, what its cache keeps, what is refused."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from padlite.backends import onnx_schema as onnx
from padlite.backends.onnx_lm import OnnxLm
from padlite.backends.onnx_reward import open_reward
from padlite.errors import BackendError, ContextFullError, DecodingCancelled, UsageError
from padlite.scoring import choose, combine, pad_rewards
from tests import lms
from tests.heads import edit, set_metadata, write_small_head

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "pad_greedy_choices.json").read_text())["cases"]
TEXT = [5, 9, 1, 30, 22, 7, 7, 39, 0, 12]
CANDIDATES = np.array([3, 17, 39], dtype=np.int64)
WEIGHTS = lms.random_weights()


@pytest.fixture
def lm(tmp_path: Path) -> Iterator[OnnxLm]:
    with OnnxLm.open(lms.write_lm(tmp_path / "reward.onnx", WEIGHTS)) as lm:
        yield lm


def test_scores_are_those_of_the_whole_text_at_once(lm: OnnxLm) -> None:
    scores = lm.scores(TEXT, CANDIDATES, keep=0)
    np.testing.assert_allclose(scores, lms.reference_scores(WEIGHTS, TEXT)[CANDIDATES], atol=1e-4)


def test_a_text_fed_in_pieces_scores_like_the_whole(lm: OnnxLm) -> None:
    for begin, end in ((0, 4), (4, 5), (5, 9)):
        lm.scores(TEXT[begin:end], CANDIDATES, keep=begin)
        assert lm.cached_tokens == end
    scores = lm.scores(TEXT[9:], CANDIDATES, keep=9)
    np.testing.assert_allclose(scores, lms.reference_scores(WEIGHTS, TEXT)[CANDIDATES], atol=1e-4)
    assert lm.evaluated_tokens == len(TEXT)


def test_going_back_forgets_what_came_after(lm: OnnxLm) -> None:
    lm.scores(TEXT, CANDIDATES, keep=0)
    scores = lm.scores([8, 2], CANDIDATES, keep=6)
    np.testing.assert_allclose(scores, lms.reference_scores(WEIGHTS, [*TEXT[:6], 8, 2])[CANDIDATES], atol=1e-4)
    assert lm.cached_tokens == 8


@pytest.fixture(params=[False, True], ids=["logits", "log-probabilities"])
def two(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[OnnxLm, OnnxLm]]:
    """The same reward LM twice: one that never runs in the background, one that may."""
    path = lms.write_lm(tmp_path / "reward.onnx", WEIGHTS, normalized=request.param)
    with OnnxLm.open(path) as alone, OnnxLm.open(path, threads=2) as beside:
        yield alone, beside


def test_a_token_that_began_in_the_background_scores_the_same_bit_for_bit(two: tuple[OnnxLm, OnnxLm]) -> None:
    alone, beside = two
    for at, token in enumerate(TEXT):
        beside.advance([token], keep=at)
        assert beside.cached_tokens == at
        wanted, found = (lm.scores([token], CANDIDATES, keep=at) for lm in two)
        np.testing.assert_array_equal(found, wanted)
        assert (beside.cached_tokens, beside.evaluated_tokens) == (at + 1, at + 1)
    assert alone.evaluated_tokens == len(TEXT)


def test_only_what_did_not_begin_is_left_to_do(two: tuple[OnnxLm, OnnxLm]) -> None:
    for lm in two:
        lm.scores(TEXT[:4], CANDIDATES, keep=0)
        lm.advance(TEXT[4:5], keep=4)
        lm.scores(TEXT[4:], CANDIDATES, keep=4)
        assert (lm.cached_tokens, lm.evaluated_tokens) == (len(TEXT), len(TEXT))
    again = [lm.scores([3], CANDIDATES, keep=8) for lm in two]
    np.testing.assert_array_equal(again[1], again[0])


@pytest.mark.parametrize(("text", "keep"), [([8, 2], 6), ([8], 4), (TEXT[2:4], 2)])
def test_another_text_than_the_one_that_began_scores_as_ever(
    two: tuple[OnnxLm, OnnxLm], text: list[int], keep: int
) -> None:
    scores = []
    for lm in two:
        lm.scores(TEXT[:6], CANDIDATES, keep=0)
        lm.advance([30], keep=6)
        scores.append(lm.scores(text, CANDIDATES, keep=keep))
        assert lm.cached_tokens == keep + len(text)
    np.testing.assert_array_equal(scores[1], scores[0])


def test_what_began_twice_is_what_began_last(two: tuple[OnnxLm, OnnxLm]) -> None:
    scores = []
    for lm in two:
        lm.scores(TEXT[:6], CANDIDATES, keep=0)
        lm.advance([30], keep=6)
        lm.advance([31], keep=5)
        scores.append(lm.scores([31], CANDIDATES, keep=5))
    np.testing.assert_array_equal(scores[1], scores[0])


def test_what_fails_in_the_background_is_said_to_whoever_asks_for_it(two: tuple[OnnxLm, OnnxLm]) -> None:
    _, lm = two
    lm.scores(TEXT[:6], CANDIDATES, keep=0)
    lm.advance([4000], keep=6)
    with pytest.raises(BackendError, match="the reward LM failed"):
        lm.scores([4000], CANDIDATES, keep=6)
    assert (lm.cached_tokens, lm.evaluated_tokens) == (6, 6)
    lm.advance([4000], keep=6)
    scores = [lm.scores([8], CANDIDATES, keep=3), two[0].scores([*TEXT[:3], 8], CANDIDATES, keep=0)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


def test_a_stop_keeps_what_ran_in_the_background(two: tuple[OnnxLm, OnnxLm]) -> None:
    _, lm = two
    lm.scores(TEXT[:6], CANDIDATES, keep=0)
    lm.advance(TEXT[6:7], keep=6)
    with pytest.raises(DecodingCancelled):
        lm.scores(TEXT[6:], CANDIDATES, keep=6, cancelled=lambda: True)
    assert lm.cached_tokens == 7


def test_no_token_begins_that_does_not_fit(tmp_path: Path) -> None:
    path = lms.write_lm(tmp_path / "reward.onnx", WEIGHTS)
    with OnnxLm.open(path, context_length=8, threads=2) as lm:
        lm.scores(TEXT[:8], CANDIDATES, keep=0)
        lm.advance([1], keep=8)
        with pytest.raises(ContextFullError):
            lm.scores([1], CANDIDATES, keep=8)


def test_closing_waits_for_what_runs_in_the_background(tmp_path: Path) -> None:
    path = lms.write_lm(tmp_path / "reward.onnx", WEIGHTS, context_length=400)
    with OnnxLm.open(path, threads=2) as lm:
        other = lm.with_own_cache()
        lm.advance([7] * 300, keep=0)
        other.advance([7] * 300, keep=0)
    assert lm.evaluated_tokens == 300
    lm.advance([7], keep=0)
    with pytest.raises(BackendError, match="closed"):
        lm.scores([7], CANDIDATES, keep=0)
    other.close()


def test_nothing_runs_in_the_background_where_one_thread_must_do(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with OnnxLm.open(lms.write_lm(tmp_path / "reward.onnx", WEIGHTS), threads=1) as lm:
        lm.advance(TEXT, keep=0)
        assert not set(threading.enumerate()) - before
        lm.scores(TEXT, CANDIDATES, keep=0)
        assert lm.evaluated_tokens == len(TEXT)


@pytest.mark.parametrize(
    ("parameters", "threads", "own"), [("99", 8, 1), ("99", 1, 1), ("99000000", 8, 4), ("99000000", 1, 1)]
)
def test_it_leaves_threads_to_the_base(tmp_path: Path, parameters: str, threads: int, own: int) -> None:
    path = lms.write_lm(tmp_path / "reward.onnx", WEIGHTS, metadata={"padlite.parameters": parameters})
    with OnnxLm.open(path, threads=threads) as lm:
        assert (lm.threads, lm.with_own_cache().threads) == (own, own)


def test_an_earlier_result_stays_as_it_was(lm: OnnxLm) -> None:
    first = lm.scores(TEXT[:3], CANDIDATES, keep=0)
    kept = first.copy()
    lm.scores(TEXT[3:], CANDIDATES, keep=3)
    np.testing.assert_array_equal(first, kept)
    assert first.flags.owndata  # no view of memory that ONNX Runtime has let go


def test_normalized_scores_are_log_probabilities(tmp_path: Path) -> None:
    with OnnxLm.open(lms.write_lm(tmp_path / "reward.onnx", WEIGHTS, normalized=True)) as lm:
        scores = lm.scores(TEXT, np.arange(40, dtype=np.int64), keep=0)
    logits = lms.reference_scores(WEIGHTS, TEXT)
    assert lm.info.normalized
    np.testing.assert_allclose(scores, logits - np.logaddexp.reduce(logits), atol=1e-4)


def test_every_recorded_decision_of_pad_comes_out_of_a_reward_lm_file(tmp_path: Path) -> None:
    table = np.zeros((len(RECORDED), len(RECORDED)), dtype=np.float32)
    for at, case in enumerate(RECORDED):  # after token `at` come its candidates, numbered as they stand there
        table[at, : case["k"]] = case["reward_logits"]
    with OnnxLm.open(lms.write_lm(tmp_path / "reward.onnx", lms.reading_off(table))) as lm:
        chosen = []
        for at, case in enumerate(RECORDED):
            base = np.array(case["base_logits"], dtype=np.float32)
            features = pad_rewards(lm.scores([at], np.arange(case["k"], dtype=np.int64), keep=0), base)
            scores = combine(base, features, np.array([case["w"]], dtype=np.float32))
            pick = choose(scores, temperature=0.0, top_p=1.0, min_p=0.0, draw=0.0)
            chosen.append(case["candidates"][pick])
    assert len(chosen) == 108
    assert chosen == [case["chosen"] for case in RECORDED]


def test_a_text_that_does_not_fit_is_refused_whole(tmp_path: Path) -> None:
    with OnnxLm.open(lms.write_lm(tmp_path / "reward.onnx", WEIGHTS), context_length=8) as lm:
        lm.scores(TEXT[:4], CANDIDATES, keep=0)
        with pytest.raises(ContextFullError, match="context of 8 tokens"):
            lm.scores(TEXT[4:9], CANDIDATES, keep=4)
        lm.scores(TEXT[4:8], CANDIDATES, keep=4)


def test_the_context_is_never_longer_than_it_was_made_for(tmp_path: Path) -> None:
    with OnnxLm.open(lms.write_lm(tmp_path / "reward.onnx", WEIGHTS), context_length=1000) as lm:
        assert lm.context_length == 64


def test_a_stopped_prefill_keeps_what_was_evaluated(tmp_path: Path) -> None:
    asked = iter([False, True])
    long = [TEXT[at % 10] for at in range(300)]
    path = lms.write_lm(tmp_path / "reward.onnx", WEIGHTS, context_length=400)
    with OnnxLm.open(path) as lm:
        with pytest.raises(DecodingCancelled):
            lm.scores(long, CANDIDATES, keep=0, cancelled=lambda: next(asked))
        assert 0 < lm.cached_tokens < 300
        scores = lm.scores(long[lm.cached_tokens :], CANDIDATES, keep=lm.cached_tokens)
        assert lm.evaluated_tokens == 300
    np.testing.assert_allclose(scores, lms.reference_scores(WEIGHTS, long)[CANDIDATES], atol=1e-4)


def test_a_token_beyond_the_vocabulary_is_one_clear_error(lm: OnnxLm, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BackendError, match="the reward LM failed"):
        lm.scores([4000], CANDIDATES, keep=0)
    assert capfd.readouterr() == ("", "")


def test_a_closed_reward_lm_says_so(lm: OnnxLm) -> None:
    lm.close()
    with pytest.raises(BackendError, match="closed"):
        lm.scores(TEXT, CANDIDATES, keep=0)


def test_two_conversations_keep_their_own_caches(lm: OnnxLm) -> None:
    other = lm.with_own_cache()
    lm.scores(TEXT[:5], CANDIDATES, keep=0)
    other.scores(TEXT[::-1], CANDIDATES, keep=0)
    scores = lm.scores(TEXT[5:], CANDIDATES, keep=5)
    np.testing.assert_allclose(scores, lms.reference_scores(WEIGHTS, TEXT)[CANDIDATES], atol=1e-4)


def test_a_base_with_another_tokenizer_or_a_larger_vocabulary_is_told_apart(lm: OnnxLm) -> None:
    assert lm.reads_tokens_of(vocabulary_size=40, tokenizer_sha256=lms.SHA256)
    for size, sha256 in ((41, lms.SHA256), (40, "f" * 64)):
        assert not lm.reads_tokens_of(vocabulary_size=size, tokenizer_sha256=sha256)


def test_the_kind_decides_what_is_opened(tmp_path: Path) -> None:
    with open_reward(lms.write_lm(tmp_path / "lm.onnx", WEIGHTS)) as lm:
        assert isinstance(lm, OnnxLm)
        assert lm.dimensions[0].name == "preference"
    with open_reward(write_small_head(tmp_path / "head.onnx")) as head:
        assert [each.name for each in head.dimensions] == ["alpha", "beta"]


def test_an_unknown_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        OnnxLm.open(lms.write_lm(tmp_path / "reward.onnx", WEIGHTS), device="gpu")


def test_cuda_is_refused_because_its_attention_has_no_kernel_for_it(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="a reward LM can't have it") as caught:
        OnnxLm.open(lms.write_lm(tmp_path / "reward.onnx", WEIGHTS), device="cuda")
    assert "'auto'" in caught.value.remedy


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("padlite.schema", "2", "schema '2'"),
        ("padlite.kind", "oracle", "kind 'oracle' is none of head, lm"),
        ("padlite.kind", "head", "it uses operator set 'com.microsoft'"),
        ("padlite.scores", "votes", "padlite.scores is 'votes'"),
        ("padlite.context_length", "-3", "padlite.context_length isn't a positive whole number"),
        ("padlite.vocabulary_size", "many", "padlite.vocabulary_size"),
        ("padlite.tokenizer_sha256", "abc", "isn't a sha256"),
        ("padlite.dimensions", "[]", "names 0 dimensions"),
        ("padlite.dimensions", "{", "is no JSON"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(tmp_path: Path, key: str, value: str, reason: str) -> None:
    path = edit(lms.write_lm(tmp_path / "reward.onnx", WEIGHTS), lambda model: set_metadata(model, key, value))
    with pytest.raises(BackendError, match=reason):
        open_reward(path)


def test_a_prompt_without_its_fields_is_refused(tmp_path: Path) -> None:
    path = lms.write_lm(tmp_path / "reward.onnx", WEIGHTS, metadata={"padlite.prompt": "Be {preference}."})
    with pytest.raises(BackendError, match=r"\{message\}"):
        open_reward(path)


def _loop(model: onnx.Model) -> None:
    node = model.graph.node.add()
    node.op_type = "Loop"


def _renamed(model: onnx.Model) -> None:
    model.graph.input[0].name = "tokens"


def _other_heads(model: onnx.Model) -> None:
    model.graph.output[2].type.tensor_type.shape.dim[1].dim_value = 3


def _no_cache(model: onnx.Model) -> None:
    del model.graph.input[4:]


def _in_one_part(model: onnx.Model) -> None:
    """As the layout was before: scores made of the tokens' own hidden state."""
    del model.graph.input[2]
    del model.graph.output[1]


def _bypassed(model: onnx.Model) -> None:
    model.graph.node[len(model.graph.node) - 1].input[0] = "hidden"


def _wider(model: onnx.Model) -> None:
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_loop, "the operator 'Loop'"),
        (_renamed, "its inputs aren't"),
        (_other_heads, "another type or shape"),
        (_no_cache, "its inputs aren't"),
        (_in_one_part, "its inputs aren't tokens, mask, state"),
        (_bypassed, "aren't two parts of their own"),
        (_wider, "'hidden' has another type or shape"),
    ],
)
def test_a_graph_that_is_no_reward_lm_is_refused(tmp_path: Path, change, reason: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BackendError, match=reason) as caught:
        open_reward(edit(lms.write_lm(tmp_path / "reward.onnx", WEIGHTS), change))
    assert change is _loop or "export it again" in caught.value.remedy
