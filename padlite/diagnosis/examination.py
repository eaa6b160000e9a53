"""The whole diagnosis in the order in which a person reads it, each finding as soon as it is known.

Checks that rest on something that failed are left out: that failure has been said.
"""

import platform
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from padlite import __version__
from padlite.backends import onnx_packages
from padlite.diagnosis import engines, folders, machine
from padlite.diagnosis.finding import Finding, Status, examine
from padlite.settings import Paths

if TYPE_CHECKING:  # importing these loads the engines, which may be what is broken
    from padlite.opening import Source
    from padlite.profile import Profile

SPEED_TEST_S = 3.0


def diagnose(profile: str | None, paths: Paths, *, speed_test: bool) -> Iterator[Finding]:
    """Yield what there is to know about chatting here with *profile*: a name, a path, or None for what `chat` takes."""
    return _Examination(profile_name=profile, paths=paths, speed_test=speed_test).findings()


def would_chat(findings: Iterable[Finding]) -> bool:
    """Tell whether a chat would work, given all *findings*."""
    return all(finding.status is not Status.FAIL for finding in findings)


@dataclass(slots=True, kw_only=True)
class _Examination:
    """What is known so far; each check adds to it."""

    profile_name: str | None
    paths: Paths
    speed_test: bool
    processor: machine.Processor | None = None
    llama: engines.LlamaBuild | None = None
    profile: "Profile | None" = None
    source: "Source | None" = None

    def findings(self) -> Iterator[Finding]:
        yield self._versions()
        yield from examine("processor", self._processor)
        engines_work = yield from self._engines()
        yield from examine("graphics", self._graphics)
        yield from examine("config", self._config_folder)
        yield from examine("data", self._data_folder)
        yield from examine("profile", self._profile)
        yield from examine("threads", self._threads)
        if engines_work and self.profile is not None:
            yield from examine("model files", self._files)
            yield from examine("memory", self._memory)
            yield from examine("model", self._chat)

    def _versions(self) -> Finding:
        system = f"{platform.system()} {platform.release()}"
        return Finding(
            subject="padlite",
            text=f"{__version__}, Python {platform.python_version()}, {system} {platform.machine()}",
            facts={"version": __version__, "python": platform.python_version(), "system": system},
        )

    def _processor(self) -> Finding:
        self.processor = machine.read_processor()
        return machine.judge_processor(self.processor)

    def _engines(self) -> Generator[Finding, None, bool]:
        """Yield what there is to say about both engines; return whether they can be loaded in this process."""
        works = True
        for subject, check in (("llama.cpp", self._llama), ("ONNX Runtime", self._onnx_runtime)):
            for finding in examine(subject, check):
                works = works and finding.status is not Status.FAIL
                yield finding
        yield from examine("telemetry", lambda: engines.judge_telemetry(engines.telemetry_variable()))
        return works

    def _llama(self) -> Finding:
        trial = engines.try_llama()
        if trial.reason:
            return engines.judge_llama_trial(trial)
        self.llama = engines.read_llama()
        return engines.judge_llama(self.llama, self.processor.features if self.processor else frozenset())

    def _onnx_runtime(self) -> Finding:
        cuda = engines.CudaHere(driver=machine.read_nvidia_driver(), wheels=machine.has_cuda_wheels())
        trial = engines.try_onnx_runtime()
        if trial.reason:
            return engines.judge_onnx_trial(trial, onnx_packages.unusable_state(), cuda)
        from padlite.backends.onnx_runtime import runtime_state

        return engines.judge_onnx_runtime(runtime_state(), cuda)

    def _graphics(self) -> Finding:
        return machine.judge_graphics(machine.read_graphics(), supported=self.llama is not None and self.llama.graphics)

    def _config_folder(self) -> Finding:
        return folders.examine_folder("config", self.paths.config, keeps="profiles")

    def _data_folder(self) -> Finding:
        return folders.examine_folder("data", self.paths.data, keeps="conversations")

    def _profile(self) -> Finding:
        from padlite.profile import chosen_profile

        self.profile = chosen_profile(self.profile_name, self.paths)
        place = self.profile.source
        return Finding(
            subject="profile",
            text=str(place) if place else "none chosen, and none named 'me': the model answers as it is",
            facts={"path": str(place) if place else None, "model": self.profile.model},
        )

    def _threads(self) -> Iterator[Finding]:
        if self.processor is None:
            return
        wanted = self.profile.threads if self.profile else 0
        cores = max(1, min(self.processor.physical, self.processor.usable))
        yield machine.judge_threads(self.processor, wanted or cores, chosen=wanted > 0)

    def _files(self) -> Finding:
        from padlite.diagnosis.chat import examine_files
        from padlite.opening import find_source

        if self.profile is None:
            raise RuntimeError("there is no profile")
        self.source = find_source(self.profile, paths=self.paths)
        return examine_files(self.source)

    def _memory(self) -> Finding:
        files = (self.source.base, self.source.reward) if self.source else ()
        needed = sum(path.stat().st_size for path in files if path is not None and path.is_file())
        return machine.judge_memory(machine.read_memory(), needed)

    def _chat(self) -> Iterator[Finding]:
        from padlite.diagnosis.chat import judge_speed, measure_speed, opened

        if self.profile is None:
            raise RuntimeError("there is no profile")
        with opened(self.profile, self.paths) as (chat, loaded):
            yield loaded
            if self.speed_test:
                yield judge_speed(measure_speed(chat.session, seconds=SPEED_TEST_S))
