"""A model's chat template: messages in, prompt text out, with the place of every message's own words kept.

Templates come with the model file, so they run in Jinja's immutable sandbox, without attribute access to internals,
with limits on time and size, and with a pinned date. Knows nothing of tokens.
"""

import ctypes
import datetime
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from padlite.errors import BackendError
from padlite.seams import Message

__all__ = ["RENDER_LIMIT_S", "ChatTemplate", "Message", "Segment"]

RENDER_LIMIT_S = 2.0
_MAX_SOURCE = 1 << 20  # characters; the longest templates in use have about 20,000
_MAX_REPEAT = 1 << 20  # largest string or list that `*` may make
_OPEN, _CLOSE = "\ue0f2\ue0f0", "\ue0f0\ue0f2"  # private-use marks around a message's words while rendering
_THINK_END = "</think>"  # where templates cut answers
_UNBOUNDED_FILTERS = ("center", "format", "wordwrap", "batch", "slice")
_PADDING_METHODS = frozenset({"ljust", "rjust", "center", "zfill", "expandtabs", "format", "format_map"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of a prompt: scaffolding of the template (*message* None) or the words of ``messages[message]``."""

    text: str
    message: int | None


class ChatTemplate:
    """A compiled chat template.

    Raises BackendError when the source can't be compiled.
    """

    def __init__(self, source: str, *, beginning: str = "", end: str = "", today: datetime.date | None = None) -> None:
        if len(source) > _MAX_SOURCE:
            raise BackendError(
                f"the model's chat template has {len(source):,} characters", remedy="use another model file"
            )
        self._variables = {"bos_token": beginning, "eos_token": end}
        self._today = today or datetime.date.today()
        environment = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        for name in _UNBOUNDED_FILTERS:
            environment.filters.pop(name, None)
        environment.globals.pop("lipsum", None)
        functions = cast("dict[str, object]", environment.globals)  # type: ignore[redundant-cast]
        functions.update(raise_exception=_raise_exception, strftime_now=self._today.strftime)
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError, ValueError) as error:
            raise BackendError(
                f"the model's chat template can't be read: {_one_line(error)}", remedy="use another model file"
            ) from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[Segment]:
        """Return the prompt of *messages* as segments; their texts joined are the prompt.

        Raises BackendError when the template fails, refuses the messages, or takes longer than `RENDER_LIMIT_S`.
        """
        marked = [{"role": turn.role, "content": f"{_OPEN}{_unmarked(turn.content)}{_CLOSE}"} for turn in messages]
        text = _within_time_limit(
            lambda: self._template.render(
                messages=marked, add_generation_prompt=add_generation_prompt, tools=None, **self._variables
            )
        )
        return _split(text, [_unmarked(turn.content) for turn in messages])


def _split(text: str, contents: Sequence[str]) -> list[Segment]:
    """Cut *text* at the marks; a template may leave out, repeat or cut messages, so stretches are matched in order."""
    segments: list[Segment] = []
    position, expected = 0, 0
    while (stretch := _next_words(text, position, contents)) is not None:
        start, words, after = stretch
        owner = next((i for i in range(expected, len(contents)) if contents[i] == words), None)
        expected = expected if owner is None else owner + 1
        segments.append(Segment(text=_unmarked(text[position:start]), message=None))
        segments.append(Segment(text=words, message=-1 if owner is None else owner))
        position = after
    segments.append(Segment(text=_unmarked(text[position:]), message=None))
    return [segment for segment in segments if segment.text]


def _next_words(text: str, position: int, contents: Sequence[str]) -> tuple[int, str, int] | None:
    """Return where the next message's words start, the words, and where the text goes on; None if no more come.

    A template that splits an answer (at ``</think>``) loses one of its two marks; then the words are as much of a
    message as stands at the mark that is left.
    """
    opening, closing = text.find(_OPEN, position), text.find(_CLOSE, position)
    if opening < 0 and closing < 0:
        return None
    if opening < 0 or 0 <= closing < opening:
        before = text[position:closing]
        size = max(_shared(before[::-1], content[::-1], _THINK_END[::-1]) for content in contents)
        return closing - size, before[len(before) - size :], closing + len(_CLOSE)
    begin = opening + len(_OPEN)
    following = text.find(_OPEN, begin)
    if closing >= 0 and (following < 0 or closing < following):
        return opening, text[begin:closing], closing + len(_CLOSE)
    size = max(_shared(text[begin:], content, _THINK_END) for content in contents)
    return opening, text[begin : begin + size], begin + size


def _shared(text: str, content: str, cut: str) -> int:
    """Return how many first characters of *content* begin *text*, up to the first *cut* in it if they reach that."""
    same = next(
        (i for i, (a, b) in enumerate(zip(text, content, strict=False)) if a != b), min(len(text), len(content))
    )
    at = content.find(cut)
    return at if 0 <= at <= same else same


def _unmarked(text: str) -> str:
    return text.replace(_OPEN, "").replace(_CLOSE, "")


class _TooLong(Exception):
    """Raised inside a rendering thread that has used up its time."""


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, with the operations refused that make something huge in one step."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: object, right: object) -> object:
        sized = isinstance(left, str | bytes | list | tuple) or isinstance(right, str | bytes | list | tuple)
        if operator == "**" or (operator == "%" and sized):
            raise jinja2.exceptions.SecurityError(f"the operator {operator} is not allowed here")
        if operator == "*" and sized and not _repeats_little(left, right):
            raise jinja2.exceptions.SecurityError("a repetition makes too large a text")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        return attr not in _PADDING_METHODS and super().is_safe_attribute(obj, attr, value)


def _repeats_little(left: object, right: object) -> bool:
    sized, times = (left, right) if isinstance(left, str | bytes | list | tuple) else (right, left)
    return (
        isinstance(sized, str | bytes | list | tuple) and isinstance(times, int) and len(sized) * times <= _MAX_REPEAT
    )


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, by which templates mark the answer for training: just its content."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=min(indent, 16) if indent else None)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _one_line(error: BaseException) -> str:
    return " ".join(_unmarked(str(error)).split())[:200] or type(error).__name__


def _within_time_limit(render: Callable[[], str]) -> str:
    """Return what *render* returns, or raise BackendError; a template that loops is stopped after the time limit.

    It runs in a thread of its own, because only another thread's exception can end a loop on every platform.
    """
    outcome: list[str] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(render())
        except BaseException as error:  # noqa: BLE001 - whatever a hostile template raises belongs to the caller
            failure.append(error)

    thread = threading.Thread(target=run, name="padlite-template", daemon=True)
    thread.start()
    thread.join(RENDER_LIMIT_S)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_TooLong))
        thread.join(RENDER_LIMIT_S)
        raise BackendError(
            f"the model's chat template ran for more than {RENDER_LIMIT_S:g} seconds", remedy="use another model file"
        )
    if failure:
        raise BackendError(
            f"the model's chat template failed: {_one_line(failure[0])}",
            remedy="use another model; if it refuses a system message, remove system and about from the profile",
        ) from failure[0]
    return outcome[0]
