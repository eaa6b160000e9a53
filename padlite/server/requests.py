"""Reads the body of a chat completion strictly: what isn't supported and would change the answer is refused.

Knows OpenAI's fields and padlite's own; knows no model. Errors name fields, never their contents.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, cast

from padlite.errors import PadliteError, did_you_mean
from padlite.options import LARGEST_WEIGHT
from padlite.profile import Decoding
from padlite.seams import Message
from padlite.server.failures import ApiError
from padlite.server.schemas import grammar_for

MOST_CHOICES = 16
MOST_STOPS = 16
LONGEST_STOP = 1000  # characters
MOST_LOGPROBS = 20
_FIELDS = (
    "model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "n", "stream",
    "stream_options", "logprobs", "top_logprobs", "frequency_penalty", "presence_penalty", "logit_bias",
    "response_format", "padlite",
)  # fmt: skip
_WITHOUT_EFFECT = (
    "user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prediction",
    "parallel_tool_calls",
)  # fmt: skip
_EMPTY_ONLY: Mapping[str, tuple[object, ...]] = {  # fields that padlite can't follow, and the values that ask nothing
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "reasoning_effort": (),
    "verbosity": ("medium",),
    "web_search_options": (),
    "store": (False,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What a client asks for; None means: as the profile or the model has it."""

    model: str
    messages: tuple[Message, ...]
    system: tuple[str, ...]
    decoding: Decoding
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: str = ""
    choices: int = 1
    stream: bool = False
    with_usage: bool = False
    logprobs: int | None = None
    profile: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    trace: bool = False


def read_request(body: bytes) -> ChatRequest:
    """Return what *body* asks for. Raises ApiError, a 400 that names the field."""
    return _Reader(_parsed(body)).request()


def _parsed(body: bytes) -> Mapping[str, object]:
    try:
        value: object = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not UTF-8", code="invalid_utf8") from None
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not valid JSON", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    return cast("dict[str, object]", value)


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _refuse(name: str, problem: str, code: str | None = None) -> ApiError:
    return ApiError(400, f"{name} {problem}", parameter=name, code=code)


