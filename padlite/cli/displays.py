"""The tables and lines that the commands of a chat show. Values in, rich renderables out; decides nothing."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from padlite.cli.conversation import Conversation
from padlite.cli.markdown import render_markdown
from padlite.cli.palette import dimension_style
from padlite.cli.render import WIDEST, visible
from padlite.cli.screen import Screen
from padlite.cli.settable import default_values
from padlite.options import DecodingOptions, OverflowPolicy
from padlite.session import Answer
from padlite.store import SessionInfo
from padlite.template import Message

KEYS = (
    ("Enter", "send"),
    ("Alt-Enter", "a new line (so does Enter behind a backslash)"),
    ("Ctrl-G", "write in $EDITOR"),
    ("Ctrl-R", "search what you typed before"),
    ("Ctrl-C", "stop the answer; at the prompt, clear the line"),
    ("Ctrl-D", "leave"),
    ("//text", "send a message that begins with a slash"),
)
PROMPT = "› "
_HALF = 10


def weights_table(weights: Mapping[str, float], strength: float, width: int) -> RenderableType:
    """Return the weights with bars around zero; one cell is a tenth."""
    table = Table.grid(padding=(0, 2))
    for place, (name, weight) in enumerate(weights.items()):
        row = [Text(name), Text(f"{weight:+.2f}" if weight else "0", "bold" if weight else "dim", justify="right")]
        table.add_row(*row, *([_bar(weight, place)] if width >= 50 else []))
    example = next(iter(weights))
    return Group(table, Text(f"strength {strength:g} (/set strength=…) · change: /weights {example}=0.5", "dim"))


def _bar(weight: float, place: int) -> Text:
    size = min(round(abs(weight) * _HALF), _HALF)
    beyond = abs(weight) > 1
    left = ("◂" if beyond else "") + "█" * (size - beyond) if weight < 0 else ""
    right = "█" * (size - beyond) + ("▸" if beyond else "") if weight > 0 else ""
    style = dimension_style(place)
    return Text.assemble(("·" * (_HALF - len(left)), "dim"), (left, style), ("│", "dim"), (right, style),
                         ("·" * (_HALF - len(right)), "dim"))  # fmt: skip


def options_table(values: Mapping[str, str], defaults: DecodingOptions) -> RenderableType:
    """Return the decoding options; those that differ from the model's own stand out."""
    usual = default_values(defaults)
    table = Table.grid(padding=(0, 2))
    for name, value in values.items():
        changed = value != usual[name]
        note = f"(default {usual[name]})" if changed else ""
        table.add_row(name, Text(value, "bold" if changed else ""), Text(note, "dim"))
    return table


def stats_table(answer: Answer) -> RenderableType:
    """Return the speed and the counts of *answer*."""
    usage, timings = answer.usage, answer.timings
    reused = usage.prompt_tokens - usage.evaluated_tokens
    table = Table.grid(padding=(0, 2))
    table.add_row("answer", f"{usage.completion_tokens:,} tokens, ended by {answer.finish_reason.value}")
    table.add_row("speed", f"{timings.tokens_per_s:,.1f} tokens/s, first after {timings.first_token_s:.2f} s")
    evaluated = f"{usage.evaluated_tokens:,} evaluated, {reused:,} remembered"
    table.add_row("prompt", f"{usage.prompt_tokens:,} tokens, {evaluated}")
    table.add_row("profile", f"changed {answer.changed:,} of {usage.completion_tokens:,} tokens (/why)")
    if answer.fallbacks:
        table.add_row("fallbacks", f"{answer.fallbacks:,} tokens where the rewards were not finite")
    if answer.seed is not None:
        table.add_row("seed", str(answer.seed))
    return table


def context_lines(chat: Conversation, width: int) -> RenderableType:
    """Return how full the context is."""
    used, length = chat.session.context_used, chat.session.context_length
    share = min(used / length, 1.0)
    cells = max(min(width - 4, 50), 10)
    filled = round(share * cells)
    color = "red" if share > 0.9 else "yellow" if share > 0.7 else "green"
    turns = sum(message.role == "user" for message in chat.session.messages)
    drops = chat.session.overflow is OverflowPolicy.DROP_OLDEST
    when_full = "the oldest turns are dropped, visibly" if drops else "the chat stops and says so"
    return Group(
        Text.assemble(("█" * filled, color), ("░" * (cells - filled), "dim")),
        Text(f"{used:,} of {length:,} tokens ({share:.0%}) in {turns} turn{'' if turns == 1 else 's'}"),
        Text(f"When it is full, {when_full} (/set overflow={'stop' if drops else 'drop-oldest'} changes that).", "dim"),
    )


def profile_lines(chat: Conversation) -> RenderableType:
    """Return which profile the chat follows, and what it says."""
    profile = chat.profile
    table = Table.grid(padding=(0, 2))
    table.add_row("profile", visible(profile.name) or "none")
    if profile.source:
        table.add_row("file", visible(str(profile.source)))
    table.add_row("model", visible(chat.model_name))
    active = {name: weight for name, weight in chat.session.weights.items() if weight}
    table.add_row("weights", ", ".join(f"{name} {weight:+g}" for name, weight in active.items()) or "none")
    if chat.session.system:
        table.add_row("system", Text(visible(chat.session.system)))
    return table


def sessions_table(sessions: Sequence[SessionInfo]) -> RenderableType:
    """Return the kept conversations, newest first."""
    if not sessions:
        return Text("No conversations are kept.", "dim")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("name", "changed", "messages", "begins"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "messages" else "left")
    for info in sessions[:20]:
        when = datetime.fromtimestamp(info.updated).astimezone().strftime("%d %b %H:%M")
        title = Text(visible(info.title), "dim", overflow="ellipsis")
        table.add_row(visible(info.name), when, str(info.messages), title)
    more = [Text(f"… and {len(sessions) - 20} more: padlite sessions list", "dim")] if len(sessions) > 20 else []
    return Group(table, *more, Text("/load NAME goes on with one", "dim"))


def show_turns(screen: Screen, messages: Sequence[Message], *, turns: int) -> None:
    """Print the last *turns* exchanges as they looked."""
    starts = [at for at, message in enumerate(messages) if message.role == "user"]
    first = starts[-turns] if turns <= len(starts) else 0
    if first:
        screen.note(f"… {len(starts) - turns} earlier turns (/history all)")
    for message in messages[first:]:
        if message.role == "user":
            screen.show(Text(PROMPT + visible(message.content), "bold"), Text())
        else:
            lines = render_markdown(visible(message.content), min(screen.notes.width - 1, WIDEST), screen.notes)
            screen.show(*lines, Text())
