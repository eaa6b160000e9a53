"""Whether a base understands new wordings is judged by the answers it was taught, and never by words it has seen."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from padlite_training.corpus import read_small_talk
from padlite_training.evaluate import Question
from padlite_training.evaluate import main as evaluate
from padlite_training.pack import main as pack
from padlite_training.recipe import HELD_OUT_OWN
from padlite_training.records import json_text
from padlite_training.split import Scenario, fingerprint
from padlite_training.understanding import Understander, new_questions
from padlite_training.understanding import main as understanding

SCENARIOS = [
    Scenario(name=f"own-{number}", questions=("?",), answers={"concise": short, "witty": long})
    for number, (short, long) in enumerate(
        [
            ("Take an umbrella.", "Rain is the sky doing its laundry."),
            ("Wear a coat.", "Snow is rain in its Sunday best."),
            ("Close the window.", "Wind is air in a hurry."),
            ("Sit in the shade.", "The sun never takes a holiday."),
            ("Hello.", "Greetings, fellow talker."),
        ]
    )
]


@pytest.mark.parametrize(
    ("answer", "right", "near"),
    [
        ("  take an UMBRELLA.", 1.0, 1.0),
        ("Rain again, bring the umbrella", 0.0, 1.0),
        ("Hello.", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_an_answer_is_right_near_or_neither(answer: str, right: float, near: float) -> None:
    found = Understander(SCENARIOS).judge([Question(text="It pours.", scenario="own-0")], [answer])
    assert (found.questions, found.right, found.near) == (1, right, near)


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (understanding, ["--bundle", "none"]),
        (evaluate, ["--bundle", "none", "--work", "none"]),
        (pack, ["--data", "none", "--work", "work", "--out", "none/x.tar.xz"]),
    ],
)
def test_a_path_that_is_wrong_ends_a_program_with_a_message(
    program: Callable[[Sequence[str]], None], arguments: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="none"):
        program(arguments)


def test_a_figure_that_is_no_number_is_null() -> None:
    assert json.loads(json_text({"a": [float("nan"), 1.5], "b": (float("inf"), None, "x", 2)})) == {
        "a": [None, 1.5], "b": [None, None, "x", 2]
    }  # fmt: skip


def test_no_new_wording_was_trained_on_or_is_of_a_situation_held_out() -> None:
    questions, split = new_questions(), read_small_talk(None)
    known = {fingerprint(text) for scenario in (*split.training, *split.own) for text in scenario.questions}
    assert len(questions) == len({question.scenario for question in questions}) == 160
    assert not [question.text for question in questions if fingerprint(question.text) in known]
    assert {question.scenario for question in questions} <= {scenario.name for scenario in split.training}
    assert not {question.scenario for question in questions} & {f"own-{number}" for number in HELD_OUT_OWN}
