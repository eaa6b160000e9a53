"""Takes files from one machine to another in parts of a limited size, and puts them together again.

    python -m padlite_training.parts join FOLDER --work build/small

The parts are a tar archive in xz, so that a missing or damaged one is noticed. Sizes in bytes.
"""

import argparse
import lzma
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from padlite.errors import BackendError, NotFoundError
from padlite_training.endings import told_plainly

PART_BYTES = 15_000_000
NAME = "parts.tar.xz"


def pack_files(archive: Path, files: Iterable[Path], *, folder: Path, preset: int = 6) -> None:
    """Write *files*, which lie in *folder*, to the tar *archive* in xz; a half one never has its name."""
    temporary = archive.with_name(archive.name + ".tmp")
    with lzma.open(temporary, "wb", preset=preset) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for path in files:
            tar.add(path, arcname=path.relative_to(folder))
    temporary.replace(archive)


def unpack_files(archive: IO[bytes], folder: Path, *, name: str) -> None:
    """Write the files in the tar *archive*, called *name*, to *folder*. Raises BackendError when it is damaged."""
    try:
        with tarfile.open(fileobj=archive, mode="r:xz") as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise BackendError(f"{name} is damaged or incomplete: {error}", remedy="copy it again") from error


def split_file(path: Path, folder: Path, *, part_bytes: int = PART_BYTES) -> list[Path]:
    """Write the bytes of *path* to NAME.000, NAME.001, … in *folder* and return these."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Path] = []
    with path.open("rb") as source:
        while block := source.read(part_bytes):
            part = folder / f"{path.name}.{len(parts):03d}"
            part.write_bytes(block)
            parts.append(part)
    return parts


def join_parts(folder: Path, target: Path, *, name: str = NAME) -> None:
    """Unpack the archive whose parts lie in *folder* into *target*.

    Raises NotFoundError when a part is absent, BackendError when one is damaged.
    """
    parts = sorted(folder.glob(f"{name}.[0-9][0-9][0-9]"))
    absent = [number for number, part in enumerate(parts) if part.suffix != f".{number:03d}"]
    if absent or not parts:
        missing = f"{name}.{absent[0] if absent else 0:03d}"
        raise NotFoundError(f"{folder} has no {missing}", remedy="copy all parts into this folder")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as whole:
        for part in parts:
            whole.write(part.read_bytes())
        whole.seek(0)
        unpack_files(whole, target, name=f"{folder / name}.*")


def main(arguments: Sequence[str] | None = None) -> None:
    """Join the parts named on the command line."""
    parser = argparse.ArgumentParser(description="Put together what a training on another machine sent in parts.")
    parser.add_argument("action", choices=("join",))
    parser.add_argument("folder", type=Path, help="where the parts lie")
    parser.add_argument("--work", type=Path, required=True, help="the training's work folder, to go on with `build`")
    options = parser.parse_args(arguments)
    with told_plainly():
        join_parts(options.folder, options.work)


if __name__ == "__main__":
    main()
