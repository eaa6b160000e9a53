"""`padlite models`: which bundles there are, what is in one, whether its files are unchanged; add and remove them."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import click

from padlite import settings
from padlite.bundle import Bundle, bundle_folders, find_bundle, load_bundle, verify
from padlite.cli.groups import SuggestingGroup
from padlite.cli.pull import pull
from padlite.errors import PadliteError, UsageError
from padlite.profile import DEFAULT_MODEL

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"


@click.group(cls=SuggestingGroup)
def models() -> None:
    """List, show, verify, pull, add and remove models.

    A model comes as a bundle: a folder with a base model (GGUF), a reward model (ONNX) and a manifest that binds them.
    """


models.add_command(pull)

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_name_argument = click.argument("name", default=DEFAULT_MODEL)


@models.command("list")
@_json_option
def list_(*, as_json: bool) -> None:
    """List the bundles that padlite finds; those that can't be used are named on stderr."""
    bundles: list[Bundle] = []
    for name, folder in sorted(bundle_folders(settings.paths()).items()):
        try:
            bundles.append(load_bundle(folder))
        except PadliteError as error:
            click.echo(f"{name} can't be used: {error.message}", err=True)
    if as_json:
        _print_json([_row(bundle) for bundle in bundles])
    elif bundles:
        _print_table(bundles)
    else:
        click.echo(f"no models: put a bundle into {settings.paths().user_models}", err=True)


def _print_table(bundles: Sequence[Bundle]) -> None:
    table = [("NAME", "SIZE", "DIMENSIONS", "LICENCE", "FOLDER")]
    for bundle in bundles:
        names = ", ".join(dimension.name for dimension in bundle.dimensions) or "none"
        table.append((bundle.name, megabytes(_size(bundle)), names, bundle.license, homely(bundle.folder)))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


@models.command()
@_name_argument
@_json_option
def show(*, name: str, as_json: bool) -> None:
    """Show what is in the bundle NAME."""
    bundle = find_bundle(name, settings.paths())
    if as_json:
        _print_json(_details(bundle))
        return
    click.echo(f"{bundle.name}: {bundle.title}" if bundle.title else bundle.name)
    if bundle.description:
        click.echo(bundle.description)
    _print_section(
        "",
        [
            ("licence", bundle.license),
            ("folder", homely(bundle.folder)),
            ("context", f"{bundle.context_length:,} tokens" if bundle.context_length else "the base model's own"),
            (
                "guidance",
                f"strength {bundle.strength:g}, {bundle.candidates} candidates, unless a profile says otherwise",
            ),
        ],
    )
    _print_section("dimensions", [(each.name, each.description) for each in bundle.dimensions])
    _print_section("files", [(each.name, f"{megabytes(each.size):>9}  sha256 {each.sha256}") for each in bundle.files])
    _print_section("training", list(bundle.training.items()))


@models.command("verify")
@_name_argument
@_json_option
def verify_(*, name: str, as_json: bool) -> None:
    """Compare every file of the bundle NAME with its manifest."""
    bundle = find_bundle(name, settings.paths())
    verify(bundle, everything=True)
    if as_json:
        _print_json({"name": bundle.name, "ok": True, "files": len(bundle.files), "bytes": _size(bundle)})
        return
    click.echo(f"{bundle.name}: {len(bundle.files)} files, {megabytes(_size(bundle))}, all as the manifest says")


@models.command()
@_name_argument
@_json_option
def path(*, name: str, as_json: bool) -> None:
    """Print the folder of the bundle NAME."""
    folder = str(find_bundle(name, settings.paths()).folder)
    if as_json:
        _print_json({"name": name, "folder": folder})
        return
    click.echo(folder)


_license_option = click.option(
    "--license", metavar="NAME", default="unknown", show_default=True, help="The licence of the models."
)


