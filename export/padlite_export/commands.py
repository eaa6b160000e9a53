"""`padlite export`: from trained checkpoints to files that padlite runs. What it needs beside padlite is an extra."""

import importlib.util
from pathlib import Path

import click

from padlite.cli.groups import SuggestingGroup
from padlite.errors import NotFoundError

NEEDED = ("torch", "transformers", "onnx", "onnxruntime_genai")
DTYPES = ("fp32", "fp16", "int8", "int4")


@click.group(cls=SuggestingGroup)
def export() -> None:
    """Turn trained checkpoints into files that padlite runs (needs the extra padlite[export])."""


@export.command()
@click.argument("source", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), required=True, help="The .onnx file to write.")
@click.option(
    "--base", metavar="GGUF", type=click.Path(path_type=Path), required=True,
    help="The base model it is for: both must read the same tokens.",
)  # fmt: skip
@click.option("--dtype", type=click.Choice(DTYPES), default="int8", show_default=True, help="How weights are stored.")
@click.option("--adapter", metavar="DIR", type=click.Path(path_type=Path), help="A LoRA adapter to merge.")
@click.option("--name", metavar="NAME", default="preference", show_default=True, help="What its dimension is called.")
@click.option("--preference", metavar="TEXT", default="", help="What it is told, unless a profile has a reward_text.")
@click.option("--normalized", is_flag=True, help="Give log-probabilities, which cost the whole vocabulary.")
@click.option("--json", "as_json", is_flag=True, help="Print the proof as JSON.")
def reward(
    *,
    source: Path,
    out: Path,
    base: Path,
    dtype: str,
    adapter: Path | None,
    name: str,
    preference: str,
    normalized: bool,
    as_json: bool,
) -> None:
    """Export a causal language model in Hugging Face layout as a reward LM.

    CHECKPOINT is a folder with safetensors and tokenizer.json; PAD's value head (v_head.summary) is kept if it is
    there. The export is compared with the checkpoint and not written if it scores otherwise.
    """
    _require_extra()
    from padlite_export.reward import DTYPES as KNOWN
    from padlite_export.reward import export_reward

    report = export_reward(
        source,
        out,
        base=base,
        dtype=next(each for each in KNOWN if each == dtype),
        adapter=adapter,
        name=name,
        preference=preference,
        normalized=normalized,
        tell=lambda line: click.echo(f"{line} …", err=True),
    )
    if as_json:
        click.echo(report.as_json())
        return
    for label, value in report.rows():
        click.echo(f"{label:<26}{value}")


def _require_extra() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise NotFoundError(
            f"exporting needs packages that aren't installed ({', '.join(missing)})",
            remedy="pip install 'padlite[export]'",
        )
