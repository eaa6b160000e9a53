"""`padlite export`: from trained models to files that padlite runs. What it needs beside padlite is an extra."""

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from padlite import settings
from padlite.cli.groups import SuggestingGroup
from padlite.cli.waiting import byte_bar
from padlite.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from padlite_export.base import BaseReport
    from padlite_export.head import HeadReport
    from padlite_export.reward import Report

NEEDED = {
    "base": ("torch", "transformers", "onnx", "sentencepiece"),
    "reward": ("torch", "transformers", "onnx", "safetensors"),
    "builder": ("onnxruntime_genai",),
    "torch": ("onnxscript",),
    "optimum": ("optimum.exporters.onnx",),
}
ROUTES = ("builder", "torch", "optimum")
DTYPES = ("fp32", "fp16", "int8", "int4")
_HEADS_OPTIONS = frozenset({"source", "out", "base", "as_json"})


@click.group(cls=SuggestingGroup)
def export() -> None:
    """Turn trained models into files that padlite runs (needs the extra padlite[export])."""


@export.command()
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), required=True, help="The .gguf file to write.")
@click.option(
    "--dtype", type=click.Choice(("f32", "f16", "bf16")),
    help="How weights are stored; default: bf16 if the checkpoint has that, else f16.",
)  # fmt: skip
@click.option("--quantize", metavar="TYPE", help="Then make them smaller: q8_0, q4_k_m, … (llama.cpp's names).")
@click.option("--converter", metavar="DIR", type=click.Path(path_type=Path), help="A folder of llama.cpp; no network.")
@click.option("--pre", metavar="NAME", help="The pre-tokenizer, if you know it better than the comparison.")
@click.option("--allow-pickle", is_flag=True, help="Read pickled weights too, which may run any code.")
@click.option("--threads", metavar="N", type=click.IntRange(1, 1024), help="Default: one for each physical core.")
@click.option("--json", "as_json", is_flag=True, help="Print the proof as JSON.")
def base(
    *,
    source: Path,
    out: Path,
    dtype: str | None,
    quantize: str | None,
    converter: Path | None,
    pre: str | None,
    allow_pickle: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Export a base model to GGUF, and compare it with its source in PyTorch.

    DIR is a causal language model in Hugging Face layout. llama.cpp's own converter does it, at the version that is
    installed: pip fetches it the first time. What computes otherwise than its source isn't written; the proof is kept
    as FILE.proof.json.
    """
    _require_extra("base")
    from padlite_export.base import DTYPES as KNOWN
    from padlite_export.base import export_base

    report = export_base(
        source,
        out,
        kept=settings.paths().converters,
        dtype=next((each for each in KNOWN if each == dtype), None),
        quantize=quantize,
        converter=converter,
        pre=pre,
        allow_pickle=allow_pickle,
        threads=threads or 0,
        tell=_tell,
        progress=byte_bar,
    )
    _print(report, as_json=as_json)


@export.command()
@click.argument("source", metavar="SOURCE", type=click.Path(path_type=Path))
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), required=True, help="The .onnx file to write.")
@click.option(
    "--base", metavar="GGUF", type=click.Path(path_type=Path),
    help="The base model it is for. A reward LM that reads other tokens must be --normalized. A head is tried on it.",
)  # fmt: skip
@click.option(
    "--via", type=click.Choice(ROUTES), default="builder", show_default=True,
    help="Who makes the graph: onnxruntime-genai's builder, PyTorch (for what that doesn't know), or optimum-onnx.",
)  # fmt: skip
@click.option("--dtype", type=click.Choice(DTYPES), default="int8", show_default=True, help="How weights are stored.")
@click.option("--adapter", metavar="DIR", type=click.Path(path_type=Path), help="A LoRA adapter to merge.")
@click.option("--allow-pickle", is_flag=True, help="Read pickled weights too, which may run any code.")
@click.option("--name", metavar="NAME", default="preference", show_default=True, help="What its dimension is called.")
@click.option("--preference", metavar="TEXT", default="", help="What it is told, unless a profile has a reward_text.")
@click.option("--normalized", is_flag=True, help="Give log-probabilities, which cost the whole vocabulary.")
@click.option("--json", "as_json", is_flag=True, help="Print the proof as JSON.")
@click.pass_context
def reward(
    context: click.Context,
    *,
    source: Path,
    out: Path,
    base: Path | None,
    via: str,
    dtype: str,
    adapter: Path | None,
    allow_pickle: bool,
    name: str,
    preference: str,
    normalized: bool,
    as_json: bool,
) -> None:
    """Export a reward model, and compare the export with its source in PyTorch.

    SOURCE is a folder that `padlite train head` made, or a causal language model in Hugging Face layout: safetensors
    and tokenizer.json, PAD's value head (v_head.summary) if there is one. What scores otherwise than its source isn't
    written. The options from --via on are for language models.
    """
    _require_extra("reward", extra="optimum" if via == "optimum" else "export")
    from padlite_export.head import export_head, is_head_directory
    from padlite_export.reward import DTYPES as KNOWN
    from padlite_export.reward import ROUTES as KNOWN_ROUTES
    from padlite_export.reward import export_reward

    report: HeadReport | Report
    if is_head_directory(source):
        _refuse_options(context, allowed=_HEADS_OPTIONS)
        report = export_head(source, out, base=base, tell=_tell)
    else:
        _require_extra(via, extra="optimum" if via == "optimum" else "export")
        report = export_reward(
            source,
            out,
            base=_required(base),
            via=next(each for each in KNOWN_ROUTES if each == via),
            dtype=next(each for each in KNOWN if each == dtype),
            adapter=adapter,
            allow_pickle=allow_pickle,
            name=name,
            preference=preference,
            normalized=normalized,
            tell=_tell,
        )
    _print(report, as_json=as_json)


def _print(report: "BaseReport | HeadReport | Report", *, as_json: bool) -> None:
    if as_json:
        click.echo(report.as_json())
        return
    width = 2 + max(len(label) for label, _ in report.rows())
    for label, value in report.rows():
        click.echo(f"{label:<{width}}{value}")


def _tell(line: str) -> None:
    click.echo(f"{line} …", err=True)


def _required(base: Path | None) -> Path:
    if base is None:
        raise UsageError("a reward LM is exported for a base model", remedy="name its GGUF with --base")
    return base


def _refuse_options(context: click.Context, *, allowed: Collection[str]) -> None:
    """Raise UsageError if an option was typed that a head has no use for."""
    typed = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in allowed
        and context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    ]
    if typed:
        raise UsageError(
            f"{', '.join(typed)} can't be used with a trained head, which has names and a number format of its own",
            remedy="leave it out",
        )


def _require_extra(work: str, *, extra: str = "export") -> None:
    missing = [name for name in NEEDED[work] if not _is_there(name)]
    if missing:
        where = " in an environment of its own" if extra == "optimum" else ""
        raise NotFoundError(
            f"exporting needs packages that aren't installed ({', '.join(missing)})",
            remedy=f"pip install 'padlite[{extra}]'{where}",
        )


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # not even what it would lie in
        return False
