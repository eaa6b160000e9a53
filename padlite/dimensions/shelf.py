"""Where the heads lie that a person's own dimensions are in, and how one is replaced: all at once or not at all.

A bundle's head is changed in the person's own copy of the bundle, which hides the one that ships with padlite. A bare
GGUF file stays where it is; its head lies in a folder that is named after the file's contents, so that it is found
again when the file is moved or renamed (`padlite.own_heads`). Who changes a head holds a lock, and starts from the head
as it is then: two processes never undo each other's work. Knows no model and no sentence.
"""

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from padlite.backends.onnx_head_arrays import HeadArrays, load_arrays
from padlite.backends.preflight import kind_of
from padlite.bundle import MANIFEST, Bundle, load_bundle, verify, write_manifest
from padlite.errors import BackendError, NotFoundError, PadliteError, UsageError
from padlite.locking import held
from padlite.opening import Source
from padlite.own_heads import head_folder, own_head
from padlite.private_files import make_private_folder
from padlite.settings import Paths, bundled_models

_WAIT_S = 60.0  # another process needs a second or two for a head, longer where it copies a large bundle first


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The place of one base model's head."""

    source: Source
    paths: Paths

    @property
    def head(self) -> Path | None:
        """The head as it is, or None if the base has none yet."""
        return self.source.bundle.reward if self.source.bundle else own_head(self.source.base, self.paths)

    @property
    def folder(self) -> Path:
        """The person's own folder in which a changed head is kept, whether it is there or not."""
        if self.source.bundle is not None:
            return self.paths.user_models / self.source.bundle.name
        return head_folder(self.source.base, self.paths)

    def load(self) -> HeadArrays | None:
        """Return the head taken apart, or None. Raises BackendError for a damaged one, UsageError for a reward LM."""
        if self.source.bundle is not None:
            verify(self.source.bundle, everything=False)
        if self.head is None:
            return None
        if kind_of(self.head) == "lm":
            raise UsageError(
                f"{self.source.name} has a reward LM, which dimensions can't join",
                remedy="use the sentence as it is: [preferences.sentences] in a profile (docs/profile.md)",
            )
        return load_arrays(self.head)

    def require(self) -> HeadArrays:
        """Return the head taken apart; NotFoundError if there is none."""
        return self.required(self.load())

    def required(self, head: HeadArrays | None) -> HeadArrays:
        """Return *head*, or raise NotFoundError if there is none."""
        if head is None:
            raise NotFoundError(
                f"{self.source.name} has no dimensions yet",
                remedy='make one: padlite dimension add NAME --sentence "Answer like a pirate."',
            )
        return head

    def require_place(self) -> None:
        """Raise UsageError unless a changed head has a place: a bundle's is the person's own copy of it, or a new one.

        Of a bundle named by its folder there may be an own copy already, which others would not find in that folder.
        """
        bundle = self.source.bundle
        if bundle is None or not os.path.lexists(self.folder) or _is_same(bundle.folder, self.folder):
            return
        if not (self.folder / MANIFEST).is_file():
            raise UsageError(
                f"{self.folder}, where the model's copy belongs, is there and holds no model",
                remedy=f"rename it: mv {_quoted(self.folder)} {_quoted(self.folder.with_name(bundle.name + '-old'))}",
            )
        raise UsageError(
            f"there is a model {bundle.name} of your own already, in {self.folder}, and it isn't this one",
            remedy=f"change that one: --model {shlex.quote(bundle.name)}",
        )

    def save(self, change: Callable[[HeadArrays | None], HeadArrays]) -> Path:
        """Put what *change* makes of the head in its place, and return the new file.

        *change* gets the head as it is now, whatever it was when the shelf was made, and nobody else changes it
        meanwhile. Raises what *change* raises, and as `load` and `require_place`; BackendError if the head can't be
        written, PadliteError if another process is at it for a minute.
        """
        with self._alone() as now:
            return now._put(change(now.load()))

    def reduce(self, change: Callable[[HeadArrays | None], HeadArrays | None]) -> None:
        """Do as `save` does; where *change* leaves nothing, a GGUF file has no head any more.

        Raises as `save`, and BackendError where a bundle would lose its last dimension.
        """
        with self._alone() as now:
            rest = change(now.load())
            if rest is None:
                now._discard()
            else:
                now._put(rest)

    @contextlib.contextmanager
    def _alone(self) -> "Iterator[Shelf]":
        """Yield the shelf as it is now, and let nobody else change it meanwhile."""
        with contextlib.ExitStack() as stack:
            try:
                make_private_folder(self.paths.data)
                make_private_folder(self.folder.parent)
                stack.enter_context(held(self.folder.with_name(f".{self.folder.name}.lock"), wait_s=_WAIT_S))
            except BlockingIOError as error:
                raise PadliteError(
                    f"the dimensions of {self.source.name} are being changed by another padlite process",
                    remedy="wait until that is done, and run the command again",
                ) from error
            except OSError as error:
                raise _unwritable(error) from error
            now = self._as_it_is()
            now.require_place()
            yield now

    def _put(self, head: HeadArrays) -> Path:
        try:
            if self.source.bundle is not None:
                return _save_in_bundle(head, self.source.bundle, self.folder)
            return _save_beside(head, self.folder)
        except OSError as error:
            raise _unwritable(error) from error

    def _as_it_is(self) -> "Shelf":
        """Return the shelf of the bundle as it is on disk: another process may have changed or copied it by now."""
        bundle = self.source.bundle
        if bundle is None:
            return self
        shipped = _is_same(bundle.folder.parent, bundled_models())
        hidden = shipped and (self.folder / MANIFEST).is_file()
        bundle = load_bundle(self.folder if hidden else bundle.folder)
        return replace(self, source=replace(self.source, base=bundle.base, reward=bundle.reward, bundle=bundle))

    def _discard(self) -> None:
        """Forget the head of a bare GGUF file, whose last dimension is gone."""
        if self.source.bundle is not None:
            raise BackendError(
                "this is the bundle's last dimension, and a head needs one",
                remedy=f"remove the whole copy of the bundle: rm -r {_quoted(self.folder)}",
            )
        try:
            for head in sorted(self.folder.glob("reward-*.onnx")):  # the newest last: it is the head until it is gone
                head.unlink()
        except OSError as error:
            raise _unwritable(error) from error
        shutil.rmtree(self.folder, ignore_errors=True)


