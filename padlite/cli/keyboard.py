"""The prompt of the chat: prompt_toolkit with the person's history, keys, completion and the status line.

The line stands right below the text, so no question to the terminal is needed (terminals that can't answer one would
get a warning). Knows commands by their names and what they complete; runs none of them.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app, run_in_terminal
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input.defaults import create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style

from padlite import settings
from padlite.cli.displays import PROMPT
from padlite.cli.editor import edit_text
from padlite.cli.interrupts import Interrupts
from padlite.cli.slash import Command
from padlite.errors import PadliteError
from padlite.private_files import FILE_MODE, make_private_folder

HINT = "Ctrl-D leaves"
_STYLE = Style.from_dict(
    {
        "prompt": "bold ansicyan",
        "bottom-toolbar": "noreverse ansibrightblack",
        "bottom-toolbar.hint": "noreverse bold",
        "completion-menu": "noreverse bg:default",
        "completion-menu.completion": "noreverse bg:default",
        "completion-menu.completion.current": "reverse",
        "completion-menu.meta.completion": "bg:default ansibrightblack",
        "completion-menu.meta.completion.current": "reverse",
        "scrollbar.background": "bg:default",
        "scrollbar.button": "bg:ansibrightblack",
        "auto-suggestion": "ansibrightblack",
    }
)
_MENU_ROWS = 7

Words = Callable[[Command], Iterable[tuple[str, str]]]


class Keyboard:
    """Reads what the person types.

    *status* gives the line below the prompt for a width, *words* what a command's argument may be. History goes to the
    file *history*, or nowhere if that is None or can't be written.
    """

    def __init__(
        self,
        *,
        commands: Sequence[Command],
        words: Words,
        status: Callable[[int], str],
        history: Path | None,
        interrupts: Interrupts,
        color: bool,
    ) -> None:
        self._status = status
        self._interrupts = interrupts
        self._hint = ""
        self._session: PromptSession[str] = PromptSession(
            message=PROMPT,
            multiline=True,
            prompt_continuation=" " * len(PROMPT),
            history=private_history(history),
            completer=CommandCompleter(commands, words),
            complete_while_typing=Condition(_typing_command),
            auto_suggest=AutoSuggestFromHistory(),
            key_bindings=self._keys(),
            bottom_toolbar=self._toolbar,
            style=_STYLE,
            include_default_pygments_style=False,
            reserve_space_for_menu=_MENU_ROWS,
            editing_mode=EditingMode.EMACS,
            enable_history_search=False,
            color_depth=None if color else ColorDepth.DEPTH_1_BIT,
            input=create_input(always_prefer_tty=True),
            output=output_below(sys.stdout if sys.stdout.isatty() else sys.stderr),
        )

    def read(self, typed: str = "") -> str:
        """Return the next message or command; *typed* is in the line already. Raises EOFError for Ctrl-D."""
        self._hint = ""
        with self._interrupts.stopping(self._leave):
            text = self._session.prompt(default=typed)
        return text.encode("utf-8", "replace").decode("utf-8")  # bytes that were no UTF-8 came in as lone surrogates

    def _leave(self) -> None:
        """End the prompt from a signal handler (SIGTERM, SIGHUP)."""
        app = self._session.app
        loop = app.loop
        if loop is not None and app.is_running:
            loop.call_soon_threadsafe(lambda: app.exit(exception=EOFError()) if app.is_running else None)

    def _toolbar(self) -> StyleAndTextTuples:
        width = get_app().output.get_size().columns
        hint: StyleAndTextTuples = [("class:bottom-toolbar.hint", f"{self._hint}  ")] if self._hint else []
        used = len(self._hint) + 2 if self._hint else 0
        return [*hint, ("", self._status(max(width - 1 - used, 0)))]

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter")
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.document.text_before_cursor.endswith("\\") and not buffer.document.text_after_cursor:
                buffer.delete_before_cursor()
                buffer.newline(copy_margin=False)
            elif buffer.text.strip():
                buffer.validate_and_handle()

        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        @keys.add("c-g")
        def _(event: KeyPressEvent) -> None:
            run_in_terminal(lambda: self._edit(event))

        @keys.add("c-c")
        @keys.add(Keys.SIGINT)
        def _(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.reset()
                self._hint = ""
            else:
                self._hint = HINT

        @keys.add("c-d", filter=Condition(lambda: not get_app().current_buffer.text))
        def _(event: KeyPressEvent) -> None:
            event.app.exit(exception=EOFError())

        return keys

    def _edit(self, event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        try:
            text = edit_text(buffer.text)
        except PadliteError as error:
            self._hint = error.message
            return
        buffer.document = Document(text, len(text))


class CommandCompleter(Completer):
    """Completes the names of commands and, behind one, what it takes."""

    def __init__(self, commands: Sequence[Command], words: Words) -> None:
        self._commands = commands
        self._words = words

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what can stand where the cursor is."""
        line = document.text_before_cursor
        if not line.startswith("/") or line.startswith("//") or "\n" in line:
            return
        name, space, argument = line[1:].partition(" ")
        if not space:
            for command in self._commands:
                if command.name.startswith(name):
                    yield _completion(command.name, command.summary, name, takes=bool(command.complete))
            return
        called = next((c for c in self._commands if name in {c.name, *c.aliases}), None)
        begun = argument.rpartition(" ")[2]
        for word, meaning in self._words(called) if called is not None else ():
            if word.startswith(begun) and word != begun:
                yield _completion(word, meaning, begun, takes=False)


def _completion(word: str, meaning: str, begun: str, *, takes: bool) -> Completion:
    return Completion(word + (" " if takes else ""), start_position=-len(begun), display=word, display_meta=meaning)


def _typing_command() -> bool:
    text = get_app().current_buffer.text
    return text.startswith("/") and not text.startswith("//")


class _QuietFileHistory(FileHistory):
    """Keeps the history in a file as long as that works; the prompt never fails because of it."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []


def private_history(path: Path | None) -> History:
    """Return the history kept in *path*, private to its owner; in memory if that is None or impossible."""
    if path is None:
        return InMemoryHistory()
    try:
        make_private_folder(path.parent)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, FILE_MODE))
        if path.stat().st_mode & 0o077:
            path.chmod(FILE_MODE)
    except OSError:
        return InMemoryHistory()
    return _QuietFileHistory(str(path))


class _OutputBelow(Vt100_Output):
    """Lets the prompt take the rows it needs where the cursor is, without asking the terminal where that is."""

    def get_rows_below_cursor_position(self) -> int:
        return 1


def output_below(stream: TextIO) -> Vt100_Output:
    """Return prompt_toolkit's output for *stream*, without cursor position requests."""
    plain = Vt100_Output.from_pty(stream)
    return _OutputBelow(stream, plain.get_size, term=settings.variable("TERM"), enable_cpr=False)
