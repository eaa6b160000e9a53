"""What goes wrong with the hub, with the way to it or with the disk, as one clear error with what to do."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from padlite.errors import HubError, NotFoundError, PadliteError, UsageError
from padlite.hub.record import HubFile

TRY_AGAIN = "try again; the same command goes on where it stopped"
_ELSEWHERE = "see that HF_ENDPOINT is not set, or names a hub"


@contextlib.contextmanager
def explained(name: str, revision: str, file: HubFile | None = None) -> Iterator[None]:
    """Turn what the library and its HTTP client raise about a repository, or a *file* of it, into one clear error."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as error:
        raise _refusal(error, name, revision, file) from error
    except HFValidationError as error:
        raise UsageError(f"{name} can't be the name of a repository", remedy="padlite models pull ORG/NAME") from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, OfflineModeIsEnabled) as error:
        raise HubError(
            "the hub can't be reached",
            remedy="see whether this machine is online; --offline takes what the hub's cache has",
        ) from error
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
        raise HubError("the hub's address makes no sense", remedy=_ELSEWHERE) from error
    except httpx2.HTTPError as error:
        what = f" in the middle of {file.name}" if file else ""
        raise HubError(f"the connection to the hub broke off{what}", remedy=TRY_AGAIN) from error


@contextlib.contextmanager
def answered(name: str) -> Iterator[None]:
    """Say so if an answer has another form than the hub's."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HubError(f"what answers for {name} doesn't answer as the hub does", remedy=_ELSEWHERE) from error


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Say what is wrong with the disk, if it is the disk."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        raise HubError(
            f"the download can't be kept in {folder}: {error.strerror}",
            remedy=f"make room, and {TRY_AGAIN}" if full else "check its rights, or choose another place: HF_HUB_CACHE",
        ) from error


def wrong_bytes(name: str, file: HubFile, found: str) -> HubError:
    """Return the error for a download that isn't what the hub lists."""
    return HubError(
        f"what came is not {file.name} of {name}: {found} instead of {file.digest[:12]}…; it was removed",
        remedy="try again; if it comes so again, something between here and the hub changes it",
    )


def damaged(name: str, file: HubFile, path: Path) -> HubError:
    """Return the error for a cached file that changed."""
    return HubError(f"{file.name} of {name} is damaged in the hub's cache", remedy=f"rm {path}, and pull it again")


def not_cached(name: str, file: str = "") -> NotFoundError:
    """Return the error for what would have to be downloaded, offline."""
    what = f"{file} of {name}" if file else name
    return NotFoundError(
        f"the hub's cache doesn't have {what}, and padlite is told to stay offline",
        remedy="leave out --offline, and unset HF_HUB_OFFLINE",
    )


def _refusal(error: Exception, name: str, revision: str, file: HubFile | None) -> PadliteError:
    """Return what an answer of the hub that isn't the thing asked for means for the person."""
    from huggingface_hub import errors

    status = status_of(error)
    what = f"{file.name} of {name}" if file else name
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return HubError(
            f"the hub gives {name} only to those who have agreed to its terms (HTTP {status})",
            remedy=f"agree at https://huggingface.co/{name}, and log in: hf auth login",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFoundError(
            f"{name} has no revision {revision!r}", remedy=f"leave out --revision, or see huggingface.co/{name}/tree"
        )
    if file and (isinstance(error, errors.RemoteEntryNotFoundError) or status == 404):
        return NotFoundError(f"the hub lists {what}, but doesn't have it (HTTP {status})", remedy="try again later")
    if status in {401, 404}:
        return NotFoundError(
            f"the hub has no model {name}, or only for others (HTTP {status})",
            remedy="check the spelling; if it is private, log in: hf auth login",
        )
    if status == 429:
        return HubError(
            "the hub gets too many requests from here (HTTP 429)", remedy="wait some minutes, and try again"
        )
    if status >= 500:
        return HubError(f"the hub itself has a problem (HTTP {status})", remedy=TRY_AGAIN)
    return HubError(f"the hub refuses {what} (HTTP {status})", remedy=_ELSEWHERE)


def status_of(error: Exception) -> int:
    """Return the HTTP status in an error of the library, or 0."""
    response = getattr(error, "response", None)
    return int(getattr(response, "status_code", 0))
