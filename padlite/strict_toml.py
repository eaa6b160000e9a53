"""Reading a TOML table strictly: every key is known, every value has its type and range, or it is refused.

Knows neither which file the table comes from nor what its keys mean; `refuse` turns a reason into the error to raise.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from padlite.errors import PadliteError, did_you_mean

_HUGE = 1e300  # beyond it an integer no longer becomes a float


@dataclass(frozen=True, slots=True)
class StrictTable:
    """A table of TOML values, how to refuse it, and *where* it stands in its file ('' for the top)."""

    values: Mapping[str, object]
    refuse: Callable[[str], PadliteError]
    where: str = ""

    def require_keys(self, required: set[str], optional: set[str]) -> None:
        """Raise unless all *required* keys are there and no key is unknown."""
        for key in self.values:
            if key not in required | optional:
                raise self.refuse(f"unknown key {self.path(key)!r}{did_you_mean(key, required | optional)}")
        missing = sorted(required - self.values.keys())
        if missing:
            raise self.refuse(f"the key {self.path(missing[0])!r} is missing")

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.refuse(f"{self.path(key)} must be a text in quotes")
        return value

    def number(
        self, key: str, default: float | None = None, *, low: float = -math.inf, high: float = math.inf
    ) -> float:
        """Return a finite number in [*low*, *high*]."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _HUGE:
            raise self.refuse(f"{self.path(key)} must be a finite number")
        if not low <= value <= high:
            raise self.refuse(f"{self.path(key)} = {value:g} is not between {low:g} and {high:g}")
        return float(value)

    def whole_number(self, key: str, default: int | None = None, *, low: int = 0, high: int = 2**53) -> int:
        """Return an integer in [*low*, *high*]."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(f"{self.path(key)} must be a whole number")
        if not low <= value <= high:
            raise self.refuse(f"{self.path(key)} = {str(value)[:20]} is not between {low} and {high}")
        return value

    def file_name(self, key: str) -> str:
        """Return the bare name of a file: no folder, not hidden, usable on every system."""
        name = self.text(key)
        if (
            not name
            or name.startswith((".", "-"))
            or not name.isprintable()
            or any(each in name for each in '/\\:"*?<>|')
        ):
            raise self.refuse(f"{self.path(key)} = {name[:60]!r} must be a plain name without folders")
        return name

    def tables(self, key: str) -> "list[StrictTable]":
        """Return an array of tables, empty if absent."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in cast(list[object], value)):
            raise self.refuse(f"[[{self.path(key)}]] must be a list of tables")
        return [StrictTable(each, self.refuse, self.path(key)) for each in cast(list[dict[str, object]], value)]

    def texts(self, key: str) -> dict[str, str]:
        """Return a table of strings, empty if absent."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.refuse(f"[{self.path(key)}] must be a table")
        inner = StrictTable(cast(dict[str, object], value), self.refuse, self.path(key))
        return {each: inner.text(each) for each in inner.values}

    def path(self, key: str) -> str:
        """Return how to name a key of this table to a person."""
        return f"{self.where}.{key}" if self.where else key
