"""The command line: which commands there are, what every command shares, and how a run ends.

Each command lives in a module of its own that is imported when it is called (`padlite --help` imports none). A command
returns None or its exit code, and raises PadliteError for what a person can act on; `main` turns every way in which a
run can end into an exit code and at most three lines on stderr (`padlite.cli.failures`).
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import click

from padlite import __version__, settings
from padlite.cli.endings import end_on_signals, finish_output
from padlite.cli.failures import report
from padlite.cli.groups import LazyCommand, LazyGroup

PROGRAM = "padlite"
COMPLETION_VARIABLE = "_PADLITE_COMPLETE"

COMMANDS = (
    LazyCommand("chat", "padlite.cli.chat:chat", "Chat with a local model that follows your profile."),
    LazyCommand("serve", "padlite.cli.serve:serve", "Serve chat to clients that speak OpenAI's API."),
    LazyCommand("profile", "padlite.cli.profile:profile", "Make, show and change profiles: what you prefer."),
    LazyCommand(
        "dimension", "padlite.cli.dimension:dimension", "Make a dimension of a sentence; list and remove them."
    ),
    LazyCommand("sessions", "padlite.cli.sessions:sessions", "List, show, export and forget kept conversations."),
    LazyCommand("models", "padlite.cli.models:models", "List, show, verify, pull, add and remove models."),
    LazyCommand("train", "padlite_training.commands:train", "Train a reward head for your own model from pairs."),
    LazyCommand("eval", "padlite_training.commands:evaluate", "Judge a reward head against simpler ways to ask."),
    LazyCommand("export", "padlite_export.commands:export", "Turn trained checkpoints into files that padlite runs."),
    LazyCommand("doctor", "padlite.cli.doctor:doctor", "Check that chat works on this machine, and what would help."),
    LazyCommand("paths", "padlite.cli.paths:paths", "Show where padlite keeps things."),
    LazyCommand("completion", "padlite.cli.completion:completion", "Print the completion script of your shell."),
)


@dataclass(slots=True)
class Run:
    """What one run of the program was asked for as a whole; every command finds it as `click.Context.obj`."""

    debug: bool = False


@click.group(
    name=PROGRAM,
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Log everything to stderr, and show tracebacks.")
@click.pass_context
def cli(context: click.Context, *, debug: bool) -> None:
    """Chat with a local model that bends to what you prefer, while it decodes, offline.

    Start with:  padlite chat
    """
    context.ensure_object(Run).debug = debug
    if debug:
        _log_everything()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


cli.promise(COMMANDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with *arguments* (the process's own by default) and return its exit code."""
    run = Run()
    words = list(sys.argv[1:] if arguments is None else arguments)
    with ExitStack() as stack:
        stack.enter_context(end_on_signals())
        try:
            code = _run(words, run)
        except BaseException as error:  # noqa: BLE001 — the one place where every way to end becomes an exit code
            code = report(error, debug=run.debug, folder=settings.paths().data)
        return finish_output(code)


def _run(words: list[str], run: Run) -> int:
    """Run one command and return its exit code; everything else comes out as an exception."""
    instruction = settings.variable(COMPLETION_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {"obj": run}, PROGRAM, COMPLETION_VARIABLE, instruction)
    _print_what_the_terminal_can()
    try:
        with cli.make_context(PROGRAM, words, obj=run) as context:
            result: object = cli.invoke(context)
    except click.exceptions.Exit as ending:
        return ending.exit_code
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _print_what_the_terminal_can() -> None:
    """Replace characters that the output's encoding lacks instead of failing on them."""
    import io

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")


def _log_everything() -> None:
    import logging

    logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)7.0f ms  %(levelname)-7s %(name)s: %(message)s")
