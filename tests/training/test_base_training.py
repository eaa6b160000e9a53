"""Training the base model: it learns, goes on from a checkpoint, and travels to another machine and back in parts."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from padlite.errors import BackendError, NotFoundError, UsageError
from padlite_training.base_training import BaseTrainer, held_out_loss, load_model, progress_of, train_phases
from padlite_training.corpus import Corpus, Dialogue, corpus_texts, load_corpus, read_small_talk, save_corpus
from padlite_training.llama_model import LlamaForTraining
from padlite_training.pack import pack
from padlite_training.parts import join_parts
from padlite_training.places import Places
from padlite_training.pretrain import pretrain
from padlite_training.recipe import RECIPES, BaseTraining, ModelShape, Recipe
from padlite_training.sampler import ChatWriter
from padlite_training.tokenizer import load_tokenizer, train_tokenizer

SHAPE = ModelShape(vocabulary=512, width=32, layers=2, heads=2, feed_forward=64, context_length=64)
PLAN = BaseTraining(budget_s=1.5, threads=1, compiled=False, batch_tokens=256, row_length=32)
RECIPE = Recipe(model=SHAPE, base=PLAN, focus=replace(PLAN, budget_s=0.3, small_talk=0.75))
CHAT = Dialogue(kind="self", turns=("Do you like films?", "I do, very much.", "Which one?", "The one with the boat."))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with a small corpus and its tokenizer."""
    folder = tmp_path_factory.mktemp("work")
    corpus = Corpus(small_talk=read_small_talk(None), dialogues=(CHAT,), held_out_dialogues=(CHAT,), texts=("A tale.",))
    save_corpus(corpus, folder / "corpus")
    train_tokenizer(corpus_texts(corpus), vocabulary=SHAPE.vocabulary).save(str(folder / "tokenizer.json"))
    return folder


def trainer(work: Path, plan: BaseTraining = PLAN, *, device: str = "cpu") -> BaseTrainer:
    writer = ChatWriter(load_tokenizer(work / "tokenizer.json"), user_weight=plan.user_weight)
    return BaseTrainer(load_corpus(work / "corpus"), writer, SHAPE, plan, device=device)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step take 10 ms by the trainer's own clock, however fast the machine is."""
    monkeypatch.setattr("padlite_training.base_training._Stopwatch.lap", lambda _watch: 0.01)


