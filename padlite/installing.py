"""Puts bundles together, tries them, installs and removes them: files in, a model that can be chatted with out.

Everything is copied beside the target under another name, opened as a chat would open it, made to answer, and only then
renamed: what is installed works, and what is refused leaves nothing. Knows no terminal and no network.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from padlite.backends import preflight
from padlite.backends.onnx_reward import open_reward
from padlite.bundle import MANIFEST, Bundle, load_bundle, verify, write_manifest
from padlite.errors import BackendError, NotFoundError, PadliteError, UsageError
from padlite.naming import check_name
from padlite.opening import open_chat
from padlite.private_files import make_private_folder
from padlite.profile import Profile
from padlite.seams import Dimension
from padlite.settings import Paths

_BASE = "base.gguf"
_TRIAL = "Hello."
_TRIAL_TOKENS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a new bundle is made of; *base* is a GGUF, *reward* an ONNX file, *card* a text for people."""

    name: str
    base: Path
    license: str
    reward: Path | None = None
    card: Path | None = None
    title: str = ""
    description: str = ""
    context_length: int = 0


def parts_of(files: Sequence[Path], *, name: str | None, license: str) -> Parts:  # noqa: A002  the manifest's word
    """Return the parts that *files* are: one .gguf, and at most one .onnx; *name* defaults to the GGUF's own."""
    kinds = {suffix: [path for path in files if path.suffix == suffix] for suffix in (".gguf", ".onnx")}
    bases, rewards = kinds[".gguf"], kinds[".onnx"]
    if len(bases) != 1 or len(rewards) > 1 or len(bases) + len(rewards) != len(files):
        raise UsageError(
            "a model is one .gguf file, and one .onnx file if it has a reward model",
            remedy="padlite models add BASE.gguf REWARD.onnx, or the folder of a bundle",
        )
    return Parts(
        name=name or bases[0].stem.lower(), base=bases[0], license=license, reward=rewards[0] if rewards else None
    )


def build(parts: Parts, target: Path) -> Bundle:
    """Write the bundle made of *parts* into the new folder *target*, after it has answered, and return it.

    Raises NotFoundError for a missing part, UsageError if *target* is there already, and what opening raises.
    """
    check_name(parts.name, kind="model")
    with _made_beside(target, [parts.base, parts.reward]) as folder:
        _copy(parts.base, folder / _BASE)
        reward = None
        if parts.reward is not None:
            reward = parts.reward.name  # the graph names its data file, so neither can be renamed
            _copy(parts.reward, folder / reward)
            data = parts.reward.with_name(f"{reward}.data")
            if data.is_file():
                _copy(data, folder / data.name)
        if parts.card is not None:
            _copy(parts.card, folder / "card.md")
        dimensions: tuple[Dimension, ...] = ()
        if reward is not None:
            with open_reward(folder / reward, device="cpu", context_length=8) as opened:
                dimensions = opened.dimensions
        bundle = write_manifest(
            folder, name=parts.name, license=parts.license, base=_BASE, reward=reward, title=parts.title,
            description=parts.description, dimensions=dimensions, context_length=parts.context_length,
        )  # fmt: skip
        _try(bundle)
    return load_bundle(target)


def install(source: Path, paths: Paths, *, name: str | None = None) -> Bundle:
    """Copy the bundle in the folder *source* among the person's own, after it has answered, and return it."""
    bundle = load_bundle(source)
    if name is not None and name != bundle.name:
        raise UsageError(
            f"this bundle is called {bundle.name!r}, not {name!r}", remedy="leave out --name, or edit its bundle.toml"
        )
    check_name(bundle.name, kind="model")
    verify(bundle, everything=True)
    listed = [source / each.name for each in bundle.files]
    target = own_folder(bundle.name, paths)
    with _made_beside(target, listed) as folder:
        for path in [*listed, source / MANIFEST, *(each for each in [source / "card.md"] if each.is_file())]:
            _copy(path, folder / path.name)
        copied = load_bundle(folder)
        verify(copied, everything=True)
        _try(copied)
    return load_bundle(target)


def own_folder(name: str, paths: Paths) -> Path:
    """Return where the person's own bundle *name* is or would be; its parent is there and private."""
    make_private_folder(paths.data)
    make_private_folder(paths.user_models)
    return paths.user_models / name


def remove(bundle: Bundle, paths: Paths) -> None:
    """Remove a bundle of the person's own. Raises UsageError for one that ships with padlite."""
    if bundle.folder.parent != paths.user_models:
        raise UsageError(
            f"{bundle.name} ships with padlite and can't be removed",
            remedy="only models of your own: padlite models list",
        )
    try:
        if bundle.folder.is_symlink():
            bundle.folder.unlink()
        else:
            shutil.rmtree(bundle.folder)
    except OSError as error:
        raise PadliteError(
            f"{bundle.folder} can't be removed: {error.strerror}", remedy="check the rights of the folder"
        ) from error


@contextlib.contextmanager
def _made_beside(target: Path, sources: Sequence[Path | None]) -> Iterator[Path]:
    """Yield an empty folder that becomes *target* if nothing goes wrong, and goes away otherwise."""
    if target.exists():
        raise UsageError(
            f"{target} is there already", remedy=f"choose another --name, or remove it: padlite models rm {target.name}"
        )
    sizes = [path.stat().st_size for path in sources if path is not None and path.is_file()]
    try:
        free = shutil.disk_usage(target.parent).free
        if free < sum(sizes):
            raise BackendError(
                f"{sum(sizes) / 1e9:.1f} GB are needed in {target.parent}, and {free / 1e9:.1f} GB are free",
                remedy="make room, and try again",
            )
        with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as folder:
            made = Path(folder) / target.name
            made.mkdir()
            yield made
            made.rename(target)
    except OSError as error:
        raise PadliteError(
            f"{target} can't be written: {error.strerror}", remedy="check the rights of the folder above it"
        ) from error


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise NotFoundError(f"there is no file {source}", remedy="check the path")
    shutil.copyfile(source, target)


def _try(bundle: Bundle) -> None:
    """Open *bundle* as a chat would and let it answer; raises what that raises."""
    told = "helpfulness" if bundle.reward and preflight.kind_of(bundle.reward) == "lm" else ""
    profile = Profile(
        base=bundle.base, reward=bundle.reward, reward_text=told, context_length=bundle.context_length,
        preferences={each.name: 0.5 for each in bundle.dimensions}, decoding={"max_tokens": _TRIAL_TOKENS},
    )  # fmt: skip
    with open_chat(profile, device="cpu") as chat:
        for _ in chat.session.say(_TRIAL):
            pass
        answer = chat.session.last
    if answer is not None and answer.fallbacks:
        raise BackendError("the reward model gives no numbers", remedy="export it again")
