"""`padlite serve`: who may ask, what is served, and the lines that a person sees."""

import ipaddress
import sys
from pathlib import Path

import click

from padlite import settings
from padlite.cli.completion import complete_models
from padlite.cli.sections import SectionedCommand
from padlite.errors import NotFoundError, UsageError
from padlite.options import DEVICES

SECTIONS: dict[str, tuple[str, ...]] = {
    "What is served": ("model", "keep"),
    "Who may ask": ("host", "port", "key_file", "allow_host", "allow_origin"),
    "How much": ("parallel", "waiting", "max_body", "metrics", "grace"),
    "Engine": ("device", "threads", "context_length", "gpu_layers"),
}


@click.command(cls=SectionedCommand, sections=SECTIONS)
@click.option(
    "--model", "-m", metavar="NAME|FILE", multiple=True, shell_complete=complete_models,
    help="A model bundle or a GGUF file; repeatable. Default: every installed bundle.",
)  # fmt: skip
@click.option("--keep", metavar="COUNT", type=click.IntRange(1, 16), default=1, help="Models kept loaded at a time.")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", help="Where to listen. Off this machine needs a key.")
@click.option("--port", metavar="COUNT", type=click.IntRange(0, 65535), default=8080, help="0 takes a free one.")
@click.option(
    "--key-file", metavar="FILE", type=click.Path(path_type=Path),
    help="A file with the API key that clients must send. Or set PADLITE_API_KEY.",
)  # fmt: skip
@click.option("--allow-host", metavar="NAME", multiple=True, help="Answer to this Host header too. Repeatable.")
@click.option("--allow-origin", metavar="URL", multiple=True, help="Let pages of this origin call. Repeatable.")
@click.option("--parallel", metavar="COUNT", type=click.IntRange(1, 16), default=2, help="Answers decoded in turns.")
@click.option("--waiting", metavar="COUNT", type=click.IntRange(0, 10_000), default=32, help="Answers that may wait.")
@click.option("--max-body", metavar="MIB", type=click.IntRange(1, 256), default=4, help="Largest request, in MiB.")
@click.option("--metrics", is_flag=True, help="Offer /metrics for Prometheus.")
@click.option(
    "--grace", metavar="SECONDS", type=click.FloatRange(0, 600), default=10.0, help="To finish in, at the end."
)
@click.option(
    "--device", type=click.Choice(DEVICES), default="auto", help="Where models run. auto: a GPU where it can be used."
)
@click.option("--threads", metavar="COUNT", type=int, default=0, help="CPU threads. Default: one per physical core.")
@click.option("--context-length", metavar="COUNT", type=int, default=0, help="Tokens that a conversation may take.")
@click.option("--gpu-layers", metavar="COUNT", type=int, default=-1, help="Layers on the GPU. Default: all that fit.")
def serve(
    *,
    model: tuple[str, ...],
    keep: int,
    host: str,
    port: int,
    key_file: Path | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    parallel: int,
    waiting: int,
    max_body: int,
    metrics: bool,
    grace: float,
    device: str,
    threads: int,
    context_length: int,
    gpu_layers: int,
) -> int:
    """Serve chat to any client that speaks OpenAI's API, on this machine only unless told otherwise.

    Every model is offered as MODEL, and as MODEL@PROFILE for each of your profiles:

    \b
        padlite serve
        curl http://127.0.0.1:8080/v1/models

    SIGTERM or Ctrl-C lets answers finish; a second one ends them. Needs: pip install 'padlite[serve]'
    """
    try:
        from padlite.server.app import build
        from padlite.server.guards import LOOPBACK, Access
        from padlite.server.running import listen, run
        from padlite.server.shelf import Engines, Shelf
    except ModuleNotFoundError as error:
        raise UsageError(
            f"serving needs {error.name}, which isn't installed", remedy="pip install 'padlite[serve]'"
        ) from error

    key = _key(key_file)
    if key is None and not _is_loopback(host):
        raise UsageError(
            f"listening on {host} lets other machines in, and that needs a key",
            remedy=f"padlite serve --host {host} --key-file FILE",
        )
    engines = Engines(
        parallel=parallel, waiting=waiting, threads=threads, context_length=context_length, gpu_layers=gpu_layers,
        device=device, keep=keep,
    )  # fmt: skip
    shelf = Shelf(model, settings.paths(), engines)
    with listen(host, port) as listening:
        own = f"[{host}]" if ":" in host else host
        hosts = {*LOOPBACK, own, *allow_host}
        access = Access(hosts=hosts, origins=allow_origin, key=key)
        server = build(shelf, access, with_metrics=metrics, largest_body=max_body * 2**20)
        address = f"http://{own}:{listening.getsockname()[1]}"
        run(
            server,
            listening,
            grace_s=grace,
            ready=lambda: _say(f"padlite serves {', '.join(shelf.models)} at {address}/v1"),
        )
    return 0


def _key(file: Path | None) -> str | None:
    """Return the key that clients must send, or None. Raises NotFoundError or UsageError."""
    if file is None:
        return settings.api_key()
    try:
        key = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no key file {file}", remedy=f"openssl rand -hex 24 > {file}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the key file {file} can't be read", remedy="check the file and its rights") from error
    if not key.isascii() or not key:
        raise UsageError(f"the key file {file} holds no key", remedy=f"openssl rand -hex 24 > {file}")
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
