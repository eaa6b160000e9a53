"""Where the heads lie that a person's own dimensions are in, and how one is replaced: all at once or not at all.

A bundle's head is changed in the person's own copy of the bundle, which hides the one that ships with padlite. A bare
GGUF file stays where it is; its head lies in a folder that is named after the file's contents, so that it is found
again when the file is moved or renamed (`padlite.own_heads`). Knows no model and no sentence.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from padlite.backends.onnx_head_arrays import HeadArrays, load_arrays
from padlite.bundle import MANIFEST, Bundle, load_bundle, verify, write_manifest
from padlite.errors import BackendError, NotFoundError, PadliteError
from padlite.opening import Source
from padlite.own_heads import head_folder, own_head
from padlite.settings import Paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The place of one base model's head."""

    source: Source
    paths: Paths

    @property
    def head(self) -> Path | None:
        """The head as it is, or None if the base has none yet."""
        return self.source.bundle.reward if self.source.bundle else own_head(self.source.base, self.paths)

    def load(self) -> HeadArrays | None:
        """Return the head taken apart, or None. Raises BackendError for a damaged one."""
        if self.source.bundle is not None:
            verify(self.source.bundle, everything=False)
        return load_arrays(self.head) if self.head else None

    def require(self) -> HeadArrays:
        """Return the head taken apart; NotFoundError if there is none."""
        head = self.load()
        if head is None:
            raise NotFoundError(
                f"{self.source.name} has no dimensions yet",
                remedy='make one: padlite dimension add NAME --sentence "Answer like a pirate."',
            )
        return head

    def save(self, head: HeadArrays) -> Path:
        """Put *head* in the place of the old one and return its file. Raises BackendError if that can't be written."""
        try:
            if self.source.bundle is not None:
                return _save_in_bundle(head, self.source.bundle, self.paths.user_models)
            return _save_beside(head, head_folder(self.source.base, self.paths))
        except PadliteError:
            raise
        except OSError as error:
            raise BackendError(
                f"the head can't be written: {error.strerror or error}", remedy="check the disk; see `padlite paths`"
            ) from error

    def discard(self) -> None:
        """Forget the head of a bare GGUF file, whose last dimension is gone."""
        if self.source.bundle is not None:
            raise BackendError(
                "this is the bundle's last dimension, and a head needs one",
                remedy=f"remove the whole copy of the bundle: rm -r {self.paths.user_models / self.source.name}",
            )
        shutil.rmtree(head_folder(self.source.base, self.paths), ignore_errors=True)


def _save_in_bundle(head: HeadArrays, bundle: Bundle, user_models: Path) -> Path:
    """Write a new file beside the old head and then the manifest, which is what makes it the head."""
    own = user_models / bundle.name
    if bundle.folder.resolve() != own.resolve():
        bundle = _copy(bundle, own)
    old, path = bundle.reward, _next(bundle.folder)
    head.save(path)
    write_manifest(
        bundle.folder,
        name=bundle.name,
        license=bundle.license,
        base=bundle.base.name,
        reward=path.name,
        title=bundle.title,
        description=bundle.description,
        dimensions=head.dimensions,
        strength=bundle.strength,
        candidates=bundle.candidates,
        context_length=bundle.context_length,
        training=bundle.training,
    )
    if old is not None and old != path:
        _remove(old)
    return path


def _copy(bundle: Bundle, own: Path) -> Bundle:
    """Copy a bundle into the person's own folder; it appears there when it is complete."""
    half = own.with_name(f".{own.name}.partial")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(bundle.folder, half, ignore=shutil.ignore_patterns(MANIFEST))
    shutil.copyfile(bundle.folder / MANIFEST, half / MANIFEST)
    half.rename(own)
    return load_bundle(own)


def _save_beside(head: HeadArrays, folder: Path) -> Path:
    """Write the next file of *folder*; the newest one is the head, and older ones go."""
    folder.mkdir(parents=True, exist_ok=True)
    old, path = sorted(folder.glob("*.onnx")), _next(folder)
    head.save(path)
    for each in old:
        _remove(each)
    return path


def _next(folder: Path) -> Path:
    """Return a name that sorts behind all heads in *folder*."""
    taken = [
        int(digits)
        for file in folder.glob("reward-*.onnx")
        if (digits := file.stem.removeprefix("reward-")).isdecimal()
    ]
    return folder / f"reward-{max(taken, default=1) + 1:06}.onnx"


def _remove(head: Path) -> None:
    for file in (head, head.with_name(head.name + ".data")):
        file.unlink(missing_ok=True)
