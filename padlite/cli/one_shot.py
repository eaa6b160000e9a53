"""One question, one answer, for pipes and scripts: the answer goes to stdout, everything else to stderr.

Knows what JSON looks like and what the exit code is; the rest is `Conversation`'s.
"""

import json
import sys
from collections.abc import Callable
from typing import TypeAlias

from padlite.cli.asked import Output
from padlite.cli.conversation import Conversation
from padlite.cli.render import AnswerWriter, answer_writer
from padlite.cli.repl import dropped_line, fallback_line
from padlite.cli.screen import Screen
from padlite.cli.waiting import waiting
from padlite.errors import ContextFullError
from padlite.session import Answer, FinishReason, Session, Token

INTERRUPTED = 130
Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


def answer_once(chat: Conversation, screen: Screen, prompt: str, output: Output) -> int:
    """Write the answer to *prompt* and return the exit code."""
    writer = answer_writer(screen.answers)
    with waiting(screen.notes.file, "reading …") as stop_waiting:
        listener = _Listener(writer if output.stream and not output.json else None, screen, stop_waiting)
        try:
            answer = chat.turn(chat.session.say(prompt), listener)
        finally:
            stop_waiting()
            listener.close()
    if output.json:
        record = as_json(answer, chat, trace=output.trace)
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    elif not output.stream:
        writer.write(answer.text)
        writer.close()
    return _exit_code(answer, chat, screen)


def as_json(answer: Answer, chat: Conversation, *, trace: bool) -> Json:
    """Return what `--json` prints for *answer*; times in seconds, log-probabilities in nats."""
    usage, timings = answer.usage, answer.timings
    record: dict[str, Json] = {
        "text": answer.text,
        "finish_reason": answer.finish_reason.value,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "evaluated_tokens": usage.evaluated_tokens,
            "completion_tokens": usage.completion_tokens,
        },
        "timings": {
            "first_token_s": round(timings.first_token_s, 6),
            "decode_s": round(timings.decode_s, 6),
            "tokens_per_s": round(timings.tokens_per_s, 3),
        },
        "model": chat.model_name,
        "profile": chat.profile.name or None,
        "session": chat.recorder.name if chat.recorder.keeping else None,
        "seed": answer.seed,
        "weights": {name: round(weight, 6) for name, weight in chat.session.weights.items()},
        "strength": chat.session.options.strength,
        "changed_tokens": answer.changed,
        "fallbacks": answer.fallbacks,
    }
    if trace:
        record["trace"] = [_token_json(token, chat.session) for token in answer.trace]
    return record


def _token_json(token: Token, session: Session) -> Json:
    trace = token.trace
    names = [dimension.name for dimension in session.dimensions]
    contributions = trace.contributions
    candidates: list[Json] = [
        {
            "id": int(candidate),
            "text": session.describe_token(int(candidate)),
            "base_logprob": round(float(trace.base_scores[index]), 6),
            "contributions": {name: round(float(contributions[index, place]), 6) for place, name in enumerate(names)},
        }
        for index, candidate in enumerate(trace.candidates)
    ]
    strongest = trace.strongest_dimension
    return {
        "id": token.id,
        "text": token.text,
        "changed": trace.changed,
        "changed_by": None if strongest is None else names[strongest],
        "chosen": trace.chosen,
        "base_choice": trace.base_choice,
        "fallback": trace.fallback,
        "candidates": candidates,
    }


def _exit_code(answer: Answer, chat: Conversation, screen: Screen) -> int:
    if answer.fallbacks:
        screen.warn(fallback_line(answer.fallbacks))
    if answer.finish_reason is FinishReason.CANCELLED:
        chat.interrupts.raise_pending()
        return INTERRUPTED
    if answer.finish_reason is FinishReason.CONTEXT:
        screen.warn("The answer is cut off: the context is full.")
        return ContextFullError.exit_code
    return 0


class _Listener:
    """Writes an answer as it comes (to *writer*, if there is one)."""

    def __init__(self, writer: AnswerWriter | None, screen: Screen, stop_waiting: Callable[[], None]) -> None:
        self._writer, self._screen, self._stop_waiting = writer, screen, stop_waiting

    def text(self, text: str) -> None:
        """Show more of the answer."""
        if text and self._writer is not None:
            self._stop_waiting()
            self._writer.write(text)

    def dropped(self, turns: int) -> None:
        """Say that the oldest turns were left out."""
        self._stop_waiting()
        self._screen.warn(dropped_line(turns))

    def close(self) -> None:
        """End the last line."""
        if self._writer is not None:
            self._writer.close()
