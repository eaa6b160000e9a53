"""Puts bundles together, tries them, installs and removes them: files in, a model that can be chatted with out.

Everything is copied beside the target under another name, opened as a chat would open it, made to answer, and only then
renamed: what is installed works, and what is refused leaves nothing. Knows no terminal and no network.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from padlite.backends import preflight
from padlite.backends.onnx_reward import open_reward
from padlite.bundle import MANIFEST, Bundle, companions, load_bundle, verify, write_manifest
from padlite.errors import BackendError, NotFoundError, PadliteError, UsageError
from padlite.naming import check_name
from padlite.opening import open_chat
from padlite.private_files import make_private_folder
from padlite.profile import Profile
from padlite.seams import Dimension
from padlite.settings import Paths, bundled_models

_BASE = "base.gguf"
_TRIAL = "Hello."
_TRIAL_TOKENS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a new bundle is made of; *base* is a GGUF, *reward* an ONNX file, *card* a text for people.

    *training* says where they come from. *share*: the files are nobody's to change, so the bundle may hold them by
    another link instead of a copy.
    """

    name: str
    base: Path
    license: str
    reward: Path | None = None
    card: Path | None = None
    title: str = ""
    description: str = ""
    context_length: int = 0
    training: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    share: bool = False


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
    with _made_beside(target, [parts.base, parts.reward], share=parts.share) as folder:
        _copy(parts.base, folder / _BASE, share=parts.share)
        reward = None
        if parts.reward is not None:
            reward = parts.reward.name  # the graph names its data file, so neither can be renamed
            _copy(parts.reward, folder / reward)
            for path in companions(parts.reward):
                _copy(path, folder / path.name)
        if parts.card is not None:
            _copy(parts.card, folder / "card.md")
        dimensions: tuple[Dimension, ...] = ()
        if reward is not None:
            with open_reward(folder / reward, device="cpu", context_length=8) as opened:
                dimensions = opened.dimensions
        bundle = write_manifest(
            folder, name=parts.name, license=parts.license, base=_BASE, reward=reward, title=parts.title,
            description=parts.description, dimensions=dimensions, context_length=parts.context_length,
            training=parts.training,
        )  # fmt: skip
        _try(bundle)
    return load_bundle(target)


def install(source: Path, paths: Paths, *, name: str | None = None, share: bool = False) -> Bundle:
    """Copy the bundle in the folder *source* among the person's own, after it has answered, and return it.

    *share* as in `Parts`.
    """
    bundle = load_bundle(source)
    if name is not None and name != bundle.name:
        raise UsageError(
            f"this bundle is called {bundle.name!r}, not {name!r}", remedy="leave out --name, or edit its bundle.toml"
        )
    check_name(bundle.name, kind="model")
    verify(bundle, everything=True)
    listed = [source / each.name for each in bundle.files]
    target = own_folder(bundle.name, paths)
    with _made_beside(target, listed, share=share) as folder:
        for path in listed:
            _copy(path, folder / path.name, share=share)
        for path in [source / MANIFEST, *(each for each in [source / "card.md"] if each.is_file())]:
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


def free_folder(name: str, paths: Paths) -> Path:
    """Return where a new bundle *name* of the person's own goes.

    Raises UsageError for a name that is taken, also by a bundle that ships with padlite: none shall hide it.
    """
    check_name(name, kind="model")
    if (bundled_models() / name / MANIFEST).is_file():
        raise UsageError(f"{name} is the name of a model that ships with padlite", remedy="choose another --name")
    target = own_folder(name, paths)
    require_new(target, remedy=f"choose another --name, or remove it: padlite models rm {name}")
    return target


def require_own(bundle: Bundle, paths: Paths) -> None:
    """Raise UsageError for a bundle that ships with padlite."""
    if bundle.folder.parent != paths.user_models:
        raise UsageError(
            f"{bundle.name} ships with padlite and can't be removed",
            remedy="only models of your own: padlite models list",
        )


def remove(bundle: Bundle, paths: Paths) -> None:
    """Remove a bundle of the person's own. Raises UsageError for one that ships with padlite."""
    require_own(bundle, paths)
    try:
        if bundle.folder.is_symlink():
            bundle.folder.unlink()
        else:
            shutil.rmtree(bundle.folder)
    except OSError as error:
        raise PadliteError(
            f"{bundle.folder} can't be removed: {error.strerror}", remedy="check the rights of the folder"
        ) from error


def require_room(folder: Path, needed: int, *, free: int) -> None:
    """Raise BackendError unless *free* bytes are enough for the *needed* ones in *folder*."""
    if free < needed:
        raise BackendError(
            f"{_size(needed)} are needed in {folder}, and {_size(free)} are free",
            remedy="make room, and try again",
        )


def existing(folder: Path) -> Path:
    """Return *folder*, or the nearest one above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def require_new(target: Path, *, remedy: str) -> None:
    """Raise UsageError with *remedy* if there is something at *target*."""
    if target.exists():
        raise UsageError(f"{target} is there already", remedy=remedy)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


@contextlib.contextmanager
def _made_beside(target: Path, sources: Sequence[Path | None], *, share: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes *target* if nothing goes wrong, and goes away otherwise."""
    require_new(target, remedy=f"choose another name, or remove it: padlite models rm {target.name}")
    files = [path.stat() for path in sources if path is not None and path.is_file()]
    try:
        device = target.parent.stat().st_dev
        needed = sum(file.st_size for file in files if not (share and file.st_dev == device))
        require_room(target.parent, needed, free=shutil.disk_usage(target.parent).free)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as folder:
            made = Path(folder) / target.name
            made.mkdir()
            yield made
            made.rename(target)
    except OSError as error:
        raise PadliteError(
            f"{target} can't be written: {error.strerror}", remedy="check the rights of the folder above it"
        ) from error


def _copy(source: Path, target: Path, *, share: bool = False) -> None:
    """Copy *source*, or with *share* make *target* another name of it where the file system can."""
    if not source.is_file():
        raise NotFoundError(f"there is no file {source}", remedy="check the path")
    if share:
        with contextlib.suppress(OSError):
            os.link(source.resolve(), target)
            return
    shutil.copyfile(source, target)


def _try(bundle: Bundle) -> None:
    """Open *bundle* as a chat would and let it answer; raises what that raises."""
    told = "helpfulness" if bundle.reward and preflight.kind_of(bundle.reward) == "lm" else ""
    profile = Profile(
        base=bundle.base, reward=bundle.reward, reward_text=told, context_length=bundle.context_length,
        preferences={each.name: 0.5 for each in bundle.dimensions}, decoding={"max_tokens": _TRIAL_TOKENS},
        device="cpu",
    )  # fmt: skip
    with open_chat(profile) as chat:
        for _ in chat.session.say(_TRIAL):
            pass
        answer = chat.session.last
    if answer is not None and answer.fallbacks:
        raise BackendError("the reward model gives no numbers", remedy="export it again")
