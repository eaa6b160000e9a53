"""Writing profiles: a new one with comments, or one value in an existing one, whose comments and order stay.

Every text is read back strictly before it replaces the file, so writing can't make a profile that reading refuses.
"""

import shlex
import tomllib
from collections.abc import Mapping, MutableMapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TypeAlias, cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from padlite.errors import ProfileError, UsageError
from padlite.private_files import make_private_folder, write_atomically
from padlite.profile.keys import PREFERENCES, SENTENCES, TEXT, TEXTS, WHOLE_NUMBERS, KeyPath, resolve_key
from padlite.profile.reading import parse_profile, read_text
from padlite.profile.record import Named, Profile

ProfileValue: TypeAlias = str | int | float | list[str]
Table: TypeAlias = MutableMapping[str, object]


def parse_value(key: str, text: str) -> ProfileValue:
    """Return what *text*, typed on a command line, means as the value of *key*; UsageError if it means nothing."""
    *section, name = resolve_key(key)
    if TEXT in section:
        return text
    option = PREFERENCES not in section
    if option and name in TEXTS:
        return text
    if option and name == "stop":
        return [text]
    whole = option and name in WHOLE_NUMBERS
    try:
        return int(text) if whole or text.lstrip("+-").isdecimal() else float(text)
    except ValueError as error:
        kind = "whole number" if whole else "number"
        example = "10" if whole else "0.5"
        raise UsageError(f"the value of {name!r} is not a {kind}", remedy=f"{name}={example}") from error


def changed_text(text: str, changes: Mapping[str, ProfileValue], *, removals: Sequence[str] = ()) -> str:
    """Return the TOML *text* with *changes* made and the keys in *removals* gone, everything else as it was.

    Raises ProfileError if the result would be no valid profile, or if it can't be changed without touching the rest.
    """
    wanted = cast("Table", deepcopy(tomllib.loads(text)))
    try:
        document = tomlkit.parse(text)
        for table in (wanted, cast("Table", document)):
            _apply(table, changes, removals)
        result = document.as_string()
        if tomllib.loads(result) != wanted:
            raise ProfileError("its layout can't be changed safely", remedy="change it in your editor")
    except (TOMLKitError, ValueError) as error:
        raise ProfileError("this value can't be written to a profile", remedy="change it in your editor") from error
    parse_profile(result)
    return result


def set_values(path: Path, changes: Mapping[str, ProfileValue], *, removals: Sequence[str] = ()) -> Profile:
    """Change the profile in the file *path* as `changed_text` does, all at once or not at all, and return it."""
    text = read_text(path)
    parse_profile(text, source=path)
    result = changed_text(text, changes, removals=removals)
    write_profile(path, result)
    return parse_profile(result, source=path)


def set_preference(path: Path, name: str, value: float) -> Profile:
    """Set the weight of the dimension *name* in the file *path* and return the profile."""
    return set_values(path, {f"{PREFERENCES}.{name}": value})


def write_profile(path: Path, text: str) -> None:
    """Put *text* into the file *path* at once, private if it is new; its folder is made if need be."""
    try:
        make_private_folder(path.parent)
        write_atomically(path, text)
    except UnicodeEncodeError as error:
        raise ProfileError("the text holds characters that are not Unicode", remedy="type it again") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ProfileError(f"can't write {path}: {reason}", remedy=f"ls -ld {shlex.quote(str(path.parent))}") from error


def new_profile_text(
    *,
    name: str,
    model: str,
    dimensions: Sequence[Named] = (),
    preferences: Mapping[str, float] | None = None,
    about: str = "",
) -> str:
    """Return a commented profile for *model*; the *dimensions* without a weight in *preferences* appear as comments."""
    weights = dict(preferences or {})
    described = {dimension.name: dimension.description for dimension in dimensions}
    lines = [f"{_key(key)} = {weight!r}{_comment(described.get(key, ''))}" for key, weight in weights.items()]
    lines += [f"# {_key(key)} = 0.5{_comment(text)}" for key, text in described.items() if key not in weights]
    text = _TEMPLATE.format(
        name=_string(name),
        model=_string(model),
        about=f"about = {_string(about)}" if about else '# about = "I am a gardener and like short answers."',
        preferences="\n".join(lines) or "# the model has no dimensions",
    )
    parse_profile(text)
    return text


_TEMPLATE = """\
# A padlite profile: what one person prefers. It stays on this machine.
# Try it with `padlite chat --profile THIS_FILE`; see `padlite profile --help`.

name = {name}
model = {model}                 # `padlite models list` shows the others

# These two are the only texts from here that the model reads.
{about}
# system = "Answer in English."

[preferences]
# How much of each dimension you want: 1 is much more of it, 0 leaves it to the model, -1 is much less.
{preferences}

[decoding]
# strength = 1.0                # how hard the preferences push, 0 is the model alone; without it, what suits the model
# temperature = 0.0             # 0 always takes the best word; 0.8 varies
# max_tokens = 0                # 0: until the answer ends

[context]
# overflow = "drop-oldest"      # what to do when the conversation is too long; the default is "stop"
"""


def _apply(table: Table, changes: Mapping[str, ProfileValue], removals: Sequence[str]) -> None:
    for key in removals:
        *sections, name = _sentence_path(table, resolve_key(key))
        holder = table
        for section in sections:
            holder = cast("Table", holder.get(section, {}))
        if name not in holder:
            raise UsageError(f"the profile doesn't set {key!r}", remedy="padlite profile show")
        del holder[name]
        if sections[1:] == [TEXT] and not holder:  # an empty section would ask for the text
            del cast("Table", table[PREFERENCES])[TEXT]
    for key, value in changes.items():
        path = resolve_key(key)
        sentence = _sentence_path(table, path)
        _put(table, path if sentence == path else (*sentence, "weight"), value)


def _sentence_path(table: Table, path: KeyPath) -> KeyPath:
    """Return where the sentence stands that *path* names as if it were a dimension of the model, else *path*."""
    section = cast("Table", table.get(PREFERENCES, {}))
    sentences = cast("Table", section.get(SENTENCES, {}))
    named = len(path) == 2 and path[0] == PREFERENCES and path[1] in sentences
    return (PREFERENCES, SENTENCES, path[1]) if named else path


def _put(table: Table, path: KeyPath, value: ProfileValue) -> None:
    *sections, key = path
    for section in sections:
        if section not in table:
            table[section] = tomlkit.table() if isinstance(table, tomlkit.TOMLDocument) else {}
        table = cast("Table", table[section])
    table[key] = value


def _string(text: str) -> str:
    return tomlkit.string(text).as_string()


def _key(name: str) -> str:
    return tomlkit.key(name).as_string()


def _comment(description: str) -> str:
    line = "".join(character if character.isprintable() else " " for character in description)
    return f"  # {' '.join(line.split())}" if line.strip() else ""