@models.command()
@click.argument("sources", metavar="DIR|FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="What it is called; default: the bundle's or the GGUF's own name.")
@_license_option
def add(*, sources: tuple[Path, ...], name: str | None, license: str) -> None:  # noqa: A002  the manifest's word
    """Install a bundle's folder, or a GGUF with or without its reward model, after it has answered.

    \b
    padlite models add some-model/
    padlite models add base.gguf reward.onnx --name mine
    """
    from padlite import installing

    paths = settings.paths()
    if len(sources) == 1 and sources[0].is_dir():
        bundle = installing.install(sources[0], paths, name=name)
    else:
        parts = installing.parts_of(sources, name=name, license=license)
        bundle = installing.build(parts, installing.own_folder(parts.name, paths))
    click.echo(f"{bundle.name}: installed in {homely(bundle.folder)}")
    click.echo(f"try: padlite chat --model {bundle.name}", err=True)


@models.command("build")
@click.option("--base", metavar="GGUF", required=True, type=click.Path(path_type=Path), help="The base model.")
@click.option("--reward", metavar="ONNX", type=click.Path(path_type=Path), help="The reward model for it.")
@click.option("--card", metavar="FILE", type=click.Path(path_type=Path), help="A text about it, for people.")
@click.option(
    "--out",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="The new folder; its name is the model's.",
)
@click.option("--title", metavar="TEXT", default="", help="What people call it.")
@click.option("--description", metavar="TEXT", default="", help="What it is good for.")
@click.option(
    "--context-length", metavar="TOKENS", type=click.IntRange(min=0), default=0, help="0: the base model's own."
)
@_license_option
def build_(
    *,
    base: Path,
    reward: Path | None,
    card: Path | None,
    out: Path,
    title: str,
    description: str,
    context_length: int,
    license: str,  # noqa: A002  the manifest's word
) -> None:
    """Put a bundle together in a new folder: copies, checksums, manifest; it must load and answer."""
    from padlite import installing

    parts = installing.Parts(
        name=out.name, base=base, license=license, reward=reward, card=card, title=title, description=description,
        context_length=context_length,
    )  # fmt: skip
    installing.require_new(out, remedy="choose another --out")
    bundle = installing.build(parts, out.absolute())
    click.echo(f"{bundle.name}: {len(bundle.files)} files, {megabytes(_size(bundle))}, in {homely(bundle.folder)}")


def _agreed(question: str, *, remedy: str) -> bool:
    """Ask the person. Raises UsageError with *remedy* where there is nobody to answer."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise UsageError("there is nobody to ask here", remedy=remedy) from None


@models.command("rm")
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
def remove_(*, name: str, yes: bool) -> None:
    """Remove a model of your own."""
    from padlite import installing

    paths = settings.paths()
    bundle = find_bundle(name, paths)
    installing.require_own(bundle, paths)
    if not yes and not _agreed(
        f"Remove {bundle.name} ({megabytes(_size(bundle))})?", remedy=f"padlite models rm {name} --yes"
    ):
        click.echo("nothing was removed", err=True)
        return
    shared = any(path.stat().st_nlink > 1 for path in bundle.folder.iterdir() if path.is_file())
    installing.remove(bundle, paths)
    click.echo(f"{bundle.name}: removed")
    if shared:
        click.echo(
            "its files stay in the hub's cache, for the next pull; to free the space: hf cache ls, hf cache rm",
            err=True,
        )


def _row(bundle: Bundle) -> dict[str, Json]:
    return {
        "name": bundle.name,
        "title": bundle.title,
        "license": bundle.license,
        "folder": str(bundle.folder),
        "bytes": _size(bundle),
        "dimensions": [dimension.name for dimension in bundle.dimensions],
    }


def _details(bundle: Bundle) -> dict[str, Json]:
    return {
        **_row(bundle),
        "description": bundle.description,
        "base": str(bundle.base),
        "reward": str(bundle.reward) if bundle.reward else None,
        "dimensions": [{"name": each.name, "description": each.description} for each in bundle.dimensions],
        "strength": bundle.strength,
        "candidates": bundle.candidates,
        "context_length": bundle.context_length,
        "files": [{"name": each.name, "bytes": each.size, "sha256": each.sha256} for each in bundle.files],
        "training": dict(bundle.training),
    }


def _print_section(title: str, rows: Sequence[tuple[str, str]]) -> None:
    if not rows:
        return
    click.echo(f"\n{title}" if title else "")
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        click.echo(f"  {name:<{width}}  {text}".rstrip())


def _print_json(value: Json) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _size(bundle: Bundle) -> int:
    return sum(file.size for file in bundle.files)


def megabytes(size: int) -> str:
    """Return *size* bytes in MB."""
    return f"{size / 1e6:,.1f} MB"


def homely(folder: Path) -> str:
    """Return *folder* with the home folder as ~."""
    try:
        return str(Path("~") / folder.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(folder)
