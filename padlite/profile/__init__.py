"""Profiles: the TOML file in which a person says what they prefer. Read strictly, written with its comments kept.

A weight is a number, from -1 to 1 by convention and at most 10 either way. A profile is found by its name in the
person's own folder, or by a path. Which dimensions exist is the model's business: `check_dimensions` is told.
"""

from padlite.profile.finding import (
    DEFAULT_PROFILE,
    chosen_profile,
    is_path,
    list_profiles,
    load_profile,
    profile_path,
)
from padlite.profile.keys import Engine
from padlite.profile.reading import parse_profile
from padlite.profile.record import DEFAULT_MODEL, Decoding, Profile, Sentence, check_dimensions
from padlite.profile.writing import new_profile_text, set_preference, set_values, write_profile

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_PROFILE",
    "Decoding",
    "Engine",
    "Profile",
    "Sentence",
    "check_dimensions",
    "chosen_profile",
    "is_path",
    "list_profiles",
    "load_profile",
    "new_profile_text",
    "parse_profile",
    "profile_path",
    "set_preference",
    "set_values",
    "write_profile",
]
