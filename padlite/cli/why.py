"""What `/why` shows: which words of the last answer the profile changed, and for each token how that came about.

    score of a candidate = log-probability by the base model + what each dimension adds (strength x weight x reward)

All in nats. Pure: an answer in, rich renderables out; knows no session and no terminal but the width it is given.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.cells import cell_len
from rich.console import RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from padlite.cli.palette import dimension_mark, dimension_style
from padlite.cli.render import visible
from padlite.decode import TokenTrace
from padlite.errors import NotFoundError, UsageError
from padlite.session import Answer, Token

LISTED_CHANGES = 8
_CONTEXT_CHARACTERS = 40
_TOKEN_CELLS = 18
_WIDE = 64  # cells: room for the percentages


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """An answer and what is needed to speak about it: the names of the *dimensions* and the text of token ids."""

    answer: Answer
    dimensions: tuple[str, ...]
    describe: Callable[[int], str]
    width: int = 80

    def token_text(self, token: int) -> str:
        """Return the text of a token in quotes, with spaces and line breaks visible as such."""
        text = visible(self.describe(token)).replace("\n", "⏎").replace("\t", "⇥")
        shown = text if len(text) <= _TOKEN_CELLS - 2 else text[: _TOKEN_CELLS - 3] + "…"
        return f"“{shown}”" if shown else "(end)"


def explain(subject: Explained, argument: str) -> list[RenderableType]:
    """Return what `/why` *argument* asks for: '' the overview, a number or a word its tokens, 'all' every token."""
    argument = argument.strip()
    if not subject.answer.trace:
        return [Text("The last answer has no tokens, so there is nothing to explain.", style="dim")]
    if not argument:
        return overview(subject)
    if argument == "all":
        return [every_token(subject)]
    if argument.lstrip("-").isdecimal():
        return token_details(subject, _index(subject, int(argument)))
    found = _find(subject, argument)
    return [part for index in found[:3] for part in token_details(subject, index)]


def overview(subject: Explained) -> list[RenderableType]:
    """Return the coloured answer, the legend and the most influential changes."""
    answer = subject.answer
    total, changed = len(answer.trace), answer.changed
    parts: list[RenderableType] = [_headline(total, changed)]
    if answer.fallbacks:
        parts.append(Text(f"At {answer.fallbacks} the rewards were not finite, so the base model decided.", "yellow"))
    parts += [Text(), coloured_answer(subject), Text()]
    if not changed:
        return [*parts, Text("/why 1 shows the candidates of the first token; /weights changes what counts.", "dim")]
    parts += [_legend(subject), Text(), _changes_table(subject), Text()]
    example = _by_influence(answer)[0] + 1
    return [*parts, Text(f"/why {example} shows how token {example} was chosen; /why all lists every token.", "dim")]


def coloured_answer(subject: Explained) -> Text:
    """Return the answer, changed tokens in the colour of the dimension that changed them, its mark behind the word."""
    text, marks = Text(), Text()
    for token in subject.answer.trace:
        if marks.plain and token.text[:1].isspace():
            text.append_text(marks)
            marks = Text()
        place = token.trace.strongest_dimension
        if place is None:
            text.append(visible(token.text))
            continue
        bare = visible(token.text)
        indent = len(bare) - len(bare.lstrip())
        text.append(bare[:indent])
        text.append(bare[indent:], dimension_style(place) + Style(bold=True))
        if dimension_mark(place) not in marks.plain:
            marks.append(dimension_mark(place), dimension_style(place))
    text.append_text(marks)
    streamed = "".join(token.text for token in subject.answer.trace)
    return text.append(visible(subject.answer.text.removeprefix(streamed)))


def every_token(subject: Explained) -> Table:
    """Return one row per token: what was said, how likely the base found it, and what the profile changed."""
    table = _table("#", "said", "base", "instead of", "because of")
    for index, token in enumerate(subject.answer.trace):
        trace = token.trace
        said = Text(subject.token_text(token.id))
        row = [Text(str(index + 1), "dim"), said, _percent(trace.base_scores[trace.chosen])]
        if trace.changed:
            row += [Text(subject.token_text(_base_token(token))), _reasons(subject, trace, limit=2)]
        elif trace.fallback:
            row += [Text(), Text("rewards not finite", "yellow")]
        table.add_row(*row)
    return table


def token_details(subject: Explained, index: int) -> list[RenderableType]:
    """Return the candidates of token *index* (from 0): base, what each dimension adds, and the outcome."""
    token = subject.answer.trace[index]
    trace = token.trace
    before = "".join(t.text for t in subject.answer.trace[:index])[-_CONTEXT_CHARACTERS:]
    heading = Text.assemble(
        (f"Token {index + 1} of {len(subject.answer.trace)}: ", "bold"),
        ("…" if index and len(before) == _CONTEXT_CHARACTERS else "", "dim"),
        (visible(before).replace("\n", " "), "dim"),
        (visible(subject.describe(token.id)).replace("\n", "⏎"), _choice_style(trace)),
    )
    return [
        heading,
        _verdict(subject, token),
        Text(),
        _candidates_table(subject, trace),
        Text(),
        _reading_aid(),
        Text(),
    ]


def _headline(total: int, changed: int) -> Text:
    if not changed:
        return Text(f"Your profile changed none of the {total} tokens: the base model alone would say the same.")
    share = f"{changed} of {total} tokens"
    return Text.assemble("Your profile changed ", (share, "bold"), "; at each, this is what tipped the scales:")


def _legend(subject: Explained) -> Text:
    counts = [0] * len(subject.dimensions)
    for token in subject.answer.trace:
        place = token.trace.strongest_dimension
        if place is not None:
            counts[place] += 1
    entries = [
        Text.assemble((name + dimension_mark(place), dimension_style(place) + Style(bold=True)), f" {counts[place]}")
        for place, name in enumerate(subject.dimensions)
        if counts[place]
    ]
    return Text("   ").join(entries)


def _changes_table(subject: Explained) -> Table:
    table = _table("#", "said", "instead of", "because of")
    for index in _by_influence(subject.answer)[:LISTED_CHANGES]:
        token = subject.answer.trace[index]
        table.add_row(
            Text(str(index + 1), "dim"),
            Text(subject.token_text(token.id), _choice_style(token.trace)),
            Text(subject.token_text(_base_token(token))),
            _reasons(subject, token.trace, limit=2 if subject.width >= 70 else 1),
        )
    return table


def _by_influence(answer: Answer) -> list[int]:
    """Return the indices of the changed tokens, the one first where the profile moved the scores most."""
    changed = [index for index, token in enumerate(answer.trace) if token.trace.changed]
    return sorted(changed, key=lambda index: -float(_advantage(answer.trace[index].trace).sum()))


def _advantage(trace: TokenTrace) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return what each dimension (m,) added to the choice beyond what it added to the base model's choice."""
    added = trace.contributions[trace.chosen] - trace.contributions[trace.base_choice]
    return np.asarray(added, dtype=np.float32).reshape(-1)


