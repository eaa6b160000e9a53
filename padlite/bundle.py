"""A bundle: a folder with a base model, a reward model and `bundle.toml`, the manifest that binds them.

The manifest is read strictly and its file names are bare names inside the folder; sizes and sha256 are checked before
anything is opened (`verify`). Bundles are looked for among the person's own and among those that ship with padlite.
Knows nothing of what is inside the model files.
"""

import hashlib
import logging
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import tomlkit
from tomlkit.items import AoT

from padlite import settings
from padlite.errors import BackendError, NotFoundError, did_you_mean
from padlite.seams import Dimension
from padlite.strict_toml import StrictTable
from padlite.whole_files import write_whole

MANIFEST = "bundle.toml"
SCHEMA = 1
ALWAYS_HASHED_BYTES = 64 * 2**20

_MANIFEST_BYTES = 2**20
_REQUIRED = {"schema", "name", "license", "base", "files"}
_OPTIONAL = {"title", "description", "reward", "dimensions", "strength", "candidates", "context_length", "training"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """One file of a bundle as its manifest describes it; *size* in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A base model, its reward model if it has one, and the decoding defaults that suit them.

    *strength* is β, *candidates* is k, *context_length* 0 is the base model's own. *training* says where the models
    come from, in words.
    """

    folder: Path
    name: str
    license: str
    base: Path
    reward: Path | None = None
    title: str = ""
    description: str = ""
    dimensions: tuple[Dimension, ...] = ()
    strength: float = 1.0
    candidates: int = 10
    context_length: int = 0
    files: tuple[BundleFile, ...] = ()
    training: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def bundle_folders(paths: settings.Paths | None = None) -> dict[str, Path]:
    """Return every folder that holds a manifest, by name; a person's own hides a shipped one of the same name."""
    roots = (settings.bundled_models(), (paths or settings.paths()).user_models)
    return {found.parent.name: found.parent for root in roots for found in sorted(root.glob(f"*/{MANIFEST}"))}


def find_bundle(name: str, paths: settings.Paths | None = None) -> Bundle:
    """Return the bundle called *name*, or in the folder at that absolute path.

    Raises NotFoundError, listing those there are, and as `load_bundle`.
    """
    if Path(name).is_absolute():
        return load_bundle(Path(name))
    folders = bundle_folders(paths)
    if name not in folders:
        known = ", ".join(sorted(folders)) or "none"
        raise NotFoundError(
            f"there is no model {name!r}{did_you_mean(name, folders)} (installed: {known})",
            remedy="see `padlite models list`, or name a GGUF file in the profile: base = 'path.gguf'",
        )
    bundle = load_bundle(folders[name])
    if bundle.name != name:
        raise BackendError(
            f"the model folder {name!r} holds a manifest that calls itself {bundle.name!r}",
            remedy=f"rename the folder to {bundle.name}",
        )
    return bundle


def list_bundles(paths: settings.Paths | None = None) -> list[Bundle]:
    """Return all bundles that can be read, by name; the others are logged as warnings."""
    bundles: list[Bundle] = []
    for _, folder in sorted(bundle_folders(paths).items()):
        try:
            bundles.append(load_bundle(folder))
        except BackendError as error:
            _log.warning("%s", error.message)
    return bundles


def load_bundle(folder: Path) -> Bundle:
    """Return the bundle in *folder* without touching its model files.

    Raises NotFoundError if there is no manifest, BackendError with the reason if it can't be used.
    """
    path = folder / MANIFEST

    def refuse(reason: str) -> BackendError:
        return BackendError(f"{path}: {reason}", remedy="install the model again, or correct its manifest")

    table = StrictTable(_parse(_read(path), refuse), refuse)
    schema = table.whole_number("schema")
    if schema != SCHEMA:
        raise BackendError(f"{path}: it has schema {schema}, this padlite reads {SCHEMA}", remedy="upgrade padlite")
    table.require_keys(_REQUIRED, _OPTIONAL)
    files = tuple(map(_read_file, table.tables("files")))
    dimensions = tuple(map(_read_dimension, table.tables("dimensions")))
    _require_distinct("file", [each.name for each in files], table)
    _require_distinct("dimension", [each.name for each in dimensions], table)
    models = {key: table.file_name(key) for key in ("base", "reward") if key in table.values}
    for name in models.values():
        if name not in {each.name for each in files}:
            raise refuse(f"its [[files]] lack {name!r}")
    return Bundle(
        folder=folder,
        name=table.file_name("name"),
        title=table.text("title", ""),
        description=table.text("description", ""),
        license=table.text("license"),
        base=folder / models["base"],
        reward=folder / models["reward"] if "reward" in models else None,
        dimensions=dimensions,
        strength=table.number("strength", 1.0, low=-100.0, high=100.0),
        candidates=table.whole_number("candidates", 10, low=1, high=1000),
        context_length=table.whole_number("context_length", 0, high=10_000_000),
        files=files,
        training=MappingProxyType(table.texts("training")),
    )


def verify(bundle: Bundle, *, everything: bool) -> None:
    """Raise BackendError, naming the file, unless the bundle's files are those of its manifest.

    Sizes are always compared, sha256 for files up to 64 MiB, and for larger ones only with *everything*.
    """
    for each in bundle.files:
        verify_file(bundle, each, hashed=everything or each.size <= ALWAYS_HASHED_BYTES)
    for path in companions(bundle.reward) if bundle.reward else ():
        if path.name not in {each.name for each in bundle.files}:
            raise BackendError(f"{path.name} of model {bundle.name!r} is not in its manifest", remedy=f"remove {path}")


def companions(reward: Path) -> list[Path]:
    """Return the files that lie beside the reward model *reward* and belong to it: its weights, its own tokenizer."""
    paths = (reward.with_name(reward.name + end) for end in (".data", ".tokenizer.json"))
    return [path for path in paths if path.exists()]


def verify_file(bundle: Bundle, file: BundleFile, *, hashed: bool) -> None:
    """Raise BackendError unless one file has the size, and if *hashed* the sha256, that the manifest says."""
    path = bundle.folder / file.name
    where = f"{file.name} of model {bundle.name!r}"
    remedy = f"install the model again; `padlite models verify {bundle.name}` checks all its files"
    if not path.is_file():
        raise BackendError(f"{where} is missing or no regular file", remedy=remedy)
    try:
        size = path.stat().st_size
        found = _sha256(path) if hashed and size == file.size else file.sha256
    except OSError as error:
        raise BackendError(
            f"{where} can't be read: {error.strerror}", remedy="check the file and its rights"
        ) from error
    if size != file.size:
        raise BackendError(f"{where} has {size} bytes instead of {file.size}", remedy=remedy)
    if found != file.sha256:
        raise BackendError(
            f"{where} is damaged or was changed: sha256 {found[:12]}… instead of {file.sha256[:12]}…", remedy=remedy
        )


def write_manifest(
    folder: Path,
    *,
    name: str,
    license: str,  # noqa: A002  the manifest's word
    base: str = "base.gguf",
    reward: str | None = "reward.onnx",
    title: str = "",
    description: str = "",
    dimensions: Sequence[Dimension] = (),
    strength: float = 1.0,
    candidates: int = 10,
    context_length: int = 0,
    training: Mapping[str, str] | None = None,
) -> Bundle:
    """Write `bundle.toml` for the model files in *folder*, replacing an older one, and return the bundle.

    Lists the base model, the reward model and its companions with their sizes and sha256; the card is not listed, so
    that it may be edited. Raises NotFoundError for a missing file.
    """
    document = tomlkit.document()
    document.add(tomlkit.comment("What this folder holds. Written by padlite, read strictly (docs/formats.md)."))
    values = {"schema": SCHEMA, "name": name, "title": title, "description": description, "license": license}
    values |= {"base": base, **({"reward": reward} if reward else {})}
    values |= {"strength": strength, "candidates": candidates, "context_length": context_length}
    for key, value in values.items():
        document.add(key, tomlkit.item(value))
    if dimensions:
        entries = ({"name": d.name, "description": d.description, "scale": d.scale} for d in dimensions)
        document.add("dimensions", _tables(entries))
    listed = [each for each in (base, reward) if each]
    listed += [path.name for path in companions(folder / reward)] if reward else []
    document.add("files", _tables(_describe(folder / each) for each in listed))
    if training:
        document.add("training", tomlkit.item(dict(training)))
    write_whole(folder / MANIFEST, tomlkit.dumps(document).encode())
    return load_bundle(folder)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MANIFEST_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path.parent} is no model folder: it has no {MANIFEST}",
            remedy="name a folder that has one, a GGUF file, or one of `padlite models list`",
        ) from error
    except OSError as error:
        raise BackendError(f"{path} can't be read: {error.strerror}", remedy="check the file and its rights") from error


