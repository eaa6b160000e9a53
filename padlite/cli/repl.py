"""The chat on a terminal: read a line, run it or answer it, until the person leaves.

Knows the order of things; how lines are read (`Reader`), rendered and recorded is others' business.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from padlite import __version__
from padlite.cli.commands import COMMANDS
from padlite.cli.conversation import Conversation
from padlite.cli.displays import show_turns
from padlite.cli.interrupts import silent_typing
from padlite.cli.render import AnswerWriter, answer_writer
from padlite.cli.screen import Screen
from padlite.cli.slash import is_command, message_text, parse
from padlite.cli.status import Status, status_line
from padlite.cli.waiting import waiting
from padlite.errors import ContextFullError, PadliteError
from padlite.session import Answer, Event, FinishReason

_READING = "reading …"


class Reader(Protocol):
    """Gives what the person types."""

    def read(self, typed: str = "") -> str:
        """Return the next line; *typed* is in it already. Raises EOFError at the end."""
        ...


class Repl:
    """One chat on one terminal."""

    def __init__(self, chat: Conversation, screen: Screen) -> None:
        self._chat, self._screen = chat, screen
        self._used: tuple[object, int] | None = None

    def run(self, reader: Reader) -> None:
        """Chat until the person leaves. Raises SystemExit when a signal ends the process."""
        self._welcome()
        typed = ""
        while True:
            try:
                line = reader.read(typed)
            except EOFError:
                break
            finally:
                if self._chat.interrupts.ending is not None:
                    self._chat.interrupts.raise_pending()
            typed = ""
            if not line.strip():
                continue
            try:
                typed, leaving = self._handle(line)
            except KeyboardInterrupt:
                continue
            if leaving:
                break
        self._farewell()

    def status(self, width: int) -> str:
        """Return the line below the prompt."""
        session, last = self._chat.session, self._chat.session.last
        return status_line(
            Status(
                model=self._chat.model_name,
                profile=self._chat.profile.name,
                weights=session.weights,
                strength=session.options.strength,
                used=self._context_used(),
                length=session.context_length,
                tokens_per_s=last.timings.tokens_per_s if last else 0.0,
                changed=last.changed if last else 0,
                saved=self._chat.recorder.keeping,
            ),
            width,
        )

    def _context_used(self) -> int:
        """Return the tokens in use; counted anew only when the conversation has changed."""
        session = self._chat.session
        state = (session.messages, session.system)
        if self._used is None or self._used[0] != state:
            self._used = (state, session.context_used)
        return self._used[1]

    def _handle(self, line: str) -> tuple[str, bool]:
        """Run or answer *line*; return what to put into the next line, and whether to leave."""
        try:
            if not is_command(line):
                return self._answer(self._chat.session.say(message_text(line)), line), False
            call = parse(line, COMMANDS)
            outcome = call.command.run(self._chat, self._screen, call.argument)
            if outcome is None:
                return "", False
            if outcome.events is not None:
                return self._answer(outcome.events, line, replaced=outcome.replaced), False
        except ContextFullError as error:
            self._screen.error(error)
            self._screen.note("/undo, /clear or /set overflow=drop-oldest makes room; your text is in the line again.")
            return line, False
        except PadliteError as error:
            self._screen.error(error)
            return "", False
        return outcome.typed, outcome.leave

    def _answer(self, events: Iterator[Event], line: str, *, replaced: str | None = None) -> str:
        """Show the answer; return *line* if it was stopped before its first word."""
        writer = answer_writer(self._screen.answers)
        self._screen.answers.file.flush()
        with silent_typing(), waiting(self._screen.notes.file, _READING) as stop_waiting:
            listener = _Shown(writer, self._screen, stop_waiting)
            listener.gap()
            try:
                answer = self._chat.turn(events, listener)
            finally:
                stop_waiting()
                with contextlib.suppress(OSError):
                    writer.close()
        self._remark(answer, replaced)
        if self._chat.interrupts.ending is not None:
            self._chat.interrupts.raise_pending()
        self._screen.show()
        return line if answer.finish_reason is FinishReason.CANCELLED and not answer.trace else ""

    def _remark(self, answer: Answer, replaced: str | None) -> None:
        """Say what the answer itself doesn't show."""
        limit = self._chat.session.options.max_tokens
        remarks = {
            FinishReason.CANCELLED: "(stopped)",
            FinishReason.LENGTH: f"(stopped after {limit} tokens; /set max_tokens=0 lifts the limit)",
            FinishReason.CONTEXT: "(stopped: the context is full; /undo, /clear or /set overflow=drop-oldest)",
            FinishReason.STOP: "" if answer.text.strip() else "(the model said nothing)",
        }
        if remark := remarks[answer.finish_reason]:
            self._screen.note(remark)
        if answer.text == replaced:
            sampled = self._chat.session.options.temperature > 0
            self._screen.note(
                f"(the same answer again; /set {'seed=none' if sampled else 'temperature=0.8'} varies it)"
            )
        if answer.fallbacks:
            self._screen.warn(fallback_line(answer.fallbacks))

    def _welcome(self) -> None:
        chat = self._chat
        named = f", following {chat.profile.name}" if chat.profile.name else ""
        self._screen.note(f"padlite {__version__}: {chat.model_name}{named}. /help shows the commands, Ctrl-D leaves.")
        messages = chat.session.messages
        if messages:
            self._screen.note(f"Going on with {chat.recorder.name!r} ({len(messages)} messages).")
            self._screen.show()
            show_turns(self._screen, messages, turns=1)
        else:
            self._screen.show()

    def _farewell(self) -> None:
        chat = self._chat
        if chat.recorder.keeping and chat.session.messages and chat.recorder.name:
            self._screen.note(f"Kept as {chat.recorder.name!r}. Go on with: padlite chat --continue")


class _Shown:
    """Passes a turn on to the screen."""

    def __init__(self, writer: AnswerWriter, screen: Screen, stop_waiting: Callable[[], None]) -> None:
        self._writer, self._screen, self._stop_waiting = writer, screen, stop_waiting

    def gap(self) -> None:
        """Leave a line between what was typed and the answer."""
        if self._screen.answers.is_terminal:
            self._screen.show()

    def text(self, text: str) -> None:
        """Show more of the answer."""
        if text:
            self._stop_waiting()
            self._writer.write(text)

    def dropped(self, turns: int) -> None:
        """Say that the oldest turns were left out."""
        self._stop_waiting()
        self._screen.warn(dropped_line(turns))


def fallback_line(count: int) -> str:
    """Return what is said when at *count* tokens the rewards couldn't be used."""
    return f"The rewards were not finite at {count} token(s), so the base model decided there."


def dropped_line(turns: int) -> str:
    """Return what is said when the oldest *turns* no longer fit the context."""
    what = "the oldest turn was" if turns == 1 else f"the oldest {turns} turns were"
    return f"The context is full: {what} left out of it."
