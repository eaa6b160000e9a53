"""`padlite doctor`: whether a chat would work on this machine, line by line, each with what would help.

Shown with click alone: what else is broken must not keep the diagnosis from being read.
"""

import json
import shutil
import textwrap
from collections.abc import Iterable

import click

from padlite import __version__, settings
from padlite.diagnosis import Finding, Status, diagnose, would_chat

COLORS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
_LABEL_WIDTH = 6
_SUBJECT_WIDTH = 14
_NARROWEST, _WIDEST = 50, 120


@click.command()
@click.option(
    "-P", "--profile", "profile", metavar="NAME|FILE", help="Check with this profile, as `chat` would use it."
)
@click.option("--quick", is_flag=True, help="Leave out the speed test (3 seconds).")
@click.option("--json", "as_json", is_flag=True, help="Print everything that was found as JSON.")
def doctor(*, profile: str | None, quick: bool, as_json: bool) -> int:
    """Check that chat works on this machine, and say what would help.

    The exit code is 0 if a chat would work, warnings or not, and 1 if it wouldn't.
    """
    findings = diagnose(profile, settings.paths(), speed_test=not quick)
    shown = _as_json(findings) if as_json else _as_lines(findings)
    return 0 if would_chat(shown) else 1


def _as_lines(findings: Iterable[Finding]) -> list[Finding]:
    """Print every finding as soon as it is known, then the verdict; return the findings."""
    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns))
    color = None if settings.color_wanted() else False
    shown = []
    for finding in findings:
        for line in lines_of(finding, width):
            click.echo(line, color=color)
        shown.append(finding)
    failed = sum(finding.status is Status.FAIL for finding in shown)
    warned = sum(finding.status is Status.WARN for finding in shown)
    verdict = "chat works here" if not failed else f"chat would not work: {failed} to repair"
    click.echo("\n" + verdict + (f" ({warned} to look at)" if warned else ""), color=color)
    return shown


def _as_json(findings: Iterable[Finding]) -> list[Finding]:
    """Print all findings as one JSON object; return them."""
    shown = list(findings)
    rows = [
        {
            "subject": finding.subject,
            "status": finding.status.value,
            "text": finding.text,
            "remedy": finding.remedy,
            "facts": dict(finding.facts),
        }
        for finding in shown
    ]
    click.echo(json.dumps({"padlite": __version__, "ok": would_chat(shown), "findings": rows}, indent=2))
    return shown


def lines_of(finding: Finding, width: int) -> list[str]:
    """Return *finding* as styled lines of *width* characters: status, subject, text, and below it the remedy."""
    indent = _LABEL_WIDTH + _SUBJECT_WIDTH
    lines = _wrapped(finding.text, width - indent)
    label = click.style(f"{finding.status.value:<{_LABEL_WIDTH}}", fg=COLORS[finding.status], bold=True)
    styled = [f"{label}{finding.subject:<{_SUBJECT_WIDTH}}{lines[0]}", *(" " * indent + line for line in lines[1:])]
    if finding.remedy:
        first, *others = finding.remedy.splitlines()
        remedy = [f"→ {first}", *(f"  {line}" for line in others)]
        styled += [
            " " * indent + click.style(part, bold=True) for line in remedy for part in _wrapped(line, width - indent)
        ]
    return styled


def _wrapped(text: str, width: int) -> list[str]:
    """Break *text* at spaces only, so that paths and commands stay whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
