"""Finding profiles: a name means a file in the person's own folder, a path means itself."""

import shlex
from pathlib import Path

from padlite import settings
from padlite.errors import NotFoundError, ProfileError, did_you_mean
from padlite.naming import check_name
from padlite.profile.reading import expanded, parse_profile, read_text
from padlite.profile.record import Profile
from padlite.settings import Paths

DEFAULT_PROFILE = "me"


def is_path(name_or_path: str) -> bool:
    """Tell whether a file is meant: it ends in .toml, holds a separator or starts with ~."""
    return name_or_path.endswith(".toml") or "/" in name_or_path or "\\" in name_or_path or name_or_path.startswith("~")


def profile_path(name_or_path: str, paths: Paths | None = None) -> Path:
    """Return the file that is meant, whether it exists or not. Raises UsageError if that can't be a name."""
    if is_path(name_or_path):
        return expanded(name_or_path).absolute()
    return (paths or settings.paths()).profiles / f"{check_name(name_or_path, kind='profile')}.toml"


def list_profiles(paths: Paths | None = None) -> tuple[str, ...]:
    """Return the names of this person's profiles, sorted."""
    folder = (paths or settings.paths()).profiles
    try:
        return tuple(sorted(file.stem for file in folder.glob("*.toml") if not file.name.startswith(".")))
    except OSError as error:
        raise ProfileError(f"can't list {folder}: {error.strerror}", remedy="padlite paths") from error


def load_profile(name_or_path: str, paths: Paths | None = None) -> Profile:
    """Return the profile of this name or in this file. Raises NotFoundError or ProfileError."""
    path = profile_path(name_or_path, paths)
    if not _exists(path):
        raise _not_found(name_or_path, path, paths)
    return parse_profile(read_text(path), source=path)


def chosen_profile(name_or_path: str | None, paths: Paths | None = None) -> Profile:
    """Return the profile asked for; if none was, the one named 'me' where it exists, else one without preferences."""
    if name_or_path is not None:
        return load_profile(name_or_path, paths)
    return load_profile(DEFAULT_PROFILE, paths) if _exists(profile_path(DEFAULT_PROFILE, paths)) else Profile()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return False


def _not_found(name_or_path: str, path: Path, paths: Paths | None) -> NotFoundError:
    remedy = f"padlite profile new {shlex.quote(name_or_path)}"
    if is_path(name_or_path):
        return NotFoundError(f"there is no profile at {path}", remedy=remedy)
    names = list_profiles(paths)
    known = f", or one of: {', '.join(names)}" if names else ""
    return NotFoundError(
        f"there is no profile {name_or_path!r}{did_you_mean(name_or_path, names)}", remedy=remedy + known
    )
