"""Harvesting on a fake base: what is collected, that it goes on where it was, and what is refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from padlite.dimensions.harvest import PART, Harvest, HarvestFolder, Plan, Share, guided_by, harvest
from padlite.dimensions.prompts import ordinary_prompts, read_prompts
from padlite.dimensions.teacher import ContrastTeacher
from padlite.dimensions.trial import require_reaction, try_out
from padlite.errors import BackendError, NotFoundError, PadliteError, UsageError
from padlite.seams import FloatArray
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
    keys = {plan().key, plan(answers=100).key}
    keys.add(Plan(base_fingerprint="other", sentences=("be a pirate",), prompts=PROMPTS, answers=60, candidates=34).key)
    assert len(keys) == 3


def test_a_damaged_part_is_named_with_what_to_type(tmp_path: Path) -> None:
    gathered(tmp_path)
    place = HarvestFolder(tmp_path, plan())
    (place.path / "0001.npz").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(BackendError, match=r"0001\.npz is damaged") as raised:
        place.load(plan().parts)
    assert raised.value.remedy.startswith("rm -r ")


def test_a_disk_that_is_too_small_is_told_before_anything_starts(tmp_path: Path) -> None:
    huge = plan(answers=10**12)
    with pytest.raises(BackendError, match=r"needs up to [\d,]+ MB, and .* has [\d,]+ MB free"):
        HarvestFolder(tmp_path, huge).require_room(4096)


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
