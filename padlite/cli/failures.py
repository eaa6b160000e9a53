"""What a person sees when a run fails: one line that says what is wrong, one with what to type next. Never a traceback.

A failure nobody foresaw is a bug in padlite: it names the type and the place, not the error's text (that could hold
what somebody wrote), and the traceback goes to a private file. `--debug` shows it on the terminal.
"""

import contextlib
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import click

from padlite import __version__
from padlite.cli.endings import CLOSED_PIPE
from padlite.errors import PadliteError
from padlite.private_files import make_private_folder, write_atomically

INTERRUPTED = 130
TRACEBACK_FILE = "last-crash.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a run failed; an empty *message* means that there is nothing to say."""

    message: str = ""
    remedy: str = ""
    exit_code: int = 1


def report(error: BaseException, *, debug: bool, folder: Path) -> int:
    """Say on stderr what *error* means for the person and return the exit code.

    The traceback of a bug goes to a file in *folder*, with *debug* every traceback to stderr.
    """
    failure = explain(error)
    if debug and not isinstance(error, SystemExit | BrokenPipeError):
        _say("".join(traceback.format_exception(error)))
    if failure is None:
        failure = _bug(error, None if debug else keep_traceback(error, folder))
    if failure.message:
        _say(f"padlite: {one_line(failure.message)}\n")
    if failure.remedy:
        _say(f"try: {one_line(failure.remedy)}\n")
    return failure.exit_code


def explain(error: BaseException) -> Failure | None:
    """Return what *error* means for the person, or None if nobody foresaw it."""
    match error:
        case PadliteError():
            return Failure(message=error.message, remedy=error.remedy, exit_code=error.exit_code)
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "padlite"
            return Failure(message=error.format_message().rstrip("."), remedy=f"{command} --help", exit_code=2)
        case click.ClickException():
            return Failure(message=error.format_message(), exit_code=error.exit_code)
        case SystemExit():
            return _exit(error)
        case KeyboardInterrupt() | click.Abort():
            return Failure(message="interrupted", exit_code=INTERRUPTED)
        case BrokenPipeError():
            return Failure(exit_code=CLOSED_PIPE)
        case MemoryError():
            return Failure(
                message="there isn't enough memory",
                remedy="close other programs, or set a smaller context_length under [engine] in the profile",
            )
        case OSError() if error.strerror:
            place = f": {error.filename}" if isinstance(error.filename, str) else ""
            return Failure(message=f"{error.strerror}{place}", remedy="padlite doctor")
        case _:
            return None


def one_line(text: str) -> str:
    """Return *text* on one line; control characters (a file name may hold any) are shown, not obeyed."""
    return "".join(character if character.isprintable() else _visible(character) for character in text)


def keep_traceback(error: BaseException, folder: Path) -> Path | None:
    """Write the traceback of *error* to a private file in *folder*; return its path, or None if it can't be written."""
    path = folder / TRACEBACK_FILE
    text = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace").decode("utf-8")
    with contextlib.suppress(OSError):
        make_private_folder(folder)
        write_atomically(path, f"padlite {__version__}, Python {sys.version}, {sys.platform}\n\n{text}")
        return path
    return None


def _visible(character: str) -> str:
    return " " if character in "\n\r\t" else character.encode("unicode_escape").decode("ascii")


def _exit(error: SystemExit) -> Failure:
    if isinstance(error.code, str):
        return Failure(message=error.code)
    return Failure(exit_code=error.code or 0)


def _bug(error: BaseException, written: Path | None) -> Failure:
    where = f"; the traceback is in {written}" if written else ""
    remedy = "report it with that file" if written else "padlite --debug COMMAND, and report the traceback"
    return Failure(message=f"this is a bug in padlite: {type(error).__name__}{_place(error)}{where}", remedy=remedy)


def _place(error: BaseException) -> str:
    package = Path(__file__).parents[1]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if package in Path(frame.filename).parents]
    return f" in {Path(frames[-1].filename).relative_to(package)}, line {frames[-1].lineno}" if frames else ""


def _say(text: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()