def _reasons(subject: Explained, trace: TokenTrace, *, limit: int) -> Text:
    advantage = _advantage(trace)
    order = np.argsort(-np.abs(advantage), kind="stable")[:limit]
    entries = [
        Text(f"{subject.dimensions[place]}{dimension_mark(place)} {advantage[place]:+.2f}", dimension_style(place))
        for place in map(int, order)
        if abs(advantage[place]) >= 0.005
    ]
    return Text("  ").join(entries)


def _verdict(subject: Explained, token: Token) -> Text:
    trace = token.trace
    if trace.fallback:
        return Text("The rewards were not finite here, so the base model decided.", "yellow")
    if not trace.contributions.any():
        return Text("No dimension pushed here: the base model's choice.")
    if not trace.changed:
        return Text("The profile pushed, but the base model's choice stayed ahead.")
    return Text.assemble(
        "The profile changed it: the base model alone would have said ",
        (subject.token_text(_base_token(token)), "bold"),
        ".",
    )


def _candidates_table(subject: Explained, trace: TokenTrace) -> Table:
    shown, folded = _columns(subject, trace)
    wide = subject.width >= _WIDE
    names = [f"{subject.dimensions[place]}{dimension_mark(place)}" for place in shown]
    table = _table("", "candidate", "base", *(["%"] if wide else []), *names, *(["others"] if folded else []), "score",
                   *(["%"] if wide else []), right_from=2)  # fmt: skip
    contributions = trace.contributions
    scores = trace.base_scores + contributions.sum(axis=1)
    guided = scores - _log_sum(scores)
    for row in np.argsort(-scores, kind="stable"):
        index = int(row)
        picked, based = index == trace.chosen, index == trace.base_choice
        cells = [
            Text("▶" if picked else "·" if based else " ", "bold" if picked else "dim"),
            Text(subject.token_text(int(trace.candidates[index])), _choice_style(trace) if picked else ""),
            Text(f"{trace.base_scores[index]:.2f}"),
            *([_percent(trace.base_scores[index])] if wide else []),
            *(_signed(contributions[index, place], dimension_style(place)) for place in shown),
            *([_signed(contributions[index, folded].sum(), Style())] if folded else []),
            Text(f"{scores[index]:.2f}", "bold" if picked else ""),
            *([_percent(guided[index])] if wide else []),
        ]
        table.add_row(*cells)
    return table


