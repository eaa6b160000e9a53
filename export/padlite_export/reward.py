"""`padlite export reward`: a causal language model in Hugging Face layout becomes a reward LM that padlite runs.

Read, build, graft, quantize, write beside the target, prove, and only then put in place (`padlite_export.placing`).
"""

import dataclasses
import hashlib
import importlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

import onnx
import transformers
from onnx import external_data_helper

import padlite
from padlite.backends.llama import LlamaModel, require_gguf
from padlite.backends.onnx_lm import OnnxLm
from padlite.backends.reward_tokenizer import tokenizer_path
from padlite.errors import BackendError, UsageError
from padlite.options import EngineOptions
from padlite.reward_lm import PROMPT
from padlite_export.checkpoint import Checkpoint, read_checkpoint
from padlite_export.graft import Output, graft, halve, parameters, quantize
from padlite_export.parity import Parity, compare, step_ms
from padlite_export.placing import placing

Via: TypeAlias = Literal["builder", "torch", "optimum"]
ROUTES: Mapping[Via, str] = {
    "builder": "padlite_export.builder",
    "torch": "padlite_export.torch_route",
    "optimum": "padlite_export.optimum_route",
}
Dtype: TypeAlias = Literal["fp32", "fp16", "int8", "int4"]
DTYPES: tuple[Dtype, ...] = ("fp32", "fp16", "int8", "int4")

# Largest error in nats, and the least share of steps with the same best candidate.
TOLERANCES: Mapping[str, tuple[float, float]] = {
    "fp32": (1e-3, 0.999),
    "fp16": (0.1, 0.95),
    "int8": (2.0, 0.8),
    "int4": (20.0, 0.2),
}
AWKWARD = (
    "Hello there.", " leading", "trailing ", "tab\tand\nline\r\n", "  two  spaces", "naïve café", "日本語のテキスト",
    "emoji 👩‍👩‍👧 🤷🏽", "x = [1, 2.5e-3]; // code", "ALL CAPS and 12345678", "<|im_end|> as text", "\u200b\u00a0",
)  # fmt: skip
_INLINE_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was written and how well it does; sizes in bytes, times in milliseconds on this machine."""

    path: Path
    architecture: str
    via: str
    dtype: str
    scores: str
    parameters: int
    file_bytes: int
    value_head: bool
    adapter: bool
    parity: Parity
    step_ms_at_128: float | None
    step_ms_at_1024: float | None

    def as_json(self) -> str:
        """Return it as JSON."""
        return json.dumps({**dataclasses.asdict(self), "path": str(self.path)}, indent=2)

    def rows(self) -> list[tuple[str, str]]:
        """Return it as a table of labels and values."""
        times = (("128", self.step_ms_at_128), ("1,024", self.step_ms_at_1024))
        extras = [word for word, there in (("value head", self.value_head), ("LoRA adapter", self.adapter)) if there]
        return [
            ("written", str(self.path)),
            ("model", ", ".join([self.architecture, f"{self.parameters / 1e6:,.1f} M weights", self.dtype, *extras])),
            ("made by", self.via),
            ("size", f"{self.file_bytes / 1e6:,.1f} MB"),
            *self.parity.rows(),
            *(
                (f"step at {length} tokens", "they don't fit its context" if spent is None else f"{spent:.2f} ms")
                for length, spent in times
            ),
        ]


def export_reward(
    source: Path,
    out: Path,
    *,
    base: Path,
    via: Via = "builder",
    dtype: Dtype = "fp32",
    adapter: Path | None = None,
    allow_pickle: bool = False,
    name: str = "preference",
    preference: str = "",
    normalized: bool = False,
    tell: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Write the checkpoint *source* as a reward LM for the base model *base* (GGUF) to *out*, and return the proof.

    *via* says who makes its graph. *name* is the dimension's, *preference* what it is told unless a profile says
    otherwise. *tell* is told what is being done. Raises PadliteError subclasses; nothing is left at *out* then, unless
    it was there before.
    """
    require_gguf(base)
    tell("reading the checkpoint" + (", pickled weights too, which may run any code" if allow_pickle else ""))
    checkpoint = read_checkpoint(source, adapter=adapter, allow_pickle=allow_pickle)
    sha256 = _tokenizer_sha256(checkpoint, base, normalized=normalized)
    _require_space(out.parent, checkpoint)
    with placing(out) as made:
        tell("building the graph")
        model = _graph_of(checkpoint, via, made.parent)
        metadata = {
            "padlite.schema": "1",
            "padlite.kind": "lm",
            "padlite.dimensions": json.dumps([{"name": name, "description": "what the reward LM is told to prefer"}]),
            "padlite.scores": "logprob" if normalized else "logit",
            "padlite.vocabulary_size": str(checkpoint.model.get_output_embeddings().weight.shape[0]),
            "padlite.context_length": str(checkpoint.model.config.max_position_embeddings),
            "padlite.parameters": str(parameters(model)),
            "padlite.tokenizer_sha256": sha256,
            "padlite.tokenizer_json_sha256": _own_sha256(checkpoint),
            "padlite.end_text": checkpoint.end_text,
            "padlite.prompt": PROMPT,
            "padlite.preference": preference,
            "padlite.chat_template": checkpoint.chat_template,
            "padlite.dtype": dtype,
            "padlite.provenance": json.dumps(
                {"exporter": f"padlite {padlite.__version__}", "model": checkpoint.kind, "via": via}
            ),
        }
        graft(model, _output_of(checkpoint, normalized=normalized), metadata=metadata)
        tell(f"writing weights as {dtype}")
        _save(_as_dtype(model, dtype), made)
        shutil.copyfile(_tokenizer_file(checkpoint), tokenizer_path(made))
        tell("comparing it with the checkpoint")
        return _prove(checkpoint, made, out=out, via=via, dtype=dtype, adapter=adapter is not None)


