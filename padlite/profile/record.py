"""The profile as the rest of padlite sees it: what one person prefers and how they want to chat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypedDict

from padlite.errors import ProfileError, did_you_mean
from padlite.options import DecodingOptions, OverflowPolicy

DEFAULT_MODEL = "padlite-tiny"


class Decoding(TypedDict, total=False):
    """The keys of DecodingOptions that a profile sets."""

    strength: float
    candidates: int
    temperature: float
    top_p: float
    min_p: float
    repetition_penalty: float
    repetition_window: int
    seed: int
    max_tokens: int
    stop: tuple[str, ...]


class Named(Protocol):
    """Anything with a dimension's name and description (`padlite.seams.Dimension`)."""

    @property
    def name(self) -> str:
        """The dimension's name."""
        ...

    @property
    def description(self) -> str:
        """What more of it means, in a few words."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one person prefers, and on which model.

    The model is the bundle *model*, unless *base* names a GGUF file (with its *reward*, or without); *reward* can also
    replace a bundle's. *decoding* holds only what the profile sets, the engine's keys are those of EngineOptions.
    *source* is the file, *lines* the line of each weight in it.
    """

    name: str = ""
    model: str = DEFAULT_MODEL
    base: Path | None = None
    reward: Path | None = None
    about: str = ""
    system: str = ""
    preferences: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    decoding: Decoding = field(default_factory=Decoding)
    context_length: int = 0
    threads: int = 0
    gpu_layers: int = -1
    overflow: OverflowPolicy = OverflowPolicy.STOP
    source: Path | None = None
    lines: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}), repr=False, compare=False)

    def decoding_options(self, defaults: DecodingOptions) -> DecodingOptions:
        """Return *defaults* with what this profile sets."""
        return replace(defaults, **self.decoding)

    def system_text(self) -> str:
        """Return the text of the system turn: *system*, then *about*, word for word; empty if neither is written."""
        return "\n\n".join(text for text in (self.system.strip(), self.about.strip()) if text)


def check_dimensions(profile: Profile, dimensions: Sequence[Named]) -> None:
    """Raise ProfileError if *profile* weighs a dimension that isn't among *dimensions*, those of its model's reward."""
    names = [dimension.name for dimension in dimensions]
    for name in profile.preferences:
        if name not in names:
            raise _no_such_dimension(profile, name, names)


def _no_such_dimension(profile: Profile, name: str, names: Sequence[str]) -> ProfileError:
    line = profile.lines.get(name)
    where = f"{profile.source}{f', line {line}' if line else ''}: " if profile.source else ""
    if not names:
        message = f"{where}the model has no reward model, so {name!r} can't be weighed"
        return ProfileError(message, remedy="remove [preferences], or choose another model")
    message = f"{where}the model has no dimension {name!r}{did_you_mean(name, names)}"
    return ProfileError(message, remedy=f"use one of: {', '.join(names)}")
