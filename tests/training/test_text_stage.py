"""Stage 2 of the training from pairs: texts become weights, also those that nobody trained on."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx_head_arrays import load_arrays
from padlite.errors import NotFoundError, PadliteError, RewardMismatchError, UsageError
from padlite.opening import open_chat
from padlite.options import EngineOptions
from padlite.profile import Profile
from padlite.text_map import Reaction
from padlite_training.commands import train
from padlite_training.pairs.fit import FittedHead, PairBatches
from padlite_training.pairs.leave_out import folds_of
from padlite_training.pairs.leave_out import main as leave_out
from padlite_training.pairs.reading import PairsError
from padlite_training.pairs.recipe import PairTraining
from padlite_training.pairs.text_stage import (
    ToldPairs,
    divide_texts,
    fit_texts,
    head_features,
    judge_texts,
    judged_by,
)
from padlite_training.pairs.text_training import TextStage, weights_of
from padlite_training.preference_texts import EVERYDAY, instructions, merged, read_texts, write_texts
from padlite_training.random_llama import TINY, write_random_llama
from padlite_training.styles import STYLES
from tests.training.test_pairs import planted, write

PLAN = PairTraining(rank=2, kl=0.02, likelihood=0.0, text_rate=0.03, text_decay=0.0, epochs=6, patience=6)
SUNNY = ("I like the sun.", "Be bright.", "Summer is mine.", "Warm days, please.", "Let it shine.", "No clouds.")
GLOOMY = ("I like the rain.", "Be dark.", "Winter is mine.", "Cold days, please.", "Let it pour.", "No sun.")


def told(seed: int = 0) -> tuple[PairBatches, FittedHead, list[Reaction], ToldPairs]:
    """The planted pairs with the head that they follow, each told by one of 12 texts instead of its dimension.

    What a text asks for shows in one place of the hidden state, among noise; the signature says nothing.
    """
    harvest, table, weights = planted(seed)
    rng = np.random.default_rng(seed)
    rng.standard_normal((40, 8))  # as `planted` draws: the table, then the maps and the projection
    maps = rng.standard_normal((2, 8, 2)).astype(np.float32)
    project = rng.standard_normal((8, 2)).astype(np.float32)
    head = FittedHead(projection=project, maps=0.3 * maps, scales=np.ones(2, dtype=np.float32))
    draw = np.random.default_rng(1)
    reactions = []
    for number in range(12):
        hidden = 0.1 * draw.standard_normal(8)
        hidden[3] = 2.0 if number % 2 else -2.0
        reactions.append(Reaction(signature=np.zeros(2, dtype=np.float32), hidden=hidden.astype(np.float32)))
    texts = 2 * draw.integers(6, size=len(weights)) + weights[:, 1].astype(np.int64)
    batches = PairBatches(harvest, table, np.zeros_like(weights), device="cpu")
    pairs = ToldPairs(pairs=np.arange(len(weights)), texts=texts, weights=np.ones(len(weights), dtype=np.float32))
    return batches, head, reactions, pairs


def test_texts_that_nobody_trained_on_get_the_weights_of_those_that_are_like_them() -> None:
    batches, head, reactions, pairs = told()
    new = pairs.texts >= 8
    old_groups = pairs.pairs < 500
    into, by = pairs.where(~new & old_groups), pairs.where(new & ~old_groups)
    fitted = fit_texts(batches, head, ["a", "b"], reactions, into, by, PLAN)
    weights = weights_of(fitted.text_map, reactions)
    for number in range(8, 12):
        assert weights[number, number % 2] > weights[number, 1 - number % 2] + 0.2
    found = judge_texts(head, batches, weights, by, clamp=np.inf)
    silent = judge_texts(head, batches, np.zeros_like(weights), by, clamp=np.inf)
    assert (found.likelihoods > 0).mean() > 0.85
    assert (silent.likelihoods > 0).mean() == 0  # the base finds both answers equally likely
    again = fit_texts(batches, head, ["a", "b"], reactions, into, by, PLAN)
    assert np.array_equal(again.text_map.matrix, fitted.text_map.matrix)


def test_a_pair_of_negative_weight_teaches_the_opposite() -> None:
    batches, head, reactions, pairs = told()
    less = dataclasses.replace(pairs, weights=-pairs.weights)
    fitted = fit_texts(batches, head, ["a", "b"], reactions, less, less, PLAN)
    weights = weights_of(fitted.text_map, reactions)
    assert all(weights[number, number % 2] < -0.1 for number in range(12))


def test_numbers_that_are_none_stop_the_second_stage_with_its_own_remedy() -> None:
    batches, head, reactions, pairs = told()
    broken = dataclasses.replace(head, maps=np.full_like(head.maps, np.nan))
    with pytest.raises(PadliteError, match="the loss is nan") as caught:
        fit_texts(batches, broken, ["a", "b"], reactions, pairs, pairs, PLAN)
    assert "--text-rate 0.01" in caught.value.remedy


def test_what_judges_shares_neither_texts_nor_groups_with_what_is_trained_on() -> None:
    rng = np.random.default_rng(0)
    pairs = ToldPairs(pairs=np.arange(600), texts=rng.integers(10, size=600), weights=np.ones(600, dtype=np.float32))
    held_texts = divide_texts([f"text {n}" for n in range(10)], seed=1)
    assert held_texts.sum() == 2
    training, judging = judged_by(pairs, np.arange(400, 600), held_texts)
    assert not set(training.texts) & set(judging.texts)
    assert training.pairs.max() < 400 <= judging.pairs.min()
    few, all_texts = judged_by(pairs, np.arange(590, 600), held_texts)
    assert len(all_texts.pairs) == 10  # too few with new texts: all of the held-out groups judge
    assert few.pairs.max() < 590
    assert not divide_texts(["a", "b", "c"], seed=1).any()


class Silent:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    @contextlib.contextmanager
    def counting(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Do nothing."""
        yield lambda done: None


