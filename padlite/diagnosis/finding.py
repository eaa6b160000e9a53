"""One line of a diagnosis, and the way to get one from a check that may itself break."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

from padlite.errors import PadliteError

Fact: TypeAlias = str | int | float | bool | tuple[str, ...] | None


class Status(StrEnum):
    """What a finding means for a chat: nothing, worth knowing, or that it wouldn't work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found about *subject*: one line of *text*, a *remedy* unless all is well, and the bare *facts*."""

    subject: str
    text: str
    status: Status = Status.OK
    remedy: str = ""
    facts: Mapping[str, Fact] = field(default_factory=lambda: MappingProxyType({}))


def examine(subject: str, check: Callable[[], Finding | Iterable[Finding]]) -> Iterator[Finding]:
    """Yield what *check* finds; if it breaks, that is the last finding, of status FAIL."""
    try:
        found = check()
        yield from [found] if isinstance(found, Finding) else found
    except PadliteError as error:
        yield Finding(subject=subject, status=Status.FAIL, text=error.message, remedy=error.remedy)
    except ImportError as error:
        yield Finding(
            subject=subject,
            status=Status.FAIL,
            text=f"a package that padlite needs can't be loaded: {first_line(str(error))}",
            remedy="install padlite again in a fresh virtual environment (docs/install.md)",
        )
    except Exception as error:  # noqa: BLE001 — a broken installation can raise anything, and to say so is the task
        yield Finding(
            subject=subject,
            status=Status.FAIL,
            text=f"the check itself broke: {type(error).__name__}: {first_line(str(error))}",
            remedy="padlite --debug doctor, and report what it says",
        )


def first_line(text: str) -> str:
    """Return the first line of *text* that says something, at most 200 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:200] if lines else "no reason given"
