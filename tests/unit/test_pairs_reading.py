"""Preference pairs are read strictly, all problems at once with their lines, and divided by group."""

import json
from pathlib import Path

import pytest

from padlite.errors import NotFoundError
from padlite_training.pairs.reading import PairsError, read_pairs, require_known_dimensions
from padlite_training.pairs.split import split_by_group

GOOD = {"prompt": "Hi", "chosen": "Hello you!", "rejected": "Hello.", "dimension": "witty", "group": "greeting"}


def write(path: Path, *records: object) -> Path:
    lines = [each if isinstance(each, str) else json.dumps(each) for each in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def without(key: str) -> dict[str, object]:
    return {name: value for name, value in GOOD.items() if name != key}


def test_a_pair_comes_out_as_it_was_written(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    talk = without("prompt") | {"messages": messages, "weight": -0.5, "group": 7}
    wish = without("dimension") | {"preference": "Be witty."}
    first, second, third = read_pairs(write(tmp_path / "p.jsonl", GOOD, "", talk, wish))
    assert [(m.role, m.content) for m in first.messages] == [("user", "Hi")]
    assert (first.chosen, first.rejected, first.dimension, first.weight) == ("Hello you!", "Hello.", "witty", 1.0)
    assert [m.role for m in second.messages] == ["system", "user"]
    assert (second.weight, second.group, second.line) == (-0.5, "7", 3)
    assert (third.dimension, third.preference) == (None, "Be witty.")


def test_pairs_without_a_group_belong_to_the_one_of_their_prompt(tmp_path: Path) -> None:
    one, other = without("group"), without("group") | {"prompt": "Bye"}
    same = one | {"prompt": "hi ", "dimension": "caring"}
    groups = [pair.group for pair in read_pairs(write(tmp_path / "p.jsonl", one, same, other))]
    assert groups[0] == groups[1] != groups[2]


def test_white_space_around_a_group_makes_no_other_group(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", GOOD | {"group": "plans"}, GOOD | {"group": " plans\t"})
    assert {pair.group for pair in read_pairs(path)} == {"plans"}


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ("{", "no valid JSON"),
        ("[1]", "no JSON object"),
        ('{"prompt": "a", "prompt": "b"}', "'prompt' is there twice"),
        ('{"weight": NaN}', "NaN is no number"),
        ("[" * 100_000, "no valid JSON"),
        (without("prompt"), "'prompt' is missing (or 'messages')"),
        (GOOD | {"messages": []}, "both 'prompt' and 'messages'"),
        (without("chosen"), "'chosen' is missing"),
        (GOOD | {"rejected": 3}, "'rejected' must be text"),
        (GOOD | {"chosen": "  "}, "'chosen' is empty"),
        (GOOD | {"prompt": ""}, "'prompt' is empty"),
        (GOOD | {"rejected": " Hello you!\n"}, "are the same"),
        (without("dimension"), "'dimension' is missing (or 'preference')"),
        (GOOD | {"preference": "Be witty."}, "both 'dimension' and 'preference'"),
        (GOOD | {"dimension": "a/b"}, "can't be the name of a dimension"),
        (GOOD | {"weight": 0}, "not 0"),
        (GOOD | {"weight": 11}, "from -10 to 10"),
        (GOOD | {"weight": True}, "'weight' must be a number"),
        (GOOD | {"weight": 10**400}, "from -10 to 10"),
        ('{"weight": 1e400}', "from -10 to 10"),
        (without("prompt") | {"messages": None}, "'messages' must be a list"),
        (GOOD | {"group": None}, "'group' must be"),
        (GOOD | {"chosne": "x"}, "did you mean 'chosen'"),
        (GOOD | {"chosen": "\ud800"}, "half a character"),
        (GOOD | {"chosen": "a\0b"}, "NUL"),
        (without("prompt") | {"messages": [{"role": "assistant", "content": "x"}]}, "isn't the user's"),
        (without("prompt") | {"messages": [{"role": "boss", "content": "x"}]}, "role that isn't one of"),
        (without("prompt") | {"messages": ["x"]}, "message 1 isn't"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, record: object, problem: str) -> None:
    with pytest.raises(PairsError, match="line 2") as caught:
        read_pairs(write(tmp_path / "p.jsonl", GOOD, record))
    assert problem in " ".join(caught.value.problems)
    assert caught.value.exit_code == 2


def test_all_problems_are_listed_at_once_and_hold_nothing_that_somebody_wrote(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"prompt": "my secret"}, GOOD, GOOD | {"weight": "secret"}, "secret")
    with pytest.raises(PairsError) as caught:
        read_pairs(path)
    lines = [problem.split(":")[0] for problem in caught.value.problems]
    assert lines == ["line 1", "line 1", "line 1", "line 3", "line 4"]
    assert "secret" not in str(caught.value)


def test_latin_text_an_empty_file_and_no_file_are_errors(tmp_path: Path) -> None:
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(json.dumps(GOOD, ensure_ascii=False).replace("Hi", "Hä").encode("latin-1"))
    with pytest.raises(PairsError, match="line 1: this is not UTF-8"):
        read_pairs(latin)
    with pytest.raises(PairsError, match="holds no pairs"):
        read_pairs(write(tmp_path / "empty.jsonl", ""))
    with pytest.raises(NotFoundError):
        read_pairs(tmp_path / "none.jsonl")


def test_a_dimension_that_the_model_lacks_is_named_with_the_closest_one(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", GOOD, GOOD | {"dimension": "wity"})
    with pytest.raises(PairsError, match=r"line 2: .*'wity' — did you mean 'witty'"):
        require_known_dimensions(path, read_pairs(path), ["witty", "caring"])


def many(count: int, *, dimensions: tuple[str, ...] = ("witty", "caring")) -> list[object]:
    return [GOOD | {"group": f"g{n}", "dimension": name} for n in range(count) for name in dimensions]


def test_a_group_is_never_on_both_sides_and_the_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *many(40))
    pairs = read_pairs(path)
    split = split_by_group(path, pairs, share=0.25)
    training, held = ({pair.group for pair in part} for part in (split.training, split.held_out))
    assert not training & held
    assert (len(training), len(held)) == (30, 10)
    assert split_by_group(path, pairs[::-1], share=0.25).held_out_groups == split.held_out_groups
    assert split_by_group(path, pairs, share=0.25, seed=1).held_out_groups != split.held_out_groups


def test_every_dimension_is_learned_and_judged(tmp_path: Path) -> None:
    rare = [GOOD | {"group": f"rare {n}", "dimension": "rare"} for n in range(2)]
    path = write(tmp_path / "p.jsonl", *many(200), *rare)
    for seed in range(20):
        split = split_by_group(path, read_pairs(path), share=0.05, seed=seed)
        for part in (split.training, split.held_out):
            assert {pair.dimension for pair in part} == {"witty", "caring", "rare"}


def test_one_group_can_not_be_divided(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", GOOD, GOOD)
    with pytest.raises(PairsError, match="one group"):
        split_by_group(path, read_pairs(path))
    path = write(tmp_path / "q.jsonl", *many(3), GOOD | {"dimension": "rare"})
    with pytest.raises(PairsError, match="'rare' are in one group"):
        split_by_group(path, read_pairs(path))
