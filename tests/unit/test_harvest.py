"""Harvesting on a fake base: what is collected, that it goes on where it was, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from padlite.dimensions.adding import Wanted
from padlite.dimensions.harvest import Harvest, HarvestFolder, answer, guided_by, harvest, require_fitting
from padlite.dimensions.plan import PART, Plan, Share
from padlite.dimensions.prompts import ordinary_prompts, read_prompts
from padlite.dimensions.teacher import ContrastTeacher
from padlite.dimensions.trial import require_reaction, try_out
from padlite.errors import BackendError, NotFoundError, PadliteError, UsageError
from padlite.seams import FloatArray, Message
from padlite.template import ChatTemplate
from tests.chats import TEMPLATE
from tests.fakes import ALPHABET, END, LetterTokenizer, TableBase, spelling

LETTERS = LetterTokenizer()
PROMPTS = tuple(f"tell me about {letter}" for letter in "abcdefghijklmnopqrst")


def base_saying(plain: str, told: str) -> TableBase:
    """A base that says *plain*, and *told* where its prompt holds the word "pirate"."""

    def rule(tokens: Sequence[int]) -> FloatArray:
        said = "".join(ALPHABET[token] for token in tokens)
        begin = len(tokens) - list(tokens)[::-1].index(END)
        return spelling(told if "pirate" in said else plain, after=begin)(tokens)

    return TableBase(rule, vocabulary_size=len(ALPHABET), context_length=2000)


def teacher(base: TableBase) -> ContrastTeacher:
    return ContrastTeacher(base, LETTERS, ChatTemplate(TEMPLATE), ["be a pirate"], candidates=34)


def plan(answers: int = 3 * PART) -> Plan:
    return Plan(
        base_fingerprint="fake", sentences=("be a pirate",), prompts=PROMPTS, answers=answers, candidates=34
    )  # fmt: skip


def gathered(folder: Path, plain: str = "yes", told: str = "arr") -> Harvest:
    place = HarvestFolder(folder, plan())
    place.require_room(4)
    harvest(teacher(base_saying(plain, told)), plan(), place, parts=plan().parts, progress=lambda number: None)
    return place.load(plan().parts)


def test_states_of_plain_and_guided_answers_are_collected_with_what_they_are_for(tmp_path: Path) -> None:
    found = gathered(tmp_path)
    spelled = {"".join(ALPHABET[token] for token in tokens) for tokens in found.answers(plain=True)}
    assert spelled == {"yes"}
    assert "arr" in {"".join(ALPHABET[token] for token in tokens) for tokens in found.answers(plain=False)}
    assert set(found.share) == {Share.TRAIN, Share.STOP, Share.TEST}
    assert found.features.shape == (len(found.share), 34, 1)
    assert found.hidden.dtype == np.float16


def test_no_prompt_is_for_two_things() -> None:
    sets = [set(plan().prompts_for(share)) for share in Share]
    assert sum(map(len, sets)) == len(PROMPTS)
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert min(map(len, sets)) >= 2


def test_an_interrupted_harvest_goes_on_and_ends_like_one_that_was_not(tmp_path: Path) -> None:
    whole = gathered(tmp_path / "whole")
    place = HarvestFolder(tmp_path / "parts", plan())
    place.require_room(4)
    harvest(teacher(base_saying("yes", "arr")), plan(), place, parts=1, progress=lambda number: None)
    (place.path / "0001.npz.partial").write_bytes(b"half of a part, left by a kill")
    assert place.finished() == 1
    reached: list[int] = []
    harvest(teacher(base_saying("yes", "arr")), plan(), place, parts=plan().parts, progress=reached.append)
    assert reached == [1, 2, 3]
    again = place.load(plan().parts)
    for name in ("hidden", "candidates", "base", "features", "tokens", "share", "plain", "answer"):
        assert np.array_equal(getattr(whole, name), getattr(again, name))


def test_another_sentence_or_base_has_a_harvest_of_its_own() -> None:
    others = [
        replace(plan(), base_fingerprint="other"), replace(plan(), sentences=("be a cook",)),
        replace(plan(), prompts=PROMPTS[:-1]), replace(plan(), seed=8),
    ]  # fmt: skip
    assert len({plan().key, *(other.key for other in others)}) == 5


def test_more_answers_begin_with_those_that_are_there(tmp_path: Path) -> None:
    few, more = plan(answers=PART + 3), plan(answers=3 * PART)
    pupil = teacher(base_saying("yes", "arr"))
    harvest(pupil, few, HarvestFolder(tmp_path, few), parts=few.parts, progress=lambda number: None)
    place = HarvestFolder(tmp_path, more)
    assert (few.parts, place.finished()) == (2, 2)
    reached: list[int] = []
    harvest(pupil, more, place, parts=more.parts, progress=reached.append)
    assert reached == [2, 3]
    assert {int(number) // 2 for number in place.load(more.parts).answer} == set(range(3 * PART))
    at_once = gathered(tmp_path / "at once")
    assert np.array_equal(at_once.tokens, place.load(more.parts).tokens)
    assert HarvestFolder(tmp_path, few).finished() == few.parts


def test_one_at_a_time_makes_a_harvest(tmp_path: Path) -> None:
    place, other = HarvestFolder(tmp_path, plan()), HarvestFolder(tmp_path, replace(plan(), seed=8))
    with place.alone(), other.alone():
        with pytest.raises(PadliteError, match="is being made by another padlite process") as raised:
            HarvestFolder(tmp_path, plan(answers=1000)).alone().__enter__()
        assert "wait" in raised.value.remedy
    with place.alone():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_part_is_named_with_what_to_type(tmp_path: Path) -> None:
    gathered(tmp_path)
    place = HarvestFolder(tmp_path, plan())
    (place.path / "0001.npz").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(BackendError, match=r"0001\.npz is damaged") as raised:
        place.load(plan().parts)
    assert raised.value.remedy.startswith("rm -r ")


def test_a_disk_that_is_too_small_is_told_before_anything_starts(tmp_path: Path) -> None:
    huge = plan(answers=10**12)
    with pytest.raises(BackendError, match=r"needs about [\d,]+ MB, and .* has [\d,]+ MB free"):
        HarvestFolder(tmp_path, huge).require_room(4096)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_needs_no_room() -> None:
    wanted = plan(answers=3 * PART)
    assert wanted.bytes_needed(64, finished=3) == 0
    assert 3 * wanted.bytes_needed(64, finished=2) == wanted.bytes_needed(64)


def test_the_room_that_is_asked_for_is_what_the_longest_answers_take(tmp_path: Path) -> None:
    wanted = plan(answers=10 * PART)
    place, pupil = HarvestFolder(tmp_path, wanted), teacher(base_saying("abcdefghijklmnopqrstuvwxyz" * 2, "arr" * 20))
    harvest(pupil, wanted, place, parts=wanted.parts, progress=lambda number: None)
    taken = sum(file.stat().st_size for file in place.path.iterdir())
    assert 0.9 < taken / wanted.bytes_needed(4) < 1.1


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_harvested() -> None:
    base = base_saying("yes", "arr")
    base.context_length = 400
    pupil, room = teacher(base), teacher(base).prompt_room(answer_tokens=40)
    longest = "a" * room
    fitting = replace(plan(), prompts=(*PROMPTS, longest))
    require_fitting(pupil, fitting, ["pirate"])
    with pytest.raises(
        UsageError, match=rf"prompt 21 \(a{{40}}…\) has {room + 1} tokens, and there is room for {room}"
    ):
        require_fitting(pupil, replace(fitting, prompts=(*PROMPTS, longest + "a")), ["pirate"])
    assert base.evaluated_tokens == 0


def test_two_prompts_of_the_largest_size_just_fit_the_context() -> None:
    base = base_saying("b" * 60, "c" * 60)
    base.context_length = 400
    pupil = teacher(base)
    said = [Message(role="user", content="a" * (pupil.prompt_room(answer_tokens=40)))]
    said += [Message(role="assistant", content="b" * 40), said[0]]
    answer(pupil, said, guided_by(np.zeros(1, dtype=np.float32)), limit=40)
    assert 380 < max(map(len, base.cached.values())) <= 400


def test_a_sentence_that_fills_the_context_is_refused_by_its_name() -> None:
    base, sentences = base_saying("yes", "arr"), ("be a pirate", "arr" * 80)
    base.context_length = 400
    pupil = ContrastTeacher(base, LETTERS, ChatTemplate(TEMPLATE), sentences, candidates=34)
    with pytest.raises(UsageError, match="the sentence of 'cook' has 240 tokens"):
        require_fitting(pupil, replace(plan(), sentences=sentences), ["pirate", "cook"])


def test_too_few_answers_to_judge_by_are_refused_with_how_many_are_needed() -> None:
    prompts = tuple(f"tell me about {number}" for number in range(1000))
    late = next(
        seed for seed in range(100) if min(np.flatnonzero(replace(plan(), prompts=prompts, seed=seed).shares())) > PART
    )
    few = replace(plan(answers=PART), prompts=prompts, seed=late)
    with pytest.raises(UsageError, match="20 answers are too few") as raised:
        few.require_shares()
    enough = int(raised.value.remedy.rsplit(" ", 1)[1])
    replace(few, answers=enough).require_shares()
    with pytest.raises(UsageError):
        replace(few, answers=enough - PART).require_shares()
    with pytest.raises(UsageError, match="8 prompts are too few"):
        replace(few, prompts=prompts[:8]).require_shares()


@pytest.mark.parametrize("sentence", [" ", "a\0b", "a" * 2001, "Be \udcff."])
def test_a_sentence_that_no_model_can_be_told_is_refused(sentence: str) -> None:
    with pytest.raises(UsageError, match="the sentence of 'pirate' is") as raised:
        Wanted(name="pirate", sentence=sentence)
    assert raised.value.remedy


def test_a_sentence_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PadliteError, match=r"the base hardly reacts to this sentence \(pirate: 0\.000"):
        require_reaction(gathered(tmp_path, "yes", "yes"), ["pirate"])
    require_reaction(gathered(tmp_path / "reacting"), ["pirate"])


@pytest.mark.parametrize("told", ["ha" * 20, ""])
def test_a_sentence_that_makes_the_base_degenerate_is_refused(told: str, tmp_path: Path) -> None:
    with pytest.raises(PadliteError, match="talks nonsense when told so"):
        require_reaction(gathered(tmp_path, "yes", told), ["pirate"])


def test_a_trial_weighs_the_words_by_the_sentence_and_by_the_plain_base() -> None:
    pupil = teacher(base_saying("yes", "arr"))
    plain, told = (
        try_out(
            pupil,
            PROMPTS[:3],
            guided_by(np.array([push], dtype=np.float32)),
            sentence=0,
            limit=20,
            progress=lambda: None,
        )
        for push in (0.0, 1.0)
    )
    assert (plain.texts, told.texts) == (("yes",) * 3, ("arr",) * 3)
    assert plain.steering < 0 < told.steering
    assert plain.perplexity < told.perplexity


def test_padlite_comes_with_some_twelve_hundred_different_prompts() -> None:
    prompts = ordinary_prompts()
    assert 1100 <= len(prompts) == len(set(prompts))
    assert all(prompt.strip() == prompt and len(prompt) < 200 for prompt in prompts)


def test_own_prompts_are_read_once_each(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("\n\n".join([*PROMPTS, PROMPTS[0], "  "]), encoding="utf-8")
    assert read_prompts(path) == PROMPTS


def test_prompts_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    with pytest.raises(NotFoundError, match="can't read"):
        read_prompts(path)
    path.write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(UsageError, match="holds 2 different prompts, at least 20"):
        read_prompts(path)
    path.write_bytes(b"good\nb\xffd\n")
    with pytest.raises(UsageError, match="line 2: this is not UTF-8"):
        read_prompts(path)