@pytest.mark.usefixtures("steady")
def test_training_lowers_the_loss_and_goes_on_from_its_checkpoint(work: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "base.pt"
    assert trainer(work, replace(PLAN, budget_s=0.2)).run(checkpoint)
    assert progress_of(checkpoint).steps == pytest.approx(20, abs=1)
    assert trainer(work).run(checkpoint)
    ended = progress_of(checkpoint)
    assert ended.steps == pytest.approx(150, abs=1)
    assert ended.elapsed_s >= PLAN.budget_s
    assert ended.tokens == pytest.approx(ended.steps * PLAN.batch_tokens, rel=0.01)
    fresh = trainer(work).model
    assert chat_loss(load_model(checkpoint, SHAPE), work) < chat_loss(fresh, work) - 0.2


def chat_loss(model: LlamaForTraining, work: Path) -> float:
    """Return the mean loss of the model on a dialogue that it may have seen, in nats per token."""
    writer = ChatWriter(load_tokenizer(work / "tokenizer.json"), user_weight=1.0)
    return held_out_loss(model, load_corpus(work / "corpus"), writer)


def test_the_rate_rises_stays_and_falls_to_zero(work: Path) -> None:
    shown = trainer(work)
    rates = []
    for share in (0.0, 0.01, 0.3, 0.75, 1.0, 1.5):
        shown.progress.elapsed_s = share * PLAN.budget_s
        rates.append(shown.rate())
    assert rates == pytest.approx([0.05, 0.55, 1.0, 0.5, 0.0, 0.0])


def test_a_loss_that_is_no_number_stops_the_training_with_the_step(work: Path, tmp_path: Path) -> None:
    broken = trainer(work)
    with torch.no_grad():
        broken.model.norm.weight.fill_(math.nan)
    with pytest.raises(BackendError, match="loss of step 1 is not a finite number") as caught:
        broken.run(tmp_path / "base.pt")
    assert "rate" in caught.value.remedy


@pytest.mark.parametrize("plan", [replace(PLAN, checkpoint_every_s=0.0), replace(PLAN, budget_s=1e-6)])
def test_weights_that_are_no_numbers_are_never_kept(work: Path, tmp_path: Path, plan: BaseTraining) -> None:
    """The loss of a step is asked for one step later, but before a checkpoint is written."""
    broken, checkpoint = trainer(work, plan), tmp_path / "base.pt"
    with torch.no_grad():
        broken.model.norm.weight.fill_(math.nan)
    with pytest.raises(BackendError, match="loss of step 1 is not a finite number"):
        broken.run(checkpoint)
    assert not checkpoint.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_clear_error(work: Path) -> None:
    assert trainer(work, device="auto").device.type == "cpu"
    with pytest.raises(UsageError, match="no GPU was found"):
        trainer(work, device="cuda")


def test_the_base_is_trained_elsewhere_and_comes_back_in_parts(work: Path, tmp_path: Path) -> None:
    packed, back = tmp_path / "data.tar.xz", tmp_path / "back"
    pack(Places(data=tmp_path, out=tmp_path, work=work), RECIPE, packed)
    there = Places(data=packed, out=tmp_path / "out", work=tmp_path / "there")
    assert pretrain(packed, there, RECIPE, device="cpu", stop_after=0.1) == []
    parts = pretrain(packed, there, RECIPE, device="cpu", part_bytes=20_000)
    assert len(parts) > 1
    assert max(part.stat().st_size for part in parts) <= 20_000
    join_parts(there.out, back)
    here = Places(data=tmp_path, out=tmp_path, work=back)
    assert progress_of(here.checkpoint("base")) == progress_of(there.checkpoint("base"))
    assert train_phases(here, RECIPE, device="cpu")  # nothing is left to do
    longer = replace(RECIPE, focus=replace(RECIPE.focus, budget_s=10 * RECIPE.focus.budget_s))
    with pytest.raises(BackendError, match="holds the weights of a training that was finished"):
        train_phases(here, longer, device="cpu")
    sent, kept = load_model(here.checkpoint("focus"), SHAPE), load_model(there.checkpoint("focus"), SHAPE)
    for got, wanted in zip(sent.parameters(), kept.parameters(), strict=True):
        assert torch.equal(got, wanted.to(torch.bfloat16).float())


def test_a_missing_or_damaged_part_is_noticed(work: Path, tmp_path: Path) -> None:
    archive = tmp_path / "data.tar.xz"
    pack(Places(data=tmp_path, out=tmp_path, work=work), RECIPE, archive)
    size = archive.stat().st_size // 3 + 1
    for number in range(3):
        block = archive.read_bytes()[number * size : (number + 1) * size]
        (tmp_path / f"parts.tar.xz.{number:03d}").write_bytes(block)
    join_parts(tmp_path, tmp_path / "whole")
    assert (tmp_path / "whole" / "tokenizer.json").read_bytes() == (work / "tokenizer.json").read_bytes()
    last = tmp_path / "parts.tar.xz.002"
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(BackendError, match="damaged or incomplete"):
        join_parts(tmp_path, tmp_path / "cut")
    (tmp_path / "parts.tar.xz.001").unlink()
    with pytest.raises(NotFoundError, match=r"has no parts\.tar\.xz\.001"):
        join_parts(tmp_path, tmp_path / "gone")


def test_packed_data_over_the_limit_is_refused(work: Path, tmp_path: Path) -> None:
    places = Places(data=tmp_path, out=tmp_path, work=work)
    with pytest.raises(UsageError, match=r"the limit is 0\.001"):
        pack(places, RECIPE, tmp_path / "data.tar.xz", limit_mb=0.001)
    assert not list(tmp_path.iterdir())


def test_the_configurations_have_the_sizes_they_are_named_for() -> None:
    def weights(shape: ModelShape) -> int:
        layer = 4 * shape.width**2 + 3 * shape.width * shape.feed_forward
        return shape.layers * layer + shape.vocabulary * shape.width

    assert 8e6 < weights(RECIPES["tiny"].model) < 10e6
    assert 50e6 < weights(RECIPES["small"].model) < 120e6
