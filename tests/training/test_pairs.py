"""Training from pairs: the harvest is what the base computes and resumes, the loss is PAD's, tastes are found."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_head_arrays import load_arrays
from padlite.bundle import find_bundle
from padlite.dimensions.fit import mean_shift
from padlite.errors import DecodingCancelled, PadliteError, UsageError
from padlite.opening import chat_template, require_same_base
from padlite.scoring import top_k
from padlite.seams import FloatArray, Message
from padlite_training.commands import base_of, train
from padlite_training.completions import Completions
from padlite_training.low_rank_head import LowRankHead
from padlite_training.pairs import harvest as harvesting
from padlite_training.pairs.calibration import calibrated, plain_states
from padlite_training.pairs.fit import FittedHead, PairBatches, fit_pairs, judge_pairs, one_hot, train_to_the_best
from padlite_training.pairs.harvest import Completion, Harvester, HarvestPlan, PairHarvest, plan_harvest
from padlite_training.pairs.loss import Batch, divergence, pair_loss, token_ratios
from padlite_training.pairs.reading import Pair, PairsError, read_pairs
from padlite_training.pairs.recipe import PairTraining
from padlite_training.pairs.split import recorded_share
from padlite_training.pairs.training import DimensionFigures
from padlite_training.precision import require_device

K = 6
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(random_base: Path) -> Iterator[LlamaModel]:
    with LlamaModel.open(random_base) as model:
        yield model


def records(count: int) -> list[dict[str, object]]:
    """Pairs in which answers with many a's (sunny) are preferred to ones with o's, or the other way round (gloomy)."""
    texts = ["a sad cat and a bad hat", "so good to go on too"]
    return [
        {"prompt": f"say {n}", "chosen": texts[way], "rejected": texts[1 - way], "dimension": ("sunny", "gloomy")[way],
         "group": f"g{n}"}
        for n in range(count) for way in (0, 1)
    ]  # fmt: skip


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    return write(tmp_path / "pairs.jsonl", records(8))


def planned(base: LlamaModel, path: Path) -> tuple[list[Pair], HarvestPlan]:
    pairs = read_pairs(path)
    texts = Completions(chat_template(base), base.tokenizer)
    return pairs, plan_harvest(path, pairs, texts, candidates=K, room=base.context_length)


def test_known_texts_give_the_states_of_single_steps(base: LlamaModel) -> None:
    tokens = base.tokenizer.encode("the quick brown fox jumps over the lazy dog " * 4, special=False)
    assert len(tokens) > 70  # more than one batch of outputs
    stepped = []
    state = base.prefill(tokens[:5], sequence=1)
    for token in [*tokens[5:], None]:
        stepped.append((state.logits.copy(), state.hidden.copy()))
        if token is not None:
            state = base.step(token, sequence=1)
    known = [(s.logits.copy(), s.hidden.copy()) for s in base.states(tokens, first=4)]
    assert len(known) == len(stepped)
    for (logits, hidden), (wanted_logits, wanted_hidden) in zip(known, stepped, strict=True):
        assert np.abs(logits - wanted_logits).max() < 0.3  # as between any two batch shapes (tests/parity)
        assert np.corrcoef(hidden, wanted_hidden)[0, 1] > 0.99


def test_an_answer_is_its_tokens_and_the_end_that_the_template_gives_it(base: LlamaModel) -> None:
    texts = Completions(chat_template(base), base.tokenizer)
    answer = texts.answer("Fine <|im_end|> thanks")
    assert [base.tokenizer.is_end(token) for token in answer].count(True) == 1
    assert base.tokenizer.is_end(answer[-1])
    assert b"".join(map(base.tokenizer.piece, answer)) == b"Fine <|im_end|> thanks"


def test_the_harvest_holds_the_token_itself_and_the_best_others(
    base: LlamaModel, pairs_file: Path, tmp_path: Path
) -> None:
    pairs, plan = planned(base, pairs_file)
    assert len(plan.completions) == len(pairs)  # each answer is once chosen and once rejected
    harvester = Harvester(tmp_path / "h", plan, hidden_size=base.hidden_size, base_sha256="x")
    harvest = harvester.run(base)
    assert sum(f.stat().st_size for f in (tmp_path / "h").glob("*.npy")) - 3 * 128 == plan.size_bytes(base.hidden_size)
    chosen = plan.completions[plan.sides[3, 0]]
    row = harvest.starts[plan.sides[3, 0]]
    state = base.prefill(chosen.prompt)
    scores = state.logits - np.logaddexp.reduce(state.logits)
    assert harvest.candidates[row, 0] == chosen.answer[0]
    assert len(set(harvest.candidates[row])) == K + 1
    assert set(top_k(state.logits, K)) <= set(harvest.candidates[row])
    assert np.abs(harvest.scores[row] - scores[harvest.candidates[row]]).max() < 0.3


def test_a_harvest_that_was_stopped_goes_on_and_ends_the_same(
    base: LlamaModel, pairs_file: Path, tmp_path: Path
) -> None:
    _, plan = planned(base, pairs_file)
    whole = Harvester(tmp_path / "whole", plan, hidden_size=base.hidden_size, base_sha256="x").run(base)
    done: list[int] = []
    with pytest.raises(DecodingCancelled):
        Harvester(tmp_path / "h", plan, hidden_size=base.hidden_size, base_sha256="x").run(
            base, progress=done.append, cancelled=lambda: len(done) >= 5
        )
    again = Harvester(tmp_path / "h", plan, hidden_size=base.hidden_size, base_sha256="x")
    assert again.done == 5
    before = base.evaluated_tokens
    harvest = again.run(base, progress=done.append)
    assert done == [*range(1, 6), *range(6, len(plan.completions) + 1)]
    assert np.array_equal(harvest.candidates, whole.candidates)
    assert np.abs(harvest.scores - whole.scores).max() < 1e-3
    assert base.evaluated_tokens > before
    other = Harvester(tmp_path / "h", plan, hidden_size=base.hidden_size, base_sha256="another base")
    assert other.done == 0


def test_a_harvest_too_large_for_the_disk_is_refused_before_it_starts(
    base: LlamaModel, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plan = planned(base, pairs_file)
    monkeypatch.setattr(harvesting, "MARGIN", shutil.disk_usage(tmp_path).total)
    harvester = Harvester(tmp_path / "h", plan, hidden_size=base.hidden_size, base_sha256="x")
    with pytest.raises(PadliteError, match="MB are free"):
        harvester.prepare()
    assert not list((tmp_path / "h").glob("*.npy"))


def test_pairs_longer_than_the_context_are_named_with_their_lines(base: LlamaModel, tmp_path: Path) -> None:
    rows = records(2)
    rows[2]["chosen"] = "word " * 2000
    with pytest.raises(PairsError, match=r"line 3: .* more than the context"):
        planned(base, write(tmp_path / "p.jsonl", rows))


def small_batch() -> tuple[LowRankHead, Batch, torch.Tensor]:
    torch.manual_seed(0)
    head = LowRankHead(width=4, rank=2, dimensions=2, clamp=100.0)
    rows = torch.randn(9, 4)
    scores = torch.log_softmax(torch.randn(5, 6), 1)[:, :4]  # two more tokens that nobody sees
    batch = Batch(
        hidden=torch.randn(5, 4), words=torch.randint(0, 9, (5, 4)), scores=scores,
        owner=torch.tensor([0, 0, 1, 1, 1]), weights=torch.tensor([[1.0, -0.5], [1.0, -0.5]]),
    )  # fmt: skip
    return head, batch, rows


def test_the_loss_is_the_formula_written_out() -> None:
    head, batch, rows = small_batch()
    plan = PairTraining(sharpness=0.7, kl=0.3, likelihood=0.2)
    sums, chosen, divergences = [0.0, 0.0], [], []
    for state in range(5):
        phi = np.zeros(4)
        for a in range(4):
            u = head.projection.detach().numpy().T @ rows[batch.words[state, a]].numpy()
            for i, w in enumerate((1.0, -0.5)):
                phi[a] += w * u @ head.maps[i].detach().numpy().T @ batch.hidden[state].numpy()
        p = batch.scores[state].exp().numpy().astype(np.float64)
        z = (p * np.exp(phi)).sum() + 1 - p.sum()
        ratio = phi[0] - math.log(z)
        sums[int(batch.owner[state])] += ratio
        chosen += [ratio] if batch.owner[state] == 0 else []
        pi = p * np.exp(phi) / z
        divergences.append((pi * (phi - math.log(z))).sum() + (1 - p.sum()) / z * -math.log(z))
    wanted = math.log1p(math.exp(-0.7 * (sums[0] - sums[1])))
    wanted += 0.3 * float(np.mean(divergences)) - 0.2 * float(np.mean(chosen))
    assert pair_loss(head, batch, rows, plan).item() == pytest.approx(wanted, rel=1e-5)


def test_no_reward_and_a_constant_reward_over_everything_known_move_nothing() -> None:
    _, batch, _ = small_batch()
    nothing = torch.zeros(5, 4)
    assert token_ratios(batch.scores, nothing).abs().max() < 1e-6
    assert divergence(batch.scores, nothing).abs().max() < 1e-6
    assert (divergence(batch.scores, nothing + 2.0) > 0).all()  # the rest of the vocabulary lost


def planted(seed: int = 0) -> tuple[PairHarvest, FloatArray, FloatArray]:
    """Pairs of one-token answers, preferred by a rule that a head of rank 2 can hold; two dimensions."""
    rng = np.random.default_rng(seed)
    count, width, words = 600, 8, 40
    table = rng.standard_normal((words, width)).astype(np.float32)
    maps = rng.standard_normal((2, width, 2)).astype(np.float32)
    project = rng.standard_normal((width, 2)).astype(np.float32)
    hidden = rng.standard_normal((2 * count, width)).astype(np.float32)
    hidden[1::2] = hidden[::2]  # both answers of a pair follow the same state
    weights = np.eye(2, dtype=np.float32)[rng.integers(2, size=count)]
    candidates = np.stack([rng.permutation(words)[:5] for _ in range(2 * count)]).astype(np.int32)
    phi = np.einsum("nd,mdr,vr->nvm", hidden, maps, table @ project)
    value = np.einsum("nvm,nm->nv", phi, np.repeat(weights, 2, axis=0))
    own = np.take_along_axis(value, candidates[:, :1].astype(np.int64), 1)[:, 0]
    sides = np.arange(2 * count).reshape(count, 2)
    swap = own[sides[:, 0]] < own[sides[:, 1]]
    sides[swap] = sides[swap][:, ::-1]
    harvest = PairHarvest(
        hidden=hidden.astype(np.float16), candidates=candidates,
        scores=np.full((2 * count, 5), -math.log(6), dtype=np.float32),
        starts=np.arange(2 * count + 1), sides=sides,
    )  # fmt: skip
    return harvest, table, weights


PLAN = PairTraining(rank=2, kl=0.02, likelihood=0.0, rate=0.03, weight_decay=0.0, epochs=12, patience=12)


def test_a_taste_that_is_there_is_found_and_the_same_seed_finds_the_same() -> None:
    harvest, table, weights = planted()
    batches = PairBatches(harvest, table, weights, device="cpu")
    training, held = np.arange(500), np.arange(500, 600)
    head = fit_pairs(batches, training, held, PLAN)
    judged = judge_pairs(head, batches, held, clamp=6.0)
    assert (judged.rewards > 0).mean() > 0.68  # chance is 0.5 ± 0.05
    again = fit_pairs(batches, training, held, PLAN)
    assert np.array_equal(head.maps, again.maps)
    folded = batches.fold(batches.unfold(head, clamp=6.0))
    assert np.allclose(folded[1], head.maps, rtol=1e-5)


def test_where_there_is_no_taste_nothing_is_learned_and_that_is_an_error() -> None:
    harvest, table, weights = planted()
    flipped = harvest.sides[:, ::-1].copy()
    keep = np.random.default_rng(1).random(len(flipped)) < 0.5
    flipped[keep] = harvest.sides[keep]
    noise = PairHarvest(
        hidden=harvest.hidden, candidates=harvest.candidates, scores=harvest.scores, starts=harvest.starts,
        sides=flipped,
    )  # fmt: skip
    batches = PairBatches(noise, table, weights, device="cpu")
    plan = PairTraining(rank=2, rate=0.03, epochs=12, patience=2, likelihood=0.0)
    with pytest.raises(PadliteError, match="taught nothing that holds for held-out groups") as caught:
        fit_pairs(batches, np.arange(500), np.arange(500, 600), plan)
    assert "--rate 0.01" in caught.value.remedy


@pytest.mark.parametrize(
    ("averaged_steps", "epochs", "kept"), [(1, 1, 4.0), (2, 1, 3.125), (100, 1, 2.5), (100, 2, 4.5)]
)
def test_what_is_kept_is_the_mean_over_the_last_steps(averaged_steps: int, epochs: int, kept: float) -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    judged = iter((2.0, 1.0))
    found, _ = train_to_the_best(
        module, torch.optim.SGD(module.parameters(), lr=1.0), np.arange(4),
        PairTraining(batch_pairs=1, epochs=epochs, averaged_steps=averaged_steps),
        loss=lambda part: -module.weight.sum(),  # every step adds 1
        judge=lambda: next(judged), beaten=3.0, lower="", progress=lambda epoch, loss: None, cancelled=lambda: False,
    )  # fmt: skip
    assert found == epochs
    assert module.weight.item() == pytest.approx(kept)


def test_numbers_that_are_none_stop_the_training_with_the_step_and_a_remedy() -> None:
    harvest, table, weights = planted()
    scores = harvest.scores.copy()
    scores[900:] = np.nan
    broken = PairHarvest(
        hidden=harvest.hidden, candidates=harvest.candidates, scores=scores, starts=harvest.starts, sides=harvest.sides
    )
    batches = PairBatches(broken, table, weights, device="cpu")
    with pytest.raises(PadliteError, match="at step 1 the loss is nan") as caught:
        fit_pairs(batches, np.arange(500), np.arange(500, 600), PLAN)
    assert caught.value.remedy.endswith("--rate 0.01")


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match="no GPU") as caught:
        require_device("cuda")
    assert "--device cpu" in caught.value.remedy
    assert require_device("auto") == "cpu"


def test_calibration_gives_every_dimension_the_same_mean_shift(base: LlamaModel) -> None:
    texts = Completions(chat_template(base), base.tokenizer)
    prompts = [texts.prompt([Message(role="user", content=text)]) for text in ("hello", "how are you")]
    states = plain_states(base, base.tokenizer, prompts)
    rng = np.random.default_rng(0)
    table = rng.standard_normal((base.vocabulary_size, base.hidden_size)).astype(np.float32)
    raw = FittedHead(
        projection=(rng.standard_normal((base.hidden_size, 2)) / 8).astype(np.float32),
        maps=(rng.standard_normal((3, base.hidden_size, 2)) / 8).astype(np.float32),
        scales=np.ones(3, dtype=np.float32),
    )
    head = calibrated(raw, states, table, names=["a", "b", "c"], shift=0.3)
    words = (table @ head.projection)[states.candidates]
    for each in head.maps:
        features = np.einsum("nkr,nr->nk", words, states.hidden @ each)
        assert mean_shift(states.scores, features) == pytest.approx(0.3, abs=1e-3)
    assert np.allclose(head.maps, raw.maps * head.scales[:, None, None])


def test_one_hot_weights() -> None:
    assert one_hot(["a", "b"], ["b", None, "a"], [0.5, 1.0, -1.0]).tolist() == [[0, 0.5], [0, 0], [-1, 0]]


def run(*arguments: object) -> tuple[int, str, BaseException | None]:
    outcome = CliRunner().invoke(train, ["head", *map(str, arguments)])
    return outcome.exit_code, outcome.output, outcome.exception


def test_the_command_writes_a_head_that_its_base_accepts(
    random_base: Path, base: LlamaModel, pairs_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = (
        "--model",
        random_base,
        "--pairs",
        pairs_file,
        "--out",
        out,
        "--rank",
        4,
        "--epochs",
        15,
        "--kl",
        0.1,
        "--threads",
        1,
    )
    code, output, error = run(*arguments)
    assert (code, error) == (0, None), output
    with OnnxHead.open(out / "reward.onnx") as head:
        require_same_base(head, base)
        assert [each.name for each in head.dimensions] == ["gloomy", "sunny"]
    assert recorded_share(load_arrays(out / "reward.onnx").provenance) == 0.15
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["dimensions"]["sunny"]["pair_accuracy"] == 1.0  # the same answers are preferred in every group
    assert {path.name for path in out.iterdir()} == {"harvest", "head.json", "head.npz", "report.json", "reward.onnx"}
    _, _, error = run(*arguments)
    assert isinstance(error, UsageError)
    assert "--force" in error.remedy
    assert run(*arguments, "--force")[0] == 0


def test_a_base_is_named_by_its_file_its_bundle_or_the_bundles_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    base = find_bundle("padlite-tiny").base
    monkeypatch.chdir(base.parent.parent)
    for named in ("padlite-tiny", "./padlite-tiny", str(base.parent), str(base), "./padlite-tiny/base.gguf"):
        assert base_of(named).samefile(base), named
    with pytest.raises(PadliteError, match="nowhere"):
        base_of("./nowhere")


def test_a_dimension_of_which_nothing_was_learned_is_named(random_base: Path, tmp_path: Path) -> None:
    rows = records(40)
    for number, row in enumerate(rows):
        if row["dimension"] == "gloomy" and (number // 2) % 2:  # every other group prefers the opposite
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    out = tmp_path / "out"
    pairs = write(tmp_path / "p.jsonl", rows)
    code, output, _ = run("--model", random_base, "--pairs", pairs, "--out", out, "--rank", 4, "--epochs", 8)
    assert code == 0, output
    assert "gloomy: its held-out pairs don't show that anything was learned" in output
    assert "sunny: its held-out" not in output
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["mean"]["pairs"] == report["held_out_pairs"]
    assert 0 < report["mean"]["pair_error"] < report["dimensions"]["gloomy"]["pair_error"]


@pytest.mark.parametrize(("error", "shown"), [(0.0, True), (0.24, True), (0.26, False), (None, False)])
def test_two_standard_errors_above_chance_show_that_something_was_learned(error: float | None, shown: bool) -> None:
    figures = DimensionFigures(
        pairs=9, pair_accuracy=1.0, pair_error=error, policy_accuracy=0.5, base_accuracy=0.5
    )  # fmt: skip
    assert figures.is_above_chance is shown


def test_pairs_without_dimensions_teach_nothing(random_base: Path, tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "dimension"} | {"preference": "Be sunny."} for row in records(3)]
    _, _, error = run("--model", random_base, "--pairs", write(tmp_path / "p.jsonl", rows), "--out", tmp_path / "out")
    assert isinstance(error, PairsError)
    assert "no pair names a dimension" in error.message


def test_a_base_without_a_template_is_refused(
    random_base_without_template: Path, pairs_file: Path, tmp_path: Path
) -> None:
    _, _, error = run("--model", random_base_without_template, "--pairs", pairs_file, "--out", tmp_path / "out")
    assert isinstance(error, PadliteError)
    assert "no chat template" in error.message


def test_completions_are_told_apart_by_their_conversation() -> None:
    assert Completion(prompt=(1,), answer=(2,)) != Completion(prompt=(1, 2), answer=())


def test_the_command_refuses_a_gpu_that_is_not_there_before_it_reads_anything(
    random_base: Path, pairs_file: Path, tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    arguments = ("--model", random_base, "--pairs", pairs_file, "--out", tmp_path / "out", "--device", "cuda")
    _, _, error = run(*arguments)
    assert isinstance(error, UsageError)
    assert "--device cpu" in error.remedy
    assert not (tmp_path / "out").exists()
