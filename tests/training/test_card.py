"""The card's tables are what `padlite eval` measured, as it was kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from padlite_training.card import _rivals
from padlite_training.facts import Compared
from padlite_training.judging.evaluation import MEAN, Evaluation, Row

ROW = Row(
    rival="head", strength=2.0, dimension=MEAN, answers=70, steering=0.5, steering_error=0.06, nats=0.0, nats_error=0.1,
    distinct_1=0.8, distinct_2=0.9, flip_rate=0.25, tokens_per_s=1000.0, pairs=200,
    policy_accuracy=0.7, policy_error=0.03,
)  # fmt: skip


@pytest.fixture
def compared(tmp_path: Path) -> Compared:
    rows = (
        replace(ROW, rival="plain", strength=0.0, steering_error=None, policy_accuracy=None, policy_error=None),
        replace(ROW, dimension="witty"),
        ROW,
    )
    evaluation = Evaluation(rows=rows, classifier_accuracy=0.86, preferred_steering=0.6, chance=0.2, examples=())
    path = tmp_path / "rivals.json"
    path.write_text(json.dumps(evaluation.as_record()), encoding="utf-8")
    return Compared.load(path)


def test_only_the_means_are_kept(compared: Compared) -> None:
    assert [row.rival for row in compared.means] == ["plain", "head"]
    assert compared.means[1].steering == 0.5


def test_each_way_is_a_line_with_its_setting(compared: Compared) -> None:
    lines = _rivals("scenarios", compared).splitlines()
    assert lines[-2:] == [
        "| plain | 0.50 ±– | 1.00 | 0.90 | 0.25 | – |",
        "| head, β = 2 | 0.50 ±0.06 | 1.00 | 0.90 | 0.25 | 0.70 ±0.03 |",
    ]
    assert "86 %" in _rivals("scenarios", compared)
