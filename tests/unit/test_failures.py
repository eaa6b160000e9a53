import errno
import signal
from pathlib import Path

import click
import pytest

from padlite.cli.failures import explain, keep_traceback, one_line, report
from padlite.errors import ContextFullError, NotFoundError


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_an_expected_error_is_one_line_and_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = NotFoundError("there is no model 'x'", remedy="padlite models list")
    assert report(error, debug=False, folder=tmp_path) == 3
    assert capsys.readouterr().err == "padlite: there is no model 'x'\ntry: padlite models list\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ContextFullError("full"), 4),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (BrokenPipeError(), 141),
        (click.UsageError("what?"), 2),
        (MemoryError(), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (SystemExit(128 + signal.SIGTERM), 143),
        (SystemExit(None), 0),
        (SystemExit("bye"), 1),
    ],
)
def test_every_way_to_end_has_its_exit_code(error: BaseException, code: int) -> None:
    failure = explain(error)
    assert failure is not None
    assert failure.exit_code == code


def test_a_bug_names_its_type_but_not_its_text_and_keeps_a_private_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    assert report(raised(ValueError("somebody's words")), debug=False, folder=folder) == 1
    said = capsys.readouterr().err
    written = folder / "last-crash.txt"
    assert "this is a bug in padlite: ValueError" in said
    assert str(written) in said
    assert "Traceback" not in said
    assert "somebody's words" not in said
    assert "Traceback" in written.read_text(encoding="utf-8")
    assert written.stat().st_mode & 0o777 == 0o600


def test_a_bug_is_reported_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert keep_traceback(ValueError(), tmp_path / "file") is None
    assert report(ValueError(), debug=False, folder=tmp_path / "file") == 1
    assert "--debug" in capsys.readouterr().err


def test_debug_shows_the_traceback_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(raised(NotFoundError("gone")), debug=True, folder=tmp_path)
    assert "Traceback" in capsys.readouterr().err


def test_a_message_stays_on_one_line_and_cannot_drive_the_terminal() -> None:
    assert one_line("a\nb\x1b[31m\u202e.") == r"a b\x1b[31m\u202e."
    assert one_line("Zoë — 'ok' 🙂") == "Zoë — 'ok' 🙂"
