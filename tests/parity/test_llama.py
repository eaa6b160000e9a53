"""Our engine and loop against llama.cpp's own, on a random model."""

from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from padlite.backends.llama import LlamaModel, may_repack
from padlite.decode import Guidance, Token, decode
from padlite.errors import BackendError, ContextFullError, DecodingCancelled, NotFoundError
from padlite.options import DecodingOptions, EngineOptions
from tests.fakes import FunctionReward

BATCH_NOISE = 0.3  # nats; what another batch shape may change in the logits (range about 12) of the random model
TEXT = "The quick brown fox jumps over the lazy dog. " * 3


@pytest.fixture(scope="module")
def base(random_base: Path) -> Iterator[LlamaModel]:
    with LlamaModel.open(random_base) as model:
        yield model


@pytest.mark.parametrize("count", [1, 99])
def test_threads_that_are_left_to_others_change_no_answer(random_base: Path, count: int) -> None:
    with LlamaModel.open(random_base, EngineOptions(threads=2)) as base:
        prompt = base.tokenizer.encode(TEXT, special=False)
        before = ours(base, prompt, 12, strength=0.0, weights=[0.0, 0.0], reward=False)
        base.prefill(prompt[:8], sequence=1)
        together = [state.logits.copy() for state in base.step_together(prompt[8], [1])]
        base.leave_threads(count)
        assert (base.threads, base.step_threads) == (2, 1)
        assert ours(base, prompt, 12, strength=0.0, weights=[0.0, 0.0], reward=False) == before
        base.prefill(prompt[:8], sequence=1)
        np.testing.assert_array_equal([state.logits for state in base.step_together(prompt[8], [1])], together)


def own_greedy(path: Path, prompt: list[int], count: int) -> list[int]:
    """llama.cpp's own loop with its own greedy sampler."""
    of_model = llama_cpp.llama_model_default_params()
    of_model.use_extra_bufts = may_repack()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), of_model)
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = 512
    context = llama_cpp.llama_init_from_model(model, parameters)
    sampler = llama_cpp.llama_sampler_init_greedy()
    tokens: list[int] = []
    for batch in (
        prompt[:-1],
        prompt[-1:],
    ):  # as padlite evaluates it; llama.cpp's last bits depend on the batch's shape
        ids = (llama_cpp.llama_token * len(batch))(*batch)
        llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, len(batch)))
    for _ in range(count):
        tokens.append(llama_cpp.llama_sampler_sample(sampler, context, -1))
        llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(tokens[-1]), 1))
    llama_cpp.llama_sampler_free(sampler)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return tokens


def ours(
    base: LlamaModel, prompt: list[int], count: int, *, strength: float, weights: list[float], reward: bool
) -> list[int]:
    noise = FunctionReward(lambda step: np.sin(step.candidates[:, None] * [3.0, 5.0]), ["x", "y"])
    events = decode(
        base, base.tokenizer, noise if reward else None, prompt,
        options=DecodingOptions(max_tokens=count, strength=strength),
        guidance=Guidance(weights=np.array(weights, dtype=np.float32), strength=strength),
        rng=np.random.default_rng(0), cancelled=lambda: False,
    )  # fmt: skip
    return [event.id for event in events if isinstance(event, Token)]


@pytest.mark.parametrize(
    ("strength", "weights", "reward"),
    [(0.0, [1.0, 1.0], True), (1.0, [0.0, 0.0], True), (1.0, [], False)],
    ids=["strength 0", "all weights 0", "no reward model"],
)
def test_without_guidance_every_token_is_llama_cpps_own(
    base: LlamaModel, random_base: Path, strength: float, weights: list[float], reward: bool
) -> None:
    prompt = base.tokenizer.encode(TEXT, special=False)
    theirs = own_greedy(random_base, prompt, 64)
    assert ours(base, prompt, 64, strength=strength, weights=weights, reward=reward) == theirs
    assert ours(base, prompt, 64, strength=2.0, weights=[1.0, 1.0], reward=True) != theirs


def test_a_reused_prefix_gives_the_logits_of_a_fresh_one(base: LlamaModel) -> None:
    tokens = base.tokenizer.encode(TEXT, special=False)
    base.forget(0)
    fresh = base.prefill(tokens).logits.copy()
    base.prefill(tokens[:20] + tokens[:30])
    before = base.evaluated_tokens
    again = base.prefill(tokens).logits.copy()
    assert base.evaluated_tokens - before == len(tokens) - 20
    assert np.abs(fresh - again).max() < BATCH_NOISE < np.abs(fresh - base.prefill(tokens[:-1]).logits).max()


def test_a_fork_evaluates_nothing_and_goes_its_own_way(base: LlamaModel) -> None:
    tokens = base.tokenizer.encode(TEXT, special=False)
    base.prefill(tokens)
    before = base.evaluated_tokens
    base.fork(0, 1)
    assert base.evaluated_tokens == before
    forked = base.step(65, sequence=1).logits.copy()
    assert np.abs(forked - base.step(65, sequence=0).logits).max() < 1e-4
    assert (base.cached_tokens(0), base.cached_tokens(1)) == (len(tokens) + 1, len(tokens) + 1)


def test_cancel_stops_a_prefill_and_the_next_one_is_right(base: LlamaModel) -> None:
    tokens = base.tokenizer.encode(TEXT, special=False)
    base.forget(0)
    with pytest.raises(DecodingCancelled):
        base.prefill(tokens, cancelled=lambda: True)
    stopped = base.prefill(tokens).logits.copy()
    base.forget(0)
    assert np.abs(stopped - base.prefill(tokens).logits).max() < 1e-3


def test_hidden_state_and_logits_come_from_the_same_step(base: LlamaModel) -> None:
    state = base.prefill(base.tokenizer.encode("hello", special=False))
    assert state.hidden.shape == (base.hidden_size,)
    assert state.logits.shape == (base.vocabulary_size,)
    assert np.abs(state.hidden).max() > 0


def test_text_survives_the_tokenizer_and_control_tokens_are_only_parsed_on_request(base: LlamaModel) -> None:
    text = "naïve 🙂  tab\t<|im_end|> 漢字"
    ids = base.tokenizer.encode(text, special=False)
    assert b"".join(base.tokenizer.piece(i) for i in ids).decode() == text
    assert not any(base.tokenizer.is_end(i) for i in ids)
    assert any(base.tokenizer.is_end(i) for i in base.tokenizer.encode(text, special=True))
    assert "<|im_end|>" in base.tokenizer.control_texts


def test_more_than_the_context_is_refused(base: LlamaModel) -> None:
    with pytest.raises(ContextFullError, match="513 tokens don't fit"):
        base.prefill([5] * 513)


def test_the_log_goes_to_logging_and_never_to_the_terminal(
    random_base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with LlamaModel.open(random_base) as model:
        model.prefill([5, 6])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("keep", [0, 3, 4, 24, 100, 2000, 20_000])
def test_a_truncated_model_is_one_clear_error(
    random_base: Path, tmp_path: Path, keep: int, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(random_base.read_bytes()[:keep])
    with pytest.raises(BackendError, match=r"cut\.gguf"):
        LlamaModel.open(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_behind_the_magic_are_one_clear_error(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"GGUF" + np.random.default_rng(seed).bytes(4000))
    with pytest.raises(BackendError, match=r"noise\.gguf"):
        LlamaModel.open(path)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.gguf"):
        LlamaModel.open(tmp_path / "none.gguf")


def test_closing_gives_the_memory_back_and_is_safe_twice(random_base: Path) -> None:
    model = LlamaModel.open(random_base)
    model.close()
    model.close()
