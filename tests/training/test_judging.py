"""`padlite eval`: figures are what their names say, nothing is judged on what was learned, all rivals are compared."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from padlite.backends.onnx_head_arrays import load_arrays
from padlite.errors import DecodingCancelled, PadliteError, UsageError
from padlite.seams import Message
from padlite_training.commands import counts_in, numbers_in, stoppable
from padlite_training.commands import evaluate as command
from padlite_training.judging.classifier import AnswerClassifier
from padlite_training.judging.evaluation import (
    Evaluation,
    Row,
    distinct,
    evaluate,
    questions_of,
)
from padlite_training.judging.order import reference_answers, require_held_out
from padlite_training.judging.speaker import KnownAnswer, Reply
from padlite_training.judging.tables import print_evaluation
from padlite_training.means import Values, mean_and_error
from padlite_training.pairs.reading import Pair, PairsError
from padlite_training.pairs.split import provenance_of
from padlite_training.random_head import write_random_head

SUNNY, GLOOMY = "a warm bright sunny day with light", "cold rain and fog and dark clouds"


def pair(number: int, dimension: str, *, weight: float = 1.0) -> Pair:
    chosen, rejected = (SUNNY, GLOOMY) if dimension == "sunny" else (GLOOMY, SUNNY)
    return Pair(
        messages=(Message(role="user", content=f"say {number}"),), chosen=f"{chosen} {number}",
        rejected=f"{rejected} {number}", dimension=dimension, preference=None, weight=weight, group=f"g{number}",
        line=number + 1,
    )  # fmt: skip


PAIRS = [pair(number, dimension) for number in range(12) for dimension in ("sunny", "gloomy")]


class Speaker:
    """Finds every token one nat unlikely."""

    def log_likelihood(self, messages: Sequence[Message], answer: Sequence[int]) -> float:
        return -float(len(answer))


class Follower:
    """Says what is wanted at strength 2 and the same thing always at 1; ranks right in the same way."""

    name = "follower"
    strengths: tuple[float, ...] = (1.0, 2.0)

    def reply(self, messages: Sequence[Message], dimension: str, strength: float) -> Reply:
        text = SUNNY if strength == 1.0 or dimension == "sunny" else GLOOMY
        return Reply(text=text, tokens=(1, 2, 3, 4), changed=1, seconds=0.5, drawn=4)

    def likelihoods(self, messages: Sequence[Message], answers: Sequence[str], dimension: str) -> list[list[float]]:
        wanted = [float(text.startswith(SUNNY if dimension == "sunny" else GLOOMY)) for text in answers]
        return [[0.0, 0.0], wanted]


def evaluated(pairs: Sequence[Pair]) -> Evaluation:
    classifier = AnswerClassifier(
        [p.chosen for p in PAIRS], [str(p.dimension) for p in PAIRS], [p.group for p in PAIRS]
    )
    questions = questions_of(pairs, prompts=6, pairs_each=10)
    return evaluate(Speaker(), [Follower()], questions, classifier)  # type: ignore[arg-type]


def judged() -> dict[tuple[float, str], Row]:
    evaluation = evaluated(PAIRS)
    assert evaluation.classifier_accuracy == 1.0
    assert evaluation.chance == 0.5
    return {(row.strength, row.dimension): row for row in evaluation.rows}


@pytest.mark.parametrize(("weight", "seen"), [(1.0, 0.5), (-1.0, 1.0)])
def test_the_preferred_answers_tell_how_much_the_classifier_could_see(weight: float, seen: float) -> None:
    turned = [
        dataclasses.replace(p, chosen=p.rejected, rejected=p.chosen, weight=weight) if p.dimension == "gloomy" else p
        for p in PAIRS
    ]
    assert evaluated(turned).preferred_steering == seen


def test_every_figure_is_what_its_name_says() -> None:
    rows = judged()
    always, follows, mean = rows[1.0, "gloomy"], rows[2.0, "gloomy"], rows[1.0, "mean"]
    assert (always.steering, follows.steering, mean.steering) == (0.0, 1.0, 0.5)
    assert follows.nats == 1.0
    assert follows.perplexity == pytest.approx(math.e)
    assert follows.flip_rate == 0.25
    assert follows.tokens_per_s == 8.0
    assert (always.policy_accuracy, follows.policy_accuracy) == (0.0, 1.0)
    assert (follows.answers, follows.pairs, mean.pairs) == (6, 10, 20)


def values(*figures: float, groups: str) -> Values:
    return Values(values=figures, groups=tuple(groups))


def test_a_mean_comes_with_the_standard_error_over_groups() -> None:
    mean, error = mean_and_error([values(0, 1, 1, 0, groups="abcd")])
    assert mean == 0.5
    assert error == pytest.approx(np.std([0, 1, 1, 0], ddof=1) / 2)
    twice = mean_and_error([values(0, 0, 1, 1, 1, 1, 0, 0, groups="aabbccdd")])
    assert twice == pytest.approx((mean, error))  # what is said twice tells nothing new
    assert mean_and_error([Values.of_shares([True] * 50 + [False] * 50, "a" * 50 + "b" * 50)]) == pytest.approx(
        (0.5, 0.5)
    )
    assert mean_and_error([values(3, 4, groups="aa")]) == (3.5, None)
    assert mean_and_error([values(groups="")]) == (None, None)


def test_the_error_of_a_mean_over_dimensions_takes_each_group_as_a_whole() -> None:
    one, opposite = values(0, 1, 1, 0, groups="abcd"), values(1, 0, 0, 1, groups="abcd")
    assert mean_and_error([one, opposite]) == (0.5, 0.0)  # each group shows one of the two, by construction
    assert mean_and_error([one, one]) == pytest.approx(mean_and_error([one]))
    elsewhere = values(0, 1, 1, 0, groups="efgh")
    assert mean_and_error([one, elsewhere])[1] == pytest.approx(np.std([0, 1, 1, 0] * 2, ddof=1) / 8**0.5)
    assert mean_and_error([one, values(groups="")]) == mean_and_error([one])


def test_an_answer_of_always_the_same_dimension_steers_by_chance_without_an_error() -> None:
    always = judged()[1.0, "mean"]
    assert (always.steering, always.steering_error) == (0.5, 0.0)
    assert always.policy_error == 0.0


def test_where_there_is_one_group_the_errors_are_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = evaluated([dataclasses.replace(p, group="the same") for p in PAIRS])
    assert all(row.steering_error is row.policy_error is row.nats_error is None for row in evaluation.rows)
    print_evaluation(evaluation)
    assert "1.00 ±–" in capsys.readouterr().out


def test_distinct_counts_different_words_and_word_pairs() -> None:
    assert distinct(["a b a b", "A c"], 1) == pytest.approx(3 / 6)
    assert distinct(["a b a b"], 2) == pytest.approx(2 / 3)
    assert distinct([""], 1) == 0.0


def test_a_known_answer_is_as_likely_as_the_guided_distribution_says() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 7))
    scores = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)
    features = rng.standard_normal((3, 7, 2)).astype(np.float32)
    push = np.array([0.5, -2.0], dtype=np.float32)
    whole = KnownAnswer(scores=scores, features=features)
    guided = scores + features @ push
    wanted = (guided[:, 0] - np.logaddexp.reduce(guided, axis=1)).sum()
    assert whole.log_likelihood(push) == pytest.approx(float(wanted), abs=1e-4)
    assert whole.log_ratio(push * 0) == pytest.approx(0.0, abs=1e-5)
    known = KnownAnswer(scores=scores[:, :4], features=features[:, :4])  # the rest keeps its probability
    rest = np.log(1 - np.exp(scores[:, :4]).sum(1))
    total = np.logaddexp(np.logaddexp.reduce(guided[:, :4], axis=1), rest)
    assert known.log_likelihood(push) == pytest.approx(float((guided[:, 0] - total).sum()), abs=1e-3)


def test_a_classifier_needs_two_labels() -> None:
    with pytest.raises(UsageError, match="two dimensions"):
        AnswerClassifier(["a", "b"], ["x", "x"], ["1", "2"])


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_the_classifier_learns_what_has_more_and_nothing_that_is_preferred_in_what_is_judged(weight: float) -> None:
    turned = [
        dataclasses.replace(p, chosen=p.rejected, rejected=p.chosen, weight=weight) if weight < 0 else p for p in PAIRS
    ]
    found = reference_answers(Path("pairs"), turned, [pair for pair in turned if pair.group != "g7"])
    assert [(each.text, each.dimension) for each in found] == [(f"{SUNNY} 7", "sunny"), (f"{GLOOMY} 7", "gloomy")]


def test_a_judged_dimension_of_which_nothing_can_be_learned_is_named() -> None:
    other = [pair(number, "sunny") for number in range(20, 24)]
    with pytest.raises(PairsError, match="1 problem: 'gloomy' has no answer left") as caught:
        reference_answers(Path("pairs"), [*other, *PAIRS], PAIRS)
    assert "--reference" in caught.value.remedy


@pytest.fixture(scope="module")
def head(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("eval") / "reward.onnx"
    write_random_head(path, random_base, dimensions=["sunny", "gloomy"], seed=1)
    return path


def write(path: Path, pairs: Sequence[Pair]) -> Path:
    rows = [
        {"prompt": each.messages[0].content, "chosen": each.chosen, "rejected": each.rejected,
         "dimension": each.dimension, "group": each.group}
        for each in pairs
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def run(*arguments: object) -> tuple[str, BaseException | None]:
    outcome = CliRunner().invoke(command, [*map(str, arguments), "--threads", "1"])
    return outcome.stdout, outcome.exception


def test_all_rivals_are_judged_on_what_the_classifier_has_not_seen(
    random_base: Path, head: Path, tmp_path: Path
) -> None:
    pairs, plot = write(tmp_path / "p.jsonl", PAIRS), tmp_path / "plot.png"
    output, error = run(
        "--model", random_base, "--reward", head, "--pairs", pairs, "--strengths", "1", "--best-of", "2",
        "--max-tokens", 6, "--json", "--plot", plot,
    )  # fmt: skip
    assert error is None, error
    rows = json.loads(output)["rows"]
    assert list(dict.fromkeys(row["rival"] for row in rows)) == ["plain", "prompt", "head", "contrast", "best of n"]
    assert {row["dimension"] for row in rows} == {"sunny", "gloomy", "mean"}
    for row in rows:
        assert row["perplexity"] > 1
        assert (row["policy_accuracy"] is None) == (row["rival"] == "best of n")
        assert (row["flip_rate"] > 0) == (row["rival"] in {"head", "contrast"})
    plain = next(row for row in rows if row["rival"] == "plain" and row["dimension"] == "mean")
    assert plain["policy_accuracy"] == 0.5  # each answer is once chosen and once rejected
    assert (plain["steering"], plain["steering_error"]) == (0.5, 0.0)  # each answer shows one of the two dimensions
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_more_than_a_head_was_trained_without_is_not_judged(random_base: Path, head: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained.onnx"
    arrays = load_arrays(head)
    dataclasses.replace(arrays, provenance=provenance_of(share=0.1, seed=2410)).save(trained)
    arguments = ("--model", random_base, "--reward", trained, "--pairs", write(tmp_path / "p.jsonl", PAIRS))
    _, error = run(*arguments)
    assert isinstance(error, UsageError)
    assert error.message.startswith("0.1 of the groups were held out")
    assert error.remedy.endswith("--held-out 0.1")
    _, error = run(*arguments, "--held-out", 0.1, "--rival", "head", "--strengths", 1, "--max-tokens", 2)
    assert error is None
    for unknown in ({}, {"held_out": "0.05 of the groups, seed 2410"}, {"held_out_share": "few"}):
        require_held_out(unknown, 0.15)


def test_a_model_without_a_head_has_the_other_rivals_or_none(random_base: Path, tmp_path: Path) -> None:
    pairs = write(tmp_path / "p.jsonl", PAIRS)
    _, error = run("--model", random_base, "--pairs", pairs, "--rival", "best-of-n", "--rival", "head")
    assert isinstance(error, UsageError)
    assert "the model has no reward head" in error.message
    output, error = run("--model", random_base, "--pairs", pairs, "--rival", "plain", "--max-tokens", 2, "--json")
    assert error is None
    assert {row["rival"] for row in json.loads(output)["rows"]} == {"plain"}


def test_each_value_of_a_dial_counts_once() -> None:
    assert numbers_in("1,0.5,1.0", "--strengths") == (1.0, 0.5)
    assert counts_in("4,2,4", "--best-of") == (4, 2)


def test_figures_are_printed_even_if_the_plot_can_not_be_written(
    random_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("padlite_training.judging.picture.draw", refuse)
    pairs = write(tmp_path / "p.jsonl", PAIRS)
    output, error = run(
        "--model", random_base, "--pairs", pairs, "--rival", "plain", "--max-tokens", 2, "--plot", tmp_path / "x.png"
    )
    assert isinstance(error, UsageError)
    assert "No space left" in error.message
    assert "Mean over dimensions" in output


def test_who_is_stopped_says_what_becomes_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DecodingCancelled), stoppable("nothing is kept"):
        raise DecodingCancelled("stopped", remedy="")
    assert capsys.readouterr().err.strip() == "nothing is kept"


def test_what_can_not_be_judged_is_an_error(random_base: Path, head: Path, tmp_path: Path) -> None:
    other = [pair(number, "sunny") for number in range(4)] + [pair(number, "glomy") for number in range(4)]
    long = [dataclasses.replace(each, rejected="cold " * 520) for each in PAIRS]
    cases = [
        (PAIRS[:2], (), PairsError, "one group"),
        (other, (), PairsError, "no dimension 'glomy' — did you mean 'gloomy'"),
        (PAIRS, ("--strengths", "0,1"), UsageError, "--strengths"),
        (PAIRS, ("--sentence", "suny=Be sunny."), UsageError, "did you mean 'sunny'"),
        (PAIRS, ("--plot", tmp_path / "none" / "x.png"), UsageError, "no folder"),
        (PAIRS, ("--plot", tmp_path), UsageError, "is a folder"),
        (PAIRS, ("--best-of", "0.5"), UsageError, "--best-of takes whole numbers"),
        (PAIRS, ("--best-of", "2.7"), UsageError, "--best-of takes whole numbers"),
        (PAIRS, ("--max-tokens", 520), PairsError, "tokens, more than the context of 512"),  # what it is trained for
        (long, ("--prompts", 1), PairsError, "tokens, more than the context of 512"),
    ]
    for pairs, more, kind, message in cases:
        path = write(tmp_path / "p.jsonl", pairs)
        _, error = run("--model", random_base, "--reward", head, "--pairs", path, *more)
        assert isinstance(error, kind), error
        assert isinstance(error, PadliteError)
        assert message in error.message
