"""What /why says about an answer, on decisions made by hand."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from rich.console import Console, RenderableType
from rich.style import Style

from padlite.cli.palette import dimension_mark, dimension_style
from padlite.cli.why import Explained, coloured_answer, explain
from padlite.decode import FinishReason, Token, TokenTrace
from padlite.errors import NotFoundError, UsageError
from padlite.session import Answer, Timings, Usage

WORDS = ["", " lovely", " good", " fine", "!", " idea", "\n", "漢字"]
DIMENSIONS = ("friendly", "witty", "concise")


def token(
    word: str, candidates: Sequence[str], scores: Sequence[float], added: Sequence[Sequence[float]], base: int = 0
) -> Token:
    """A decision for *word*; *added* (k, m) is what each dimension added at push 1."""
    ids = [WORDS.index(candidate) for candidate in candidates]
    trace = TokenTrace(
        candidates=np.array(ids, dtype=np.int64),
        base_scores=np.array(scores, dtype=np.float32),
        features=np.array(added, dtype=np.float32),
        push=np.ones(len(DIMENSIONS), dtype=np.float32),
        chosen=candidates.index(word),
        base_choice=base,
        fallback=False,
    )
    return Token(id=WORDS.index(word), text=word, trace=trace)


CHANGED = token(" lovely", [" good", " lovely"], [-0.5, -1.0], [[0, 0, -0.25], [1.25, -0.125, 0]])
KEPT = token(" idea", [" idea", " fine"], [-0.1, -2.0], [[0, 0, 0], [0.5, 0, 0]])
WITTY = token("!", [" fine", "!"], [-0.5, -0.75], [[0, 0, 0], [0.25, 3.0, 0]])


def subject(*tokens: Token, width: int = 80) -> Explained:
    text = "".join(token.text for token in tokens)
    answer = Answer(
        text=text, finish_reason=FinishReason.STOP, trace=tokens, seed=None,
        usage=Usage(prompt_tokens=1, evaluated_tokens=1, completion_tokens=len(tokens)),
        timings=Timings(first_token_s=0.1, decode_s=0.1, tokens_per_s=10.0),
    )  # fmt: skip
    return Explained(answer=answer, dimensions=DIMENSIONS, describe=lambda token: WORDS[token], width=width)


def shown(parts: Sequence[RenderableType], width: int = 80, *, color: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, color_system="truecolor" if color else None)
    console.print(*parts, sep="\n")
    return out.getvalue()


def test_the_overview_counts_colours_and_ranks_the_changes() -> None:
    text = shown(explain(subject(CHANGED, KEPT, WITTY), ""))
    assert "changed 2 of 3 tokens" in text
    assert " lovely¹ idea!²" in text
    assert "friendly¹ 1   witty² 1" in text
    rows = [line for line in text.splitlines() if "“" in line]
    assert "“!”" in rows[0]  # moved most
    assert "“ fine”" in rows[0]
    assert "witty² +3.00" in rows[0]
    assert "friendly¹ +1.25" in rows[1]
    assert "concise³ +0.25" in rows[1]
    assert "/why 3" in text


def test_each_changed_word_has_the_colour_of_the_dimension_that_changed_it() -> None:
    text = coloured_answer(subject(CHANGED, KEPT, WITTY))
    colours = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert colours["lovely"] == dimension_style(0) + Style(bold=True)
    assert colours["!"] == dimension_style(1) + Style(bold=True)
    assert "idea" not in "".join(colours)
    assert text.plain == " lovely¹ idea!²"


def test_without_colour_the_marks_still_tell() -> None:
    text = shown(explain(subject(CHANGED), ""))
    assert "\x1b" not in text
    assert "lovely¹" in text
    assert dimension_mark(11) == "¹²"


def test_a_token_is_explained_by_its_candidates_and_what_each_dimension_added() -> None:
    text = shown(explain(subject(KEPT, CHANGED), "2"))
    lines = text.splitlines()
    assert "Token 2 of 2:" in lines[0]
    assert "the base model alone would have said “ good”" in text
    chosen = next(line for line in lines if line.startswith("▶"))
    rest = next(line for line in lines if line.startswith("·"))
    assert chosen.split()[2:] == ["lovely”", "-1.00", "37%", "+1.25", "-0.12", "0", "0.12", "71%"]
    assert rest.split()[2:] == ["good”", "-0.50", "61%", "0", "0", "-0.25", "-0.75", "29%"]


def test_a_dimension_that_did_nothing_takes_no_column() -> None:
    assert "witty" not in shown(explain(subject(KEPT), "1"))


@pytest.mark.parametrize("width", [30, 40, 50, 64, 80, 120])
def test_the_tables_fit_the_terminal(width: int) -> None:
    for argument in ("", "1", "all"):
        text = shown(explain(subject(CHANGED, KEPT, WITTY, width=width), argument), width)
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
        assert "…" not in text


def test_what_has_no_room_is_added_up_instead_of_left_out() -> None:
    text = shown(explain(subject(CHANGED, width=50), "1"), 50)
    assert "friendly¹" in text
    assert "others" in text


def test_tokens_are_found_by_their_words_changed_ones_first() -> None:
    assert "Token 1 of 3" in shown(explain(subject(CHANGED, KEPT, WITTY), "lovely"))
    with pytest.raises(NotFoundError):
        explain(subject(CHANGED), "absent")
    for number in ("0", "4", "-1"):
        with pytest.raises(UsageError, match="the last answer has 3"):
            explain(subject(CHANGED, KEPT, WITTY), number)


def test_line_breaks_and_an_unchanged_answer_are_shown_as_such() -> None:
    line_break = token("\n", ["\n", " fine"], [-0.1, -2.0], [[0, 0, 0], [0, 0, 0]])
    text = shown(explain(subject(line_break), "1"))
    assert "“⏎”" in text
    assert "No dimension pushed here" in text
    assert "changed none of the 1 tokens" in shown(explain(subject(line_break), ""))


def test_rewards_that_could_not_be_used_are_said() -> None:
    broken = Token(
        id=1, text=" lovely",
        trace=TokenTrace(
            candidates=np.array([1, 2]), base_scores=np.array([-0.5, -1.0], dtype=np.float32),
            features=np.zeros((2, 3), dtype=np.float32), push=np.ones(3, dtype=np.float32),
            chosen=0, base_choice=0, fallback=True,
        ),
    )  # fmt: skip
    assert "not finite" in shown(explain(subject(broken), ""))
    assert "not finite" in shown(explain(subject(broken), "1"))
    assert "not finite" in shown(explain(subject(broken), "all"))