def test_texts_have_the_context_to_themselves_however_long_the_last_answer_was(random_base: Path) -> None:
    batches, head, _, _ = told()
    with LlamaModel.open(random_base, EngineOptions(threads=1, sequences=2, hidden_states=True)) as base:
        features = head_features(
            np.zeros((base.vocabulary_size, 2), dtype=np.float16), np.zeros((2, base.hidden_size, 2), dtype=np.float32)
        )
        stage = TextStage(base=base, batches=batches, head=head, features=features, names=["a", "b"])
        base.prefill((base.tokenizer.encode("on and on ", special=False) * 512)[: base.context_length])
        assert len(stage.read(["I like the sun."], Silent(), cancelled=lambda: False)) == 1


def said(count: int, *, texts: bool = True, dimensions: bool = True) -> list[dict[str, object]]:
    """As in test_pairs: answers with many a's or many o's; every second pair says in words which are wanted."""
    answers = ["a sad cat and a bad hat", "so good to go on too"]
    rows: list[dict[str, object]] = []
    for n in range(count):
        for way, (name, words) in enumerate((("sunny", SUNNY), ("gloomy", GLOOMY))):
            row: dict[str, object] = {
                "prompt": f"say {n}", "chosen": answers[way], "rejected": answers[1 - way], "group": f"g{n}",
            }  # fmt: skip
            rows += [row | {"dimension": name}] * dimensions + [row | {"preference": words[n % 6]}] * texts
    return rows


def run(base: Path, pairs: Path, out: Path, *more: object) -> tuple[str, BaseException | None]:
    arguments = ("head", "--model", base, "--pairs", pairs, "--out", out, "--rank", 4, "--threads", 1, *more)
    outcome = CliRunner().invoke(train, list(map(str, arguments)))
    return outcome.output, outcome.exception


@pytest.fixture(scope="module")
def trained(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    pairs = write(folder / "pairs.jsonl", said(60))
    output, error = run(random_base, pairs, folder / "out", "--epochs", 12, "--kl", 0.1, "--held-out", 0.3)
    assert error is None, output
    assert "in words: 12 texts, 2 of them held out" in output
    return folder / "out"


def test_pairs_in_words_give_the_head_a_map_that_a_profile_uses(trained: Path, random_base: Path) -> None:
    report = json.loads((trained / "report.json").read_text(encoding="utf-8"))["text"]
    assert report["texts"] == 12
    assert report["pairs"] >= 20
    assert report["base_accuracy"] == 0.5  # each answer is once preferred and once turned down in every group
    assert 0 < report["policy_error"] < 0.2  # over 18 groups; a random model says little about texts
    head = load_arrays(trained / "reward.onnx")
    assert head.text_map is not None
    assert head.text_map.names == ("gloomy", "sunny")
    profile = Profile(base=random_base, reward=trained / "reward.onnx", preference_text=SUNNY[0], threads=1)
    with open_chat(profile) as chat:
        assert chat.session.weights == pytest.approx(dict(chat.profile.text_weights))
        assert any(chat.session.weights.values())


def test_onto_a_head_only_the_map_is_trained(trained: Path, random_base: Path, tmp_path: Path) -> None:
    without_map = tmp_path / "old.onnx"
    old = dataclasses.replace(load_arrays(trained / "reward.onnx"), text_map=None)
    old.save(without_map)
    pairs = write(tmp_path / "pairs.jsonl", said(60, dimensions=False))
    (tmp_path / "out").mkdir()
    for name in ("head.json", "head.npz"):  # of an earlier head
        (tmp_path / "out" / name).touch()
    output, error = run(random_base, pairs, tmp_path / "out", "--onto", without_map, "--held-out", 0.3, "--epochs", 3)
    assert error is None, output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"harvest", "report.json", "reward.onnx"}
    new = load_arrays(tmp_path / "out" / "reward.onnx")
    assert np.array_equal(new.table, old.table)
    assert np.array_equal(new.maps, old.maps)
    assert new.dimensions == old.dimensions
    assert new.text_map is not None
    assert "12 texts" in new.provenance["text_map"]


