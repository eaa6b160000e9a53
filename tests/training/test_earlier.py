"""A training that goes on from an earlier bundle begins with its weights, its tokenizer and its history."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from padlite.bundle import Bundle, write_manifest
from padlite.errors import BackendError
from padlite_training.base_gguf import open_base
from padlite_training.base_training import is_finished, load_mixed, load_model, progress_of
from padlite_training.earlier import start_from
from padlite_training.export_gguf import export_gguf, measure_parity, require_same_tokens
from padlite_training.facts import BaseFacts, EarlierFacts, Parity
from padlite_training.llama_model import LlamaForTraining
from padlite_training.places import Places
from padlite_training.recipe import BaseTraining, ModelShape, Recipe
from padlite_training.sources import own_small_talk
from padlite_training.tokenizer import load_tokenizer, train_tokenizer, vocabulary_of

SHAPE = ModelShape(vocabulary=512, width=64, layers=2, heads=2, feed_forward=96, context_length=128)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(data=tmp_path, out=tmp_path / "out", work=tmp_path / "work")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    folder = tmp_path / "before"
    folder.mkdir()
    path = tmp_path / "tokenizer.json"
    train_tokenizer([str(row) for row in own_small_talk()[:200]], vocabulary=SHAPE.vocabulary).save(str(path))
    torch.manual_seed(5)
    export_gguf(LlamaForTraining(SHAPE), load_tokenizer(path), folder / "base.gguf", name="before", licence="none")
    training = {"base": "70,000 weights, 1,234,567 tokens, 85 minutes"}
    return write_manifest(folder, name="before", license="none", reward=None, training=training)


def test_it_begins_with_what_the_bundle_computes_and_how_it_reads(bundle: Bundle, places: Places) -> None:
    start_from(bundle, places, SHAPE, phase="base")
    tokenizer, model = load_tokenizer(places.tokenizer), load_model(places.checkpoint("base"), SHAPE)
    with open_base(bundle.base) as base:
        require_same_tokens(tokenizer, base)
        parity = measure_parity(model, base, [tokenizer.encode("It is a fine day, isn't it?").ids])
    assert parity.cosine > 0.999
    assert vocabulary_of(tokenizer) == vocabulary_of(load_tokenizer(places.work.parent / "tokenizer.json"))


def test_the_first_phase_counts_as_done_by_the_bundle(bundle: Bundle, places: Places) -> None:
    start_from(bundle, places, SHAPE, phase="base")
    assert is_finished(places.checkpoint("base"), BaseTraining(budget_s=30 * 60.0))
    assert progress_of(places.checkpoint("base")).tokens == 1_234_567
    assert EarlierFacts.load(places.facts("earlier")).name == "before"


def test_a_bundle_of_another_size_is_refused_by_name(bundle: Bundle, places: Places) -> None:
    with pytest.raises(BackendError, match=r"token_embd\.weight should be 96 x 512, and is 64 x 512"):
        start_from(bundle, places, replace(SHAPE, width=96, heads=3), phase="base")
    assert not places.checkpoint("base").exists()


def test_a_bundle_that_does_not_tell_its_history_is_refused(bundle: Bundle, places: Places) -> None:
    with pytest.raises(BackendError, match="doesn't say how its base was trained"):
        start_from(replace(bundle, training={}), places, SHAPE, phase="base")


def test_the_record_of_a_base_remembers_what_it_went_on_from(tmp_path: Path) -> None:
    parity = Parity(cosine=1.0, difference=0.0, top_one=1.0, positions=1)
    facts = BaseFacts(
        weights=1, phases={}, held_out_loss=1.0, parity=parity, earlier=EarlierFacts(name="before", sha256="0" * 64)
    )
    facts.save(tmp_path / "base.json")
    assert BaseFacts.load(tmp_path / "base.json") == facts


def test_a_base_that_goes_on_is_not_shaken_up_first() -> None:
    recipe = Recipe()
    focus, before = recipe.going_on().focus, recipe.focus
    assert (focus.matrix_rate / before.matrix_rate, focus.table_rate / before.table_rate) == pytest.approx((0.4, 0.4))
    assert focus.warmup_share + focus.decay_share == 1.0  # no stretch at the highest rate
    assert replace(recipe, focus=before) == replace(recipe.going_on(), focus=before)


def test_what_comes_of_it_lies_between_before_and_after(tmp_path: Path) -> None:
    paths, models = [tmp_path / "before.pt", tmp_path / "after.pt"], []
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        models.append(LlamaForTraining(SHAPE))
        torch.save({"model": models[-1].state_dict()}, path)
    mixed = load_mixed(paths[0], paths[1], SHAPE, share=0.75)
    for got, one, other in zip(mixed.parameters(), *(model.parameters() for model in models), strict=True):
        assert torch.allclose(got, one / 4 + 3 * other / 4, atol=1e-6)
