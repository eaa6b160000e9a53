"""Nothing that judges the model may be among what it is trained on."""

import numpy as np
import pytest

from padlite_training.corpus import own_chats
from padlite_training.recipe import HELD_OUT_OWN, HELD_OUT_SCENARIOS, SAME_ANSWER_SCENARIO
from padlite_training.sources import own_answers, own_small_talk
from padlite_training.split import (
    COMMON,
    Scenario,
    SmallTalkSplit,
    drawing_chances,
    fingerprint,
    scenarios_from,
    split_small_talk,
)
from padlite_training.styles import PUBLIC_STYLES, STYLES

WORDS = ["red", "blue", "green", "tall", "small", "quick", "slow", "warm", "cold", "loud"]


def scenario(name: str, questions: list[str]) -> Scenario:
    return Scenario(name=name, questions=tuple(questions), answers={style: f"{name} {style}" for style in STYLES})


@pytest.fixture(scope="module")
def split() -> SmallTalkSplit:
    public = [
        scenario(f"ms-{number}", [f"Is thing {number} {word}?" for word in WORDS] + ["Shared, by ALL!"])
        for number in range(90)
    ]
    own = [
        scenario("own-0", ["is thing 4 RED", "may I ask for tea"]),
        scenario(
            "own-1", ["is the thing 4 blue", "is that thing 11 red", "is thing 4 red or is it something else entirely"]
        ),
    ]
    return split_small_talk(public, own)


def fingerprints(scenarios: tuple[Scenario, ...]) -> set[str]:
    return {fingerprint(question) for each in scenarios for question in each.questions}


def test_no_question_of_a_held_out_scenario_is_trained_on(split: SmallTalkSplit) -> None:
    assert {each.name for each in split.scenarios} == {f"ms-{number}" for number in HELD_OUT_SCENARIOS}
    assert not {each.name for each in split.training} & {each.name for each in split.scenarios}
    assert not fingerprints(split.training) & fingerprints(split.scenarios)


def test_no_held_out_wording_is_trained_on(split: SmallTalkSplit) -> None:
    assert len(fingerprints(split.wordings)) >= 70
    assert not fingerprints(split.training) & fingerprints(split.wordings)
    assert not fingerprints(split.wordings) & fingerprints(split.scenarios)


def test_a_scenario_with_one_answer_for_all_styles_is_not_judged(split: SmallTalkSplit) -> None:
    assert f"ms-{SAME_ANSWER_SCENARIO}" not in {each.name for each in split.wordings}


def test_own_questions_that_nearly_repeat_a_held_out_scenario_are_dropped(split: SmallTalkSplit) -> None:
    own = {each.name: each.questions for each in split.training if each.name.startswith("own")}
    assert own == {
        "own-0": ("may I ask for tea",),
        "own-1": ("is thing 4 red or is it something else entirely",),
    }


def test_splitting_twice_gives_the_same(split: SmallTalkSplit) -> None:
    public = [
        scenario(f"ms-{number}", [f"Is thing {number} {word}?" for word in WORDS] + ["Shared, by ALL!"])
        for number in range(90)
    ]
    assert split_small_talk(public, []).wordings == split.wordings


@pytest.mark.parametrize(
    ("one", "other"), [("Hello, THERE!", "hello there"), ("I'm  fine.", "Im fine"), ("what’s up?", "What's up")]
)
def test_case_marks_and_spaces_do_not_make_another_wording(one: str, other: str) -> None:
    assert fingerprint(one) == fingerprint(other)


def own_scenarios() -> list[Scenario]:
    rows = [{**row, "number": number} for number, row in enumerate(own_small_talk())]
    return scenarios_from(rows, prefix="own-", key="number")


def test_held_out_scenarios_of_our_own_are_judged_in_all_styles_and_never_trained_on() -> None:
    own = own_scenarios()
    split = split_small_talk([], own)
    assert {each.name for each in split.own} == {f"own-{number}" for number in HELD_OUT_OWN}
    assert all(set(each.answers) == set(STYLES) for each in split.own)
    assert not {each.name for each in split.own} & {each.name for each in split.training}
    assert not fingerprints(split.own) & fingerprints(split.training)


def test_answers_in_further_styles_are_only_for_scenarios_that_may_be_trained_on() -> None:
    more = own_answers()
    assert not set(more) & HELD_OUT_SCENARIOS
    assert all(set(answers) == set(STYLES) - set(PUBLIC_STYLES) for answers in more.values())


def test_own_small_talk_has_eight_different_styles_everywhere() -> None:
    scenarios = own_scenarios()
    assert len(scenarios) >= 2000
    for each in scenarios:
        assert set(each.answers) == set(STYLES), each.name
        assert all(each.answers.values()), each.name
        assert len(each.questions) >= 3, each.name


def test_own_chats_alternate_and_hold_nothing_that_is_judged() -> None:
    split = split_small_talk([], own_scenarios())
    chats = list(own_chats(split))
    assert len(chats) > 500
    held = fingerprints(split.own)
    for chat in chats:
        assert len(chat.turns) % 2 == 0, chat.turns[0]
        assert not held & {fingerprint(turn) for turn in chat.turns[::2]}


def test_however_many_own_scenarios_there_are_the_public_ones_keep_their_share() -> None:
    public = [scenario("ms-0", WORDS), scenario("ms-1", WORDS[:5])]
    own = [scenario(f"own-{number}", WORDS[:3]) for number in range(300)]
    for mixed in (public + own, public + own[:7]):
        chances = drawing_chances(mixed, power=1.0, public_share=0.3)
        assert chances.sum() == pytest.approx(1.0)
        assert chances[:2].sum() == pytest.approx(0.3)
        assert chances[0] == pytest.approx(2 * chances[1])
    assert drawing_chances(public, power=0.0, public_share=0.3) == pytest.approx([0.5, 0.5])


def test_the_first_of_the_own_scenarios_are_the_common_ones() -> None:
    own = [scenario(f"own-{number}", WORDS[:3]) for number in range(COMMON + 1)]
    chances = drawing_chances(own, power=0.5, public_share=0.3)
    assert chances.sum() == pytest.approx(1.0)
    assert (np.diff(chances) < 0).all()
    assert chances[0] == pytest.approx(2 * chances[COMMON])
