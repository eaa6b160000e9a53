"""The models and the persons that are served: which there are, and which is loaded.

A model is loaded when it is first asked for; at most *keep* stay in memory, those that are busy are waited for. Every
registered profile whose dimensions a model has can be followed on it. Knows chats; knows no requests.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import padlite.chat
from padlite.bundle import find_bundle, list_bundles
from padlite.chat import Chat
from padlite.errors import NotFoundError, PadliteError, did_you_mean
from padlite.opening import find_source, reads_text
from padlite.profile import Profile, list_profiles, load_profile
from padlite.settings import Paths

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """How models are run: see `padlite.open` and the keys of [engine] in a profile."""

    parallel: int = 2
    waiting: int = 32
    threads: int = 0
    context_length: int = 0
    gpu_layers: int = -1
    device: str = "auto"
    keep: int = 1


@dataclass(slots=True)
class _Loaded:
    chat: Chat
    users: int = 0


class Shelf:
    """The served *models*, names of bundles or GGUF files (none: every installed bundle), and the person's profiles."""

    def __init__(self, models: Sequence[str], paths: Paths, engines: Engines) -> None:
        self._paths, self._engines = paths, engines
        names = list(models) or [bundle.name for bundle in list_bundles(paths)]
        self._models = {_served_name(name): self._profile(name) for name in names}
        if not self._models:
            raise NotFoundError("there is no model to serve", remedy="see `padlite models list`, or name one: --model")
        self._loaded: dict[str, _Loaded] = {}  # used last comes last
        self._changed = asyncio.Condition()
        self.ready = False

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models."""
        return tuple(self._models)

    def names(self) -> tuple[str, ...]:
        """Return every model, and every model@profile that works on it."""
        names: list[str] = []
        profiles = self._profiles()
        for model in self._models:
            names.append(model)
            names += [f"{model}@{name}" for name, profile in profiles.items() if self._fits(model, profile)]
        return tuple(names)

    def profile(self, model: str, name: str | None) -> Profile:
        """Return the profile to follow on *model*: the registered one *name*, or one without preferences.

        Raises NotFoundError if there is no such model or profile: a name never is a path.
        """
        if model not in self._models:
            raise NotFoundError(
                f"there is no model {_shown(model)}{did_you_mean(model[:80], self._models)}",
                remedy="GET /v1/models lists them",
            )
        if name is None:
            return self._models[model]
        known = list_profiles(self._paths)
        if name not in known:
            raise NotFoundError(
                f"there is no profile {_shown(name)}{did_you_mean(name[:80], known)}",
                remedy="GET /v1/models lists them, `padlite profile new NAME` makes one",
            )
        template = self._models[model]
        return replace(
            load_profile(name, self._paths),
            model=template.model, base=template.base, reward=template.reward, threads=template.threads,
            context_length=template.context_length, gpu_layers=template.gpu_layers, device=template.device,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def model(self, name: str) -> AsyncIterator[Chat]:
        """Yield a chat on the model *name*, which stays loaded meanwhile; others may have to go for it."""
        loaded = await self._take(name)
        try:
            yield loaded.chat
        finally:
            async with self._changed:
                loaded.users -= 1
                self._changed.notify_all()

    def load(self) -> tuple[int, int]:
        """Return how many answers are being decoded, and how many wait."""
        loads = [each.chat.load for each in self._loaded.values()]
        return sum(running for running, _ in loads), sum(waiting for _, waiting in loads)

    async def close(self) -> None:
        """Free every model."""
        for loaded in self._loaded.values():
            await asyncio.to_thread(loaded.chat.close)
        self._loaded.clear()

    async def _take(self, name: str) -> _Loaded:
        async with self._changed:
            while name not in self._loaded and len(self._loaded) >= self._engines.keep:
                idle = next((each for each, loaded in self._loaded.items() if not loaded.users), None)
                if idle is None:
                    await self._changed.wait()
                    continue
                await asyncio.to_thread(self._loaded.pop(idle).chat.close)
            if name not in self._loaded:
                self._loaded[name] = _Loaded(await asyncio.to_thread(self._open, name))
            loaded = self._loaded[name] = self._loaded.pop(name)
            loaded.users += 1
            return loaded

    def _open(self, name: str) -> Chat:
        profiles = [profile for profile in self._profiles().values() if self._fits(name, profile)]
        return padlite.chat.open(
            self._models[name],
            parallel=self._engines.parallel,
            waiting=self._engines.waiting,
            sentences=max((len(profile.sentences) for profile in profiles), default=0),
        )

    def _profile(self, model: str) -> Profile:
        engines = self._engines
        profile = replace(
            Profile().on_model(model),
            threads=engines.threads, context_length=engines.context_length, gpu_layers=engines.gpu_layers,
            device=engines.device,
        )  # fmt: skip
        if profile.base is None:
            find_bundle(profile.model, self._paths)
        elif not profile.base.is_file():
            raise NotFoundError(f"there is no model file {profile.base}", remedy="check the path")
        return profile

    def _profiles(self) -> Mapping[str, Profile]:
        """Return the registered profiles that can be read; the others are logged as warnings."""
        profiles: dict[str, Profile] = {}
        for name in list_profiles(self._paths):
            try:
                profiles[name] = load_profile(name, self._paths)
            except PadliteError as error:
                _log.warning("%s", error.message)
        return profiles

    def _fits(self, model: str, profile: Profile) -> bool:
        """Tell whether *model* has every dimension that *profile* weighs."""
        template = self._models[model]
        if profile.preference_text and not reads_text(find_source(template, paths=self._paths)):
            return False
        if template.base is not None:
            return set(profile.preferences) <= set(profile.sentences)
        dimensions = {dimension.name for dimension in find_bundle(template.model, self._paths).dimensions}
        return set(profile.preferences) <= dimensions | set(profile.sentences)


def _served_name(model: str) -> str:
    return Path(model).name


def _shown(name: str) -> str:
    """Return *name* as an error may show it: short, on one line."""
    return repr(name[:80].encode("ascii", "backslashreplace").decode())
