"""`padlite export base`: a causal language model in Hugging Face layout becomes a GGUF file that padlite runs.

Checked, converted by llama.cpp's own converter, quantized by the runtime, proved, and only then put in place
(`padlite_export.placing`). The proof is kept beside the file, as NAME.proof.json.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from padlite.backends import llama_files
from padlite.backends.llama import physical_cores
from padlite.errors import BackendError, UsageError, did_you_mean
from padlite.whole_files import write_whole
from padlite_export import base_proof
from padlite_export.base_proof import Agreement, Reading
from padlite_export.checkpoint import (
    Checkpoint,
    pickles_of,
    read_checkpoint,
    read_tokenizer,
    require_checkpoint,
    weights_of,
)
from padlite_export.converter import find_converter, origin
from padlite_export.converting import Dtype, Job, PreTokenizer, Progress, convert, no_progress
from padlite_export.placing import placing
from padlite_export.pre_tokenizers import known_names
from padlite_export.room import read_weights, require_memory, require_space

DTYPES: tuple[Dtype, ...] = ("f32", "f16", "bf16")

# Largest difference of a logit in nats, and the least share of states with the same most likely token.
TOLERANCES: Mapping[Dtype, tuple[float, float]] = {"f32": (1e-3, 0.999), "f16": (0.1, 0.95), "bf16": (1.0, 0.9)}
GELU_TOLERANCE = (0.05, 0.99)  # of f32: llama.cpp looks GELU up in a table of float16
_BYTES: Mapping[Dtype, int] = {"f32": 4, "f16": 2, "bf16": 2}
_VOCABULARY_BYTES = 32_000_000  # of a large one, twice: alone for comparing, and in the file


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseReport:
    """What was written and how close it is to its source; sizes in bytes.

    *against_source* is of the GGUF before it was quantized, *against_unquantized* of the quantized one, if it was.
    """

    path: Path
    architecture: str
    dtype: str
    quantized: str | None
    parameters: int
    file_bytes: int
    converter: str
    pre_tokenizer: PreTokenizer
    reading: Reading
    against_source: Agreement
    against_unquantized: Agreement | None

    def as_json(self) -> str:
        """Return it as JSON."""
        return json.dumps({**dataclasses.asdict(self), "path": str(self.path)}, indent=2, ensure_ascii=False)

    def rows(self) -> list[tuple[str, str]]:
        """Return it as a table of labels and values."""
        how = f"{self.dtype}, then {self.quantized}" if self.quantized else self.dtype
        quantized = self.against_unquantized
        return [
            ("written", str(self.path)),
            ("model", f"{self.architecture}, {self.parameters / 1e6:,.1f} M weights, {how}"),
            ("size", f"{self.file_bytes / 1e6:,.1f} MB"),
            ("converter", self.converter),
            ("pre-tokenizer", self.pre_tokenizer.described),
            ("tokenizer", self.reading.row()),
            ("compared", "least cosine and largest difference of the logits; same most likely token; hidden; (states)"),
            *self.against_source.rows(f"{self.dtype} against the source"),
            *(quantized.rows(f"{self.quantized} against {self.dtype}") if quantized else ()),
        ]


def export_base(
    source: Path,
    out: Path,
    *,
    kept: Path,
    dtype: Dtype | None = None,
    quantize: str | None = None,
    converter: Path | None = None,
    pre: str | None = None,
    allow_pickle: bool = False,
    threads: int = 0,
    tell: Callable[[str], None] = lambda _line: None,
    progress: Progress = no_progress,
) -> BaseReport:
    """Write the checkpoint *source* as a GGUF to *out*, the proof beside it, and return that.

    *dtype* is the number format before quantizing: bf16 if nothing is said and the checkpoint has that, else f16.
    *converter* is a folder of llama.cpp; otherwise the matching one is looked for in *kept*, and fetched there. *pre*
    names the pre-tokenizer instead of comparing. Raises PadliteError subclasses; *out* is as it was before then.
    """
    if out.suffix != ".gguf":
        raise UsageError(f"{out} isn't named like a GGUF file", remedy=f"write to {out.with_suffix('.gguf')}")
    require_checkpoint(source, allow_pickle=allow_pickle)
    read_tokenizer(source)
    _require_known_quantization(quantize)
    weights = read_weights(source)
    stored: Dtype = dtype or ("bf16" if weights.bf16 else "f16")
    whole_bytes = weights.count * _BYTES[stored]
    require_space(out.parent, whole_bytes + (weights.count * 9 // 8 if quantize else 0) + _VOCABULARY_BYTES)
    require_memory(weights)
    if pickles_of(source) and not weights_of(source):
        tell("reading pickled weights, which may run any code: only PyTorch's restricted reader keeps them from it")
    folder = find_converter(converter, kept, tell)
    _require_known_pre_tokenizer(pre, folder)
    with placing(out) as made:
        whole = made if quantize is None else made.with_name(f"unquantized-{made.name}")
        job = Job(
            converter=folder,
            source=source.absolute(),
            out=whole,
            work=made.parent,
            dtype=stored,
            pre=pre,
            quantize=quantize,
            quantized=None if quantize is None else made,
            threads=threads or physical_cores(),
        )
        tell("converting" if quantize is None else f"converting, and writing weights as {quantize}")
        found = convert(job, out_bytes=whole_bytes, progress=progress)
        if pre is not None and found.how == "not asked":
            raise UsageError("this tokenizer has no pre-tokenizer to name", remedy="leave out --pre")
        tell("comparing it with the checkpoint")
        report = _prove(job, made, out=out, found=found, allow_pickle=allow_pickle, tell=tell)
    _keep_proof(report)
    return report


def _prove(
    job: Job, made: Path, *, out: Path, found: PreTokenizer, allow_pickle: bool, tell: Callable[[str], None]
) -> BaseReport:
    """Return what the export is worth; raise BackendError if that is not enough."""
    checkpoint = read_checkpoint(job.source, allow_pickle=allow_pickle)
    if checkpoint.value_head is not None:
        tell("leaving out the value head: `padlite export reward` takes it")
    prompts = base_proof.prompts_of(checkpoint)
    names, tokens = list(prompts), list(prompts.values())
    wanted = base_proof.source_outputs(checkpoint, tokens)
    kind, tokenizer = checkpoint.kind, checkpoint.tokenizer
    tolerance = _tolerance(job.dtype, checkpoint)
    parameters = sum(each.numel() for each in checkpoint.model.parameters())
    del checkpoint  # its float32 weights: the GGUF files are opened without them
    unquantized = base_proof.gguf_outputs(job.out, tokens, threads=job.threads)
    against_source = base_proof.compare(names, unquantized, wanted)
    against_source.require(*tolerance, remedy="export it with --dtype f32, or report the architecture")
    against_unquantized = None
    if job.quantized is not None:
        quantized = base_proof.gguf_outputs(job.quantized, tokens, threads=job.threads)
        against_unquantized = base_proof.compare(names, quantized, unquantized)
        against_unquantized.require(math.inf, 0.0, remedy="choose another --quantize")  # refuses NaN
    with llama_files.open_tokenizer(made) as own:
        reading = base_proof.compare_reading(own, tokenizer)
    return BaseReport(
        path=out,
        architecture=kind,
        dtype=job.dtype,
        quantized=job.quantize,
        parameters=parameters,
        file_bytes=made.stat().st_size,
        converter=origin(job.converter),
        pre_tokenizer=found,
        reading=reading,
        against_source=against_source,
        against_unquantized=against_unquantized,
    )


def _tolerance(dtype: Dtype, checkpoint: Checkpoint) -> tuple[float, float]:
    config = checkpoint.model.config
    names = ("hidden_act", "hidden_activation", "activation_function")
    gelu = any("gelu" in str(getattr(config, name, "")) for name in names)
    return GELU_TOLERANCE if gelu and dtype == "f32" else TOLERANCES[dtype]


def _keep_proof(report: BaseReport) -> None:
    path = report.path.with_name(f"{report.path.name}.proof.json")
    try:
        write_whole(path, (report.as_json() + "\n").encode())
    except OSError as error:
        raise BackendError(
            f"{report.path} is written and proved, but {path.name} can't be: {error.strerror}", remedy="make room"
        ) from error


def _require_known_quantization(name: str | None) -> None:
    known = llama_files.quantizations()
    if name is not None and name not in known:
        raise UsageError(
            f"{name!r} is no type of weights that llama.cpp quantizes to{did_you_mean(name, known)}",
            remedy=f"choose one of {', '.join(sorted(known))}",
        )


def _require_known_pre_tokenizer(name: str | None, converter: Path) -> None:
    known = known_names(converter)
    if name is not None and name not in known:
        raise UsageError(
            f"{name!r} is no pre-tokenizer that the converter knows{did_you_mean(name, known)}",
            remedy=f"choose one of {', '.join(sorted(known))}",
        )