def _graph_of(checkpoint: Checkpoint, via: Via, work: Path) -> onnx.ModelProto:
    """Return the graph of *checkpoint* that ends in its hidden states, made in the folder *work*."""
    route = importlib.import_module(ROUTES[via])  # each needs libraries that the others don't
    build = cast("Callable[[Checkpoint, Path], onnx.ModelProto]", route.build)
    return build(checkpoint, work)


def _tokenizer_sha256(checkpoint: Checkpoint, base: Path, *, normalized: bool) -> str:
    """Return the fingerprint of the base's tokenizer, or of the checkpoint's own if that reads other tokens.

    Raises UsageError for other tokens unless scores are *normalized*, which the bridge between the two needs.
    """
    with LlamaModel.open(base, EngineOptions(context_length=32, gpu_layers=0, hidden_states=False)) as model:
        if model.vocabulary_size > checkpoint.model.get_output_embeddings().weight.shape[0]:
            differs: str | None = "a larger vocabulary"
        else:
            differs = next((repr(text) for text in AWKWARD if _ids(checkpoint, text) != _base_ids(model, text)), None)
        if differs is None:
            return model.tokenizer.sha256
    if not normalized:
        raise UsageError(
            f"the reward LM and {base.name} don't read the same tokens (they differ at {differs})",
            remedy="name a base model of the same family with --base, or export log-probabilities: --normalized",
        )
    return _own_sha256(checkpoint)


def _own_sha256(checkpoint: Checkpoint) -> str:
    return hashlib.sha256(_tokenizer_file(checkpoint).read_bytes()).hexdigest()


def _tokenizer_file(checkpoint: Checkpoint) -> Path:
    return checkpoint.folder / "tokenizer.json"


def _ids(checkpoint: Checkpoint, text: str) -> list[int]:
    return list(checkpoint.tokenizer.encode(text, add_special_tokens=False).ids)


def _base_ids(model: LlamaModel, text: str) -> list[int]:
    return model.tokenizer.encode(text, special=True)


def _require_space(folder: Path, checkpoint: Checkpoint) -> None:
    needed = 3 * sum(each.numel() for each in checkpoint.model.parameters()) * 4
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UsageError(f"{folder} is no folder: {error.strerror}", remedy=f"mkdir -p {folder}") from error
    if free < needed:
        raise BackendError(
            f"the export needs {needed / 1e9:.1f} GB in {folder} while it runs, and {free / 1e9:.1f} GB are free",
            remedy="make room, or write to another disk with --out",
        )


def _output_of(checkpoint: Checkpoint, *, normalized: bool) -> Output:
    layer = checkpoint.model.get_output_embeddings()
    bias = getattr(layer, "bias", None)
    head, config = checkpoint.value_head, checkpoint.model.config
    return Output(
        matrix=None if checkpoint.is_tied else layer.weight.detach().numpy(),
        bias=None if bias is None else bias.detach().numpy(),
        value_head=None if head is None else (head[0].numpy(), head[1].numpy()),
        head_size=int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads),
        scale=1.0 if head else _logit_scale(config),  # PAD's value head meets the output matrix and nothing else
        softcap=0.0 if head else float(getattr(config, "final_logit_softcapping", None) or 0.0),
        normalized=normalized,
    )


def _logit_scale(config: transformers.PretrainedConfig) -> float:
    return float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)


def _as_dtype(model: onnx.ModelProto, dtype: Dtype) -> onnx.ModelProto:
    if dtype == "fp16":
        halve(model, everything=True)
    return quantize(model, int(dtype.removeprefix("int"))) if dtype.startswith("int") else model


def _save(model: onnx.ModelProto, path: Path) -> None:
    """Write *model* to *path* with its weights beside it.

    Their file gets its name here, because onnx refuses a name that a file in the working directory has.
    """
    external_data_helper.convert_model_to_external_data(
        model, all_tensors_to_one_file=True, size_threshold=_INLINE_BYTES
    )  # fmt: skip
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = f"{path.name}.data"
    onnx.save_model(model, str(path))


def _prove(checkpoint: Checkpoint, made: Path, *, out: Path, via: Via, dtype: Dtype, adapter: bool) -> Report:
    """Return what the export is worth; raise BackendError if that is not enough."""
    with OnnxLm.open(made, device="cpu") as lm:
        parity = compare(checkpoint, lm)
        parity.require(*TOLERANCES[dtype], remedy="export it as fp32, or report the architecture")
        return Report(
            path=out,
            architecture=checkpoint.kind,
            via=via,
            dtype=dtype,
            scores="logprob" if lm.info.normalized else "logit",
            parameters=lm.info.parameters,
            file_bytes=sum(path.stat().st_size for path in (made, made.with_name(f"{made.name}.data"))),
            value_head=checkpoint.value_head is not None,
            adapter=adapter,
            parity=parity,
            step_ms_at_128=step_ms(lm, 128),
            step_ms_at_1024=step_ms(lm, 1024),
        )