def _save_in_bundle(head: HeadArrays, bundle: Bundle, own: Path) -> Path:
    """Write a new file beside the old head and then the manifest, which is what makes it the head."""
    if not _is_same(bundle.folder, own):
        bundle = _copy(bundle, own)
    path = _write_next(head, bundle.folder)
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
    _remove_others(path, bundle.reward)
    return path


def _copy(bundle: Bundle, own: Path) -> Bundle:
    """Copy a bundle into the person's own folder; it appears there when it is complete."""
    half = own.with_name(f".{own.name}.partial")
    shutil.rmtree(half, ignore_errors=True)
    try:
        shutil.copytree(bundle.folder, half, ignore=shutil.ignore_patterns(MANIFEST))
        shutil.copyfile(bundle.folder / MANIFEST, half / MANIFEST)
        half.rename(own)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
    return load_bundle(own)


def _save_beside(head: HeadArrays, folder: Path) -> Path:
    """Write the next file of *folder*; the newest one is the head, and older ones go."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _write_next(head, folder)
    _remove_others(path)
    return path


def _write_next(head: HeadArrays, folder: Path) -> Path:
    """Write *head* to a file that sorts behind all heads in *folder*; if that fails, nothing of it stays."""
    number = max(map(_number, folder.glob("reward-*")), default=1) + 1
    path = folder / f"reward-{number:06}.onnx"
    try:
        head.save(path)
    except BaseException:
        _remove(each for each in folder.glob("reward-*") if _number(each) == number)
        raise
    return path


def _number(file: Path) -> int:
    """Return which generation of the head *file* belongs to, 1 for what isn't called like one."""
    digits = file.name.removeprefix("reward-").split(".")[0]
    return int(digits) if digits.isdecimal() else 1


def _remove_others(head: Path, old: Path | None = None) -> None:
    """Remove all generations but *head*, what a kill left of one, and *old*; what can't be removed stays until later.

    The new head is in its place, so a file that somebody still has open (Windows) is no failure.
    """
    _remove(each for each in head.parent.glob("reward-*") if _number(each) not in {1, _number(head)})
    if old is not None:
        _remove([old, old.with_name(old.name + ".data")])


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink()


def _unwritable(error: OSError) -> BackendError:
    reason = str(error.args[0][0][2]) if isinstance(error, shutil.Error) else error.strerror or str(error)
    return BackendError(f"the head can't be changed: {reason}", remedy="check the disk; see `padlite paths`")


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