def test_onto_refuses_pairs_and_heads_that_do_not_belong(trained: Path, random_base: Path, tmp_path: Path) -> None:
    head = trained / "reward.onnx"
    rows = [*said(4), said(1, texts=False)[0] | {"dimension": "suny"}]
    _, error = run(random_base, write(tmp_path / "a.jsonl", rows), tmp_path / "a", "--onto", head)
    assert isinstance(error, PairsError)
    assert "line 17: the reward model has no dimension 'suny' — did you mean 'sunny'" in error.message
    _, error = run(random_base, write(tmp_path / "b.jsonl", said(4, texts=False)), tmp_path / "b", "--onto", head)
    assert isinstance(error, PairsError)
    assert "no pair says in words" in error.message
    other = tmp_path / "other.gguf"
    write_random_llama(other, TINY, seed=2)
    _, error = run(other, write(tmp_path / "c.jsonl", said(4)), tmp_path / "c", "--onto", head)
    assert isinstance(error, RewardMismatchError)
    _, error = run(random_base, write(tmp_path / "d.jsonl", said(4)), tmp_path / "d", "--onto", tmp_path / "none.onnx")
    assert isinstance(error, NotFoundError)
    few = [*said(12, texts=False), *said(1, dimensions=False)]
    _, error = run(random_base, write(tmp_path / "e.jsonl", few), tmp_path / "e", "--onto", head)
    assert isinstance(error, PairsError)
    assert "too few pairs say in words" in error.message
    long = [row | {"preference": "sunny " * 300} if "preference" in row else row for row in said(4)]
    _, error = run(random_base, write(tmp_path / "f.jsonl", long), tmp_path / "f")
    assert isinstance(error, PairsError)
    assert "line 2:" in error.message
    assert "tokens, more than the context of 512" in error.message
    assert not any((tmp_path / name / "harvest").exists() for name in "abcdef")


def test_files_of_texts_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"dimension": "a", "text": "x"}\n{"text": "y"}\n[]\n{"dimension": 3, "text": " "}\n', "utf-8")
    with pytest.raises(PairsError) as caught:
        read_texts(path)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["line 2", "line 3", "line 4", "line 4"]
    with pytest.raises(NotFoundError, match="none"):
        read_texts(tmp_path / "none.jsonl")
    texts = {"a": ("x", "y"), None: ("z",)}
    write_texts(path, texts)
    assert read_texts(path) == texts


def test_there_are_different_texts_for_every_style_and_some_that_ask_for_nothing() -> None:
    everyday = read_texts(EVERYDAY)
    assert set(everyday) == {*STYLES, None}
    every = [text for texts in merged([everyday, instructions()]).values() for text in texts]
    assert len(set(every)) == len(every) == sum(map(len, everyday.values())) + sum(map(len, instructions().values()))
    assert all(len(everyday[style]) >= 16 for style in STYLES)


def test_every_dimension_is_left_out_before_any_is_for_the_second_time() -> None:
    folds = folds_of(list("abcdefgh"), 6, seed=1)
    assert len({frozenset(each) for each in folds}) == 6
    assert {name for each in folds[:4] for name in each} == set("abcdefgh")


def four_ways(count: int) -> Sequence[dict[str, object]]:
    answers = {"ash": "a sad cat and a bad hat", "oak": "so good to go on too", "elm": "we see the sea here",
               "fir": "it is his list in it"}  # fmt: skip
    names = list(answers)
    return [
        {"prompt": f"say {n}", "chosen": answers[name], "rejected": answers[names[(at + 1 + n % 3) % 4]],
         "dimension": name, "group": f"g{n}"}
        for n in range(count) for at, name in enumerate(names)
    ]  # fmt: skip


def test_leaving_dimensions_out_is_one_command(
    random_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = write(tmp_path / "pairs.jsonl", four_ways(40))
    texts = tmp_path / "texts.jsonl"
    names = ["ash", "oak", "elm", "fir"]
    write_texts(texts, {name: (f"Be {name}.", f"I like {name}.", f"An {name}, please.") for name in names})
    arguments = [
        "--model", str(random_base), "--pairs", str(pairs), "--texts", str(texts), "--work", str(tmp_path / "harvest"),
        "--folds", "2", "--threads", "1", "--out", str(tmp_path / "out.json"),
    ]  # fmt: skip
    leave_out(arguments)
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [row["left_out"] for row in rows][-1] == "all"
    assert len(rows) == 3
    assert all(row["groups"] == 6 and 0 < row["policy_accuracy"] < 1 for row in rows)
    assert "standard errors" in capsys.readouterr().out
    write_texts(texts, {"ash": ("Be ash",)})
    with pytest.raises(SystemExit, match="no text for 'elm'"):
        leave_out(arguments)


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="text_rate"):
        PairTraining(text_rate=0)
