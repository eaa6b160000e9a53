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
class Sentence:
    """A dimension made of a sentence alone: what the contrast reward tells the base model (`padlite.contrast`)."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one person prefers, and on which model.

    The model is the bundle *model*, unless *base* names a GGUF file (with its *reward*, or without); *reward* can also
    replace a bundle's. *reward_text* is the preference that a reward LM is told. *preferences* weigh the model's own
    dimensions, *sentences* are dimensions of the profile itself (a weight in *preferences* goes before that of the
    sentence). *preference_text* is what the person says of themselves, and *text_weights* are the weights that it
    stands for, once the models are open (`padlite.opening`); all others go before them. *decoding* holds only what the
    profile sets, the engine's keys are those of EngineOptions. *source* is the file, *lines* the line of each weight.
    """

    name: str = ""
    model: str = DEFAULT_MODEL
    base: Path | None = None
    reward: Path | None = None
    reward_text: str = ""
    about: str = ""
    system: str = ""
    preferences: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    sentences: Mapping[str, Sentence] = field(default_factory=lambda: MappingProxyType({}))
    preference_text: str = ""
    text_weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    decoding: Decoding = field(default_factory=Decoding)
    context_length: int = 0
    threads: int = 0
    gpu_layers: int = -1
    device: str = "auto"
    overflow: OverflowPolicy = OverflowPolicy.STOP
    source: Path | None = None
    lines: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}), repr=False, compare=False)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each dimension that the profile names, sentences and what its text stands for included."""
        sentences = {name: sentence.weight for name, sentence in self.sentences.items()}
        return {**self.text_weights, **sentences, **self.preferences}

    def decoding_options(self, defaults: DecodingOptions) -> DecodingOptions:
        """Return *defaults* with what this profile sets."""
        return replace(defaults, **self.decoding)

    def on_model(self, model: str) -> "Profile":
        """Return this profile for *model*: a GGUF file, a bundle's name, or the path of its folder (``./name``).

        Its reward model belonged to its own base.
        """
        path = Path(model).expanduser()
        if model.endswith(".gguf") or path.is_file():
            return replace(self, base=path.absolute(), reward=None, text_weights={})
        is_path = model != path.name  # as a shell tells a program's path from its name
        return replace(self, model=str(path.absolute()) if is_path else model, base=None, reward=None, text_weights={})

    def on_device(self, device: str) -> "Profile":
        """Return this profile for *device* (`EngineOptions`); the layers that it wants on a GPU don't hold on a CPU."""
        return replace(self, device=device, gpu_layers=-1 if device == "cpu" else self.gpu_layers)

    def has_model_of(self, other: "Profile") -> bool:
        """Tell whether *other* names the same models, told the same, so that it can be followed without opening any."""
        mine = (self.model, self.base, self.reward, self.reward_text)
        return mine == (other.model, other.base, other.reward, other.reward_text)

    def system_text(self) -> str:
        """Return the text of the system turn: *system*, then *about*, word for word; empty if neither is written."""
        return "\n\n".join(text for text in (self.system.strip(), self.about.strip()) if text)


def check_dimensions(profile: Profile, dimensions: Sequence[Named]) -> None:
    """Raise ProfileError unless *profile* fits a model with *dimensions*.

    Every dimension it weighs must be one of these or one of its own sentences, and no sentence may be called like one.
    """
    names = [dimension.name for dimension in dimensions]
    for name in profile.sentences:
        if name in names:
            raise ProfileError(
                f"{_where(profile, name)}the sentence {name!r} is called like a dimension of the model",
                remedy=f"give the sentence another name, or weigh the model's own: {name} = 0.5 under [preferences]",
            )
    for name in profile.preferences:
        if name not in names and name not in profile.sentences:
            raise _no_such_dimension(profile, name, [*names, *profile.sentences])


def _where(profile: Profile, name: str) -> str:
    line = profile.lines.get(name)
    return f"{profile.source}{f', line {line}' if line else ''}: " if profile.source else ""


def _no_such_dimension(profile: Profile, name: str, names: Sequence[str]) -> ProfileError:
    where = _where(profile, name)
    if not names:
        message = f"{where}the model has no reward model, so {name!r} can't be weighed"
        return ProfileError(
            message, remedy="remove it, choose another model, or make it a sentence under [preferences.sentences]"
        )
    message = f"{where}the model has no dimension {name!r}{did_you_mean(name, names)}"
    return ProfileError(message, remedy=f"use one of: {', '.join(names)}")