def _columns(subject: Explained, trace: TokenTrace) -> tuple[list[int], list[int]]:
    """Return the dimensions that get a column (those that pushed most), and those added up as 'others'."""
    reach = np.abs(trace.contributions).max(axis=0) if trace.contributions.size else np.zeros(0)
    active = [int(place) for place in np.argsort(-reach, kind="stable") if reach[place] > 0.0]
    widest = max(cell_len(subject.token_text(int(token))) for token in trace.candidates)
    room = subject.width - (max(widest, 9) + (31 if subject.width >= _WIDE else 19))
    fitting: list[int] = []
    for place in active:
        room -= max(cell_len(subject.dimensions[place]) + 1, 5) + 2
        if room < (0 if place == active[-1] else 8):
            break
        fitting.append(place)
    return sorted(fitting), [place for place in active if place not in fitting]


def _reading_aid() -> Text:
    return Text("▶ chosen   · the base's own choice   score = base + all dimensions, in nats", "dim")


def _table(*headings: str, right_from: int = 99) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, heading in enumerate(headings):
        last = index == len(headings) - 1 and right_from > index
        table.add_column(heading, justify="right" if index >= right_from else "left", overflow="fold", no_wrap=not last)
    return table


def _choice_style(trace: TokenTrace) -> Style:
    place = trace.strongest_dimension
    return Style(bold=True) if place is None else dimension_style(place) + Style(bold=True)


def _percent(score: float) -> Text:
    return Text(f"{100 * math.exp(min(float(score), 0.0)):.0f}%", "dim")


def _signed(value: float, style: Style) -> Text:
    return Text(f"{value:+.2f}", style) if abs(value) >= 0.005 else Text("0", "dim")


def _log_sum(scores: np.ndarray[tuple[int], np.dtype[np.float32]]) -> float:
    top = float(scores.max())
    return top + math.log(float(np.exp(scores - top).sum()))


def _base_token(token: Token) -> int:
    return int(token.trace.candidates[token.trace.base_choice])


def _index(subject: Explained, number: int) -> int:
    total = len(subject.answer.trace)
    if not 1 <= number <= total:
        raise UsageError(f"there is no token {number}: the last answer has {total}", remedy=f"/why 1 … /why {total}")
    return number - 1


def _find(subject: Explained, word: str) -> Sequence[int]:
    wanted = word.strip("“”\"'").casefold()
    texts = [token.text.strip().casefold() for token in subject.answer.trace]
    found = [i for i, text in enumerate(texts) if text == wanted]
    found = found or [i for i, text in enumerate(texts) if text and (wanted.startswith(text) or wanted in text)]
    if not found:
        raise NotFoundError("no token of the last answer reads like that", remedy="/why all lists them")
    return sorted(found, key=lambda index: not subject.answer.trace[index].trace.changed)