class _Reader:
    """Reads one body, field by field; null is the same as absent."""

    def __init__(self, body: Mapping[str, object], prefix: str = "") -> None:
        self._body = {name: value for name, value in body.items() if value is not None}
        self._prefix = prefix

    def request(self) -> ChatRequest:
        self._refuse_unknown()
        system, messages = self._messages()
        own = self._own()
        own._only("profile", "weights", "strength", "trace", "candidates")
        stream_options = self._section("stream_options")
        stream_options._only("include_usage", "include_obfuscation")
        stream = self._flag("stream")
        if stream_options._body and not stream:
            raise _refuse("stream_options", "is only for stream=true")
        return ChatRequest(
            model=self._text("model", required=True) or "",
            messages=messages,
            system=system,
            decoding=self._decoding(own),
            frequency_penalty=self._number("frequency_penalty", -2, 2) or 0.0,
            presence_penalty=self._number("presence_penalty", -2, 2) or 0.0,
            logit_bias=self._logit_bias(),
            grammar=self._grammar(),
            choices=self._whole("n", 1, MOST_CHOICES) or 1,
            stream=stream,
            with_usage=stream_options._flag("include_usage"),
            logprobs=self._logprobs(),
            profile=own._text("profile"),
            weights=own._weights(),
            trace=own._flag("trace"),
        )

    def _refuse_unknown(self) -> None:
        known = (*_FIELDS, *_WITHOUT_EFFECT, *_EMPTY_ONLY)
        for name, value in self._body.items():
            if name not in known:
                shown = name[:40].encode("ascii", "replace").decode()
                raise ApiError(400, f"unknown field {shown!r}{did_you_mean(name[:40], known)}", code="unknown_field")
            if name in _EMPTY_ONLY and value not in _EMPTY_ONLY[name]:
                raise _refuse(name, "is not supported", "unsupported_parameter")

    def _only(self, *known: str) -> None:
        for name in self._body:
            if name not in known:
                shown = name[:40].encode("ascii", "replace").decode()
                field_name = self._prefix.rstrip(".")
                raise ApiError(
                    400, f"unknown field {shown!r} in {field_name}{did_you_mean(name[:40], known)}",
                    parameter=field_name, code="unknown_field",
                )  # fmt: skip

    def _section(self, name: str) -> "_Reader":
        value = self._body.get(name, {})
        if not isinstance(value, dict):
            raise _refuse(self._prefix + name, "must be an object")
        return _Reader(cast("dict[str, object]", value), f"{self._prefix}{name}.")

    def _own(self) -> "_Reader":
        return self._section("padlite")

    def _text(self, name: str, *, required: bool = False) -> str | None:
        value = self._body.get(name)
        if value is None and not required:
            return None
        if not isinstance(value, str) or not value:
            raise _refuse(self._prefix + name, "must be a text that isn't empty" if value is not None else "is missing")
        return value

    def _flag(self, name: str) -> bool:
        value = self._body.get(name, False)
        if not isinstance(value, bool):
            raise _refuse(self._prefix + name, "must be true or false")
        return value

    def _number(self, name: str, low: float, high: float) -> float | None:
        value = self._body.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _refuse(self._prefix + name, f"must be a number from {low:g} to {high:g}")
        return float(value)

    def _whole(self, name: str, low: int, high: int) -> int | None:
        value = self._body.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _refuse(self._prefix + name, f"must be a whole number from {low} to {high}")
        return value

    def _decoding(self, own: "_Reader") -> Decoding:
        decoding: Decoding = {}
        temperature, top_p = self._number("temperature", 0, 2), self._number("top_p", 0, 1)
        strength, candidates = own._number("strength", -100, 100), own._whole("candidates", 1, 1000)
        seed = self._whole("seed", -(2**63), 2**64 - 1)
        if temperature is not None:
            decoding["temperature"] = temperature
        if top_p is not None:
            decoding["top_p"] = top_p
        if strength is not None:
            decoding["strength"] = strength
        if candidates is not None:
            decoding["candidates"] = candidates
        if seed is not None:
            decoding["seed"] = seed % 2**64
        limit = self._limit()
        if limit is not None:
            decoding["max_tokens"] = limit
        stop = self._stop()
        if stop is not None:
            decoding["stop"] = stop
        return decoding

    def _limit(self) -> int | None:
        old, new = (self._whole(name, 1, 10**9) for name in ("max_tokens", "max_completion_tokens"))
        if old is not None and new is not None and old != new:
            raise _refuse("max_tokens", "and max_completion_tokens say different things")
        return new if new is not None else old

    def _stop(self) -> tuple[str, ...] | None:
        value = self._body.get("stop")
        if value is None:
            return None
        texts: list[object] = [value] if isinstance(value, str) else cast("list[object]", value)
        if not isinstance(texts, list) or len(texts) > MOST_STOPS:
            raise _refuse("stop", f"must be a text or a list of at most {MOST_STOPS} texts")
        if not all(isinstance(text, str) and 0 < len(text) <= LONGEST_STOP for text in texts):
            raise _refuse("stop", f"must hold texts of 1 to {LONGEST_STOP} characters")
        return tuple(cast("list[str]", texts))

    def _logprobs(self) -> int | None:
        wanted = self._flag("logprobs")
        top = self._whole("top_logprobs", 0, MOST_LOGPROBS)
        if top is not None and not wanted:
            raise _refuse("top_logprobs", "needs logprobs=true")
        return (top or 0) if wanted else None

    def _logit_bias(self) -> tuple[tuple[int, float], ...]:
        bias: list[tuple[int, float]] = []
        for name, value in self._section("logit_bias")._body.items():
            if not (name.isascii() and name.isdigit() and len(name) < 10):
                raise _refuse("logit_bias", "must map token ids to numbers")
            if isinstance(value, bool) or not isinstance(value, int | float) or not -100 <= value <= 100:
                raise _refuse("logit_bias", "must map token ids to numbers from -100 to 100")
            bias.append((int(name), float(value)))
        return tuple(bias)

    def _weights(self) -> dict[str, float]:
        weights: dict[str, float] = {}
        for name, value in self._section("weights")._body.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(cast("float", value)) or abs(cast("float", value)) > LARGEST_WEIGHT:
                raise _refuse("padlite.weights", f"must hold numbers from -{LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}")
            weights[name] = float(cast("float", value))
        return weights

    def _grammar(self) -> str:
        wanted = self._section("response_format")
        if not wanted._body:
            return ""
        try:
            return grammar_for(wanted._body)
        except PadliteError as error:
            raise ApiError(400, f"response_format: {error.message}", parameter="response_format") from error

    def _messages(self) -> tuple[tuple[str, ...], tuple[Message, ...]]:
        """Return the system messages at the beginning, and the conversation after them."""
        value = self._body.get("messages")
        if not isinstance(value, list) or not value:
            raise _refuse("messages", "must be a list with at least one message")
        every = [_message(each, number) for number, each in enumerate(cast("list[object]", value))]
        first = next((at for at, message in enumerate(every) if message.role != "system"), len(every))
        if every[-1].role != "user":
            raise _refuse("messages", "must end with what the user said")
        if not every[-1].content.strip():
            raise _refuse("messages", "end with an empty text: there is nothing to answer")
        return tuple(message.content for message in every[:first]), tuple(every[first:])


def _message(value: object, number: int) -> Message:
    where = f"messages[{number}]"
    if not isinstance(value, dict):
        raise _refuse(where, "must be an object")
    message = {name: each for name, each in cast("dict[str, object]", value).items() if each is not None}
    role = message.get("role")
    if role not in ("system", "developer", "user", "assistant"):
        known = "system, developer, user or assistant"
        raise _refuse(f"{where}.role", f"must be {known}; tools are not supported")
    for name, each in message.items():
        if name not in ("role", "content") and not (name in ("refusal", "annotations", "tool_calls") and not each):
            raise ApiError(
                400, f"{where} has a field that is not supported; a message has role and content",
                parameter=where, code="unsupported_parameter",
            )  # fmt: skip
    content = _content(message.get("content"), where)
    return Message(role="system" if role == "developer" else role, content=content)


def _content(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise _refuse(f"{where}.content", "must be a text")
    texts: list[str] = []
    for part in cast("Sequence[object]", value):
        match part:
            case {"type": "text", "text": str(text)} if len(cast("dict[str, object]", part)) == 2:
                texts.append(text)
            case _:
                raise _refuse(f"{where}.content", "may hold text parts only", "unsupported_parameter")
    return "".join(texts)
