"""Finds llama.cpp's own converter at the version that is installed: given, kept from before, or fetched by pip.

It lies in llama-cpp-python's source archive. pip finds the archive, checks its sha256 and asks only for its metadata,
so nothing is compiled; of the archive, the converter alone is kept. Runs no converter.
"""

import contextlib
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from padlite.backends.llama import version
from padlite.errors import BackendError, NotFoundError, PadliteError

SCRIPT = "convert_hf_to_gguf.py"
_KEPT = (SCRIPT, "conversion", "gguf-py", "LICENSE")
_ORIGIN = "origin.txt"
_SHOWN_LINES = 5
_OFFLINE = "try again with a network, or name a folder of llama.cpp with --converter DIR"


def find_converter(given: Path | None, kept: Path, tell: Callable[[str], None]) -> Path:
    """Return the folder with the converter: *given*, or that of this version in *kept*, fetched if it isn't there.

    Raises NotFoundError if there is none in *given* or it can't be fetched, BackendError if the archive is another.
    """
    if given is not None:
        if not (given / SCRIPT).is_file():
            raise NotFoundError(
                f"there is no {SCRIPT} in {given}", remedy="name a folder of llama.cpp with --converter"
            )
        return given
    folder = kept / f"llama-cpp-python-{version()}"
    if not (folder / SCRIPT).is_file():
        tell(f"fetching llama.cpp's converter for version {version()}")
        _fetch(folder)
    return folder


def origin(folder: Path) -> str:
    """Return where the converter in *folder* comes from: the archive and its sha256, or the folder itself."""
    noted = folder / _ORIGIN
    return noted.read_text(encoding="utf-8").strip() if noted.is_file() else str(folder)


def _fetch(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as work:
            made, archive = Path(work) / "converter", _download(Path(work))
            unpack(archive, made)
            with archive.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            (made / _ORIGIN).write_text(f"{archive.name}, sha256 {digest}\n", encoding="utf-8")
            with contextlib.suppress(OSError):  # somebody else was faster
                made.rename(folder)
    except OSError as error:
        raise PadliteError(
            f"{folder.parent} can't be written: {error.strerror}", remedy="set PADLITE_CACHE_DIR to another folder"
        ) from error


def _download(work: Path) -> Path:
    """Return the source archive, put into *work* by pip."""
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--no-binary", "llama-cpp-python", "--dest", str(work), f"llama-cpp-python=={version()}",
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    archives = list(work.glob("llama_cpp_python-*.tar.gz"))
    if ended.returncode != 0 or len(archives) != 1:
        lines = [line.strip() for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
        raise NotFoundError(
            f"llama-cpp-python {version()} can't be fetched as a source archive: "
            + " / ".join(lines[-_SHOWN_LINES:])[-600:],
            remedy=_OFFLINE,
        )
    return archives[0]


def unpack(archive: Path, target: Path) -> None:
    """Put the converter in *archive* into the new folder *target*. Raises BackendError for another archive."""
    root = f"llama_cpp_python-{version()}"
    vendored = f"{root}/vendor/llama.cpp/"
    try:
        with tarfile.open(archive) as tar:
            if _stated_version(tar, root) != version():
                raise BackendError(f"{archive.name} isn't version {version()}", remedy=_OFFLINE)
            for member in _wanted(tar, vendored):
                member.name = member.name.removeprefix(vendored)
                tar.extract(member, target, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise BackendError(f"{archive.name} is no source archive: {error}", remedy=_OFFLINE) from error
    if not (target / SCRIPT).is_file():
        shutil.rmtree(target, ignore_errors=True)
        raise BackendError(
            f"{archive.name} holds no {SCRIPT}", remedy="name a folder of llama.cpp with --converter DIR"
        )


def _stated_version(tar: tarfile.TarFile, root: str) -> str:
    with contextlib.suppress(KeyError):
        file = tar.extractfile(f"{root}/PKG-INFO")
        for line in file.read().decode("utf-8", "replace").splitlines() if file else ():
            if line.startswith("Version: "):
                return line.removeprefix("Version: ").strip()
    return ""


def _wanted(tar: tarfile.TarFile, vendored: str) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        if member.name.startswith(vendored) and member.name.removeprefix(vendored).split("/")[0] in _KEPT:
            yield member