def _parse(data: bytes, refuse: Callable[[str], BackendError]) -> dict[str, object]:
    if len(data) > _MANIFEST_BYTES:
        raise refuse("it is larger than 1 MiB")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise refuse("it is not UTF-8 text") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        raise refuse(f"it is no TOML: {error}") from error


def _read_file(table: StrictTable) -> BundleFile:
    table.require_keys({"name", "sha256", "size"}, set())
    sha256 = table.text("sha256")
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise table.refuse(f"{table.path('sha256')} must be 64 hexadecimal digits")
    return BundleFile(name=table.file_name("name"), sha256=sha256, size=table.whole_number("size"))


def _read_dimension(table: StrictTable) -> Dimension:
    table.require_keys({"name"}, {"description", "scale"})
    return Dimension(
        name=table.text("name"), description=table.text("description", ""), scale=table.number("scale", 1.0)
    )


def _require_distinct(kind: str, names: Sequence[str], table: StrictTable) -> None:
    if len(set(names)) != len(names):
        raise table.refuse(f"it names a {kind} twice")


def _describe(path: Path) -> dict[str, object]:
    if not path.is_file():
        raise NotFoundError(f"{path} is missing", remedy="put the model files into the folder first")
    return {"name": path.name, "sha256": _sha256(path), "size": path.stat().st_size}


def _tables(entries: Iterable[Mapping[str, object]]) -> AoT:
    array = tomlkit.aot()
    for entry in entries:
        table = tomlkit.table()
        table.update(entry)
        array.append(table)
    return array


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
