"""Reads a causal language model in Hugging Face layout, checked: weights, LoRA adapter, value head, tokenizer.

Only safetensors are read, unless pickles are allowed: they may run whatever they hold. The value head is PAD's:
`v_head.summary`, a linear map between the final norm and the output matrix, in `value_head.safetensors` or among the
model's own weights. Shapes: V vocabulary, d width. Knows nothing of ONNX.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import transformers
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from padlite.errors import BackendError, NotFoundError, UsageError
from padlite_export.older_config import older_settings

_HEAD_WEIGHT, _HEAD_BIAS = "v_head.summary.weight", "v_head.summary.bias"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A causal language model in float32, its adapter merged; *value_head* is (weight (d, d), bias (d,)) or None."""

    folder: Path
    model: transformers.PreTrainedModel
    value_head: tuple[torch.Tensor, torch.Tensor] | None
    tokenizer: Tokenizer
    chat_template: str
    end_text: str

    @property
    def kind(self) -> str:
        """The architecture's name, such as ``llama``."""
        return str(self.model.config.model_type)

    @property
    def is_tied(self) -> bool:
        """Whether the output matrix is the input embedding."""
        own, other = (cast("torch.Tensor", each.weight) for each in self._tables())
        return own.data_ptr() == other.data_ptr()

    def _tables(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        return self.model.get_input_embeddings(), self.model.get_output_embeddings()

    @torch.no_grad()
    def logits(self, tokens: list[int]) -> torch.Tensor:
        """Return the logits (T, V) after each of *tokens*, through the value head if there is one."""
        ids = torch.tensor([tokens])
        if self.value_head is None:
            return cast("torch.Tensor", self.model(input_ids=ids).logits[0])
        hidden = self.model.base_model(input_ids=ids).last_hidden_state[0]
        weight, bias = self.value_head
        hidden = torch.nn.functional.linear(hidden, weight, bias)
        return cast("torch.Tensor", self.model.get_output_embeddings()(hidden))


def read_checkpoint(folder: Path, *, adapter: Path | None = None, allow_pickle: bool = False) -> Checkpoint:
    """Return the model in *folder*, with the LoRA *adapter* merged into it; from pickled weights if that is allowed.

    Raises NotFoundError for what isn't there, UsageError for what doesn't fit together, BackendError for what can't be
    read.
    """
    require_checkpoint(folder, allow_pickle=allow_pickle)
    tokenizer = read_tokenizer(folder)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        config = _read_config(folder)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=bool(weights_of(folder)),
        ).eval()
    except (ValueError, KeyError, OSError, RuntimeError, SafetensorError) as error:
        raise BackendError(
            f"{folder} can't be read as a causal language model: {first_line(error)}",
            remedy="check that it is a complete checkpoint of an architecture that transformers knows",
        ) from error
    value_head = _read_value_head(folder, int(config.hidden_size), allow_pickle=allow_pickle)
    if adapter is not None:
        merge_adapter(model, adapter)
    return Checkpoint(
        folder=folder,
        model=model,
        value_head=value_head,
        tokenizer=tokenizer,
        chat_template=_read_chat_template(folder),
        end_text=_read_end_text(folder),
    )


def _read_config(folder: Path) -> transformers.PretrainedConfig:
    """Return the checkpoint's settings, also those that this version of transformers would pass over."""
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    if transformers.__version__.startswith("4."):
        said = older_settings(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        for name, setting in said.items():
            if not hasattr(config, name):
                raise UsageError(
                    f"transformers {transformers.__version__} can't be told the checkpoint's {name}",
                    remedy="use --via builder or --via torch, with pip install 'padlite[export]'",
                )
            setattr(config, name, setting)
    return config


def weights_of(folder: Path) -> list[Path]:
    """Return the files with the model's own weights that are no pickles, in order: those that transformers reads."""
    return sorted(folder.glob("model*.safetensors"))


def pickles_of(folder: Path) -> list[Path]:
    """Return the files with pickled weights, in order."""
    return sorted(path for suffix in ("bin", "pt", "pth") for path in folder.glob(f"*.{suffix}"))


def require_checkpoint(folder: Path, *, allow_pickle: bool = False) -> None:
    """Raise NotFoundError unless *folder* is a checkpoint, UsageError if it is pickled and that isn't allowed.

    A config.json that isn't JSON is a BackendError.
    """
    if not folder.is_dir() or not (folder / "config.json").is_file():
        raise NotFoundError(
            f"{folder} is no checkpoint: it has no config.json",
            remedy="name a folder in Hugging Face layout; for `padlite export reward`, one of `padlite train head` too",
        )
    _require_json(folder / "config.json")
    if not weights_of(folder):
        pickled = pickles_of(folder)
        if pickled and allow_pickle:
            return
        if pickled:
            raise UsageError(
                f"{folder} holds only pickled weights ({pickled[0].name}), which may run any code when they are read",
                remedy="get the checkpoint as safetensors; if you trust whoever made it: --allow-pickle",
            )
        raise NotFoundError(f"{folder} holds no weights (model*.safetensors)", remedy="copy the whole checkpoint")


def _require_json(path: Path) -> None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackendError(f"{path} can't be read: {first_line(error)}", remedy="copy it again") from error


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of the checkpoint in *folder*. Raises NotFoundError if there is none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise NotFoundError(
            f"{folder} has no tokenizer.json", remedy="copy the tokenizer's files beside the weights as well"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise BackendError(f"{path} can't be read: {first_line(error)}", remedy="copy it again") from error


def _read_chat_template(folder: Path) -> str:
    beside, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    template = json.loads(settings.read_text(encoding="utf-8")).get("chat_template", "") if settings.is_file() else ""
    return template if isinstance(template, str) else ""


def _read_end_text(folder: Path) -> str:
    """Return the text of the token that ends a text, empty if the tokenizer's settings don't say."""
    settings = folder / "tokenizer_config.json"
    end = json.loads(settings.read_text(encoding="utf-8")).get("eos_token") if settings.is_file() else ""
    return str(end.get("content", "")) if isinstance(end, dict) else str(end or "")


def _read_value_head(folder: Path, width: int, *, allow_pickle: bool) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return PAD's value head, or None if the checkpoint has none. Raises UsageError for one that can't be used."""
    found: dict[str, torch.Tensor] = {}
    for key, tensor in _value_head_tensors(folder, allow_pickle=allow_pickle):
        found[_HEAD_WEIGHT if key.endswith(_HEAD_WEIGHT) else _HEAD_BIAS] = tensor.float()
    if not found:
        return None
    weight, bias = found.get(_HEAD_WEIGHT, torch.zeros(0)), found.get(_HEAD_BIAS, torch.zeros(width))
    if tuple(weight.shape) != (width, width) or tuple(bias.shape) != (width,):
        raise UsageError(
            f"the value head is {tuple(weight.shape)} and {tuple(bias.shape)}, but this model's must be "
            f"({width}, {width}) and ({width},)",
            remedy="export the checkpoint that the head was trained with",
        )
    return weight, bias


def _value_head_tensors(folder: Path, *, allow_pickle: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a value head; UsageError if they are pickled and that isn't allowed."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  no mapping
                if key.endswith((_HEAD_WEIGHT, _HEAD_BIAS)):
                    yield key, file.get_tensor(key)
    for path in pickles_of(folder):
        if allow_pickle:
            for key, tensor in _unpickled(path).items():
                if key.endswith((_HEAD_WEIGHT, _HEAD_BIAS)):
                    yield key, tensor
        elif path.stem in {"value_head", "v_head"}:
            raise UsageError(
                f"the value head in {path} is pickled, which may run any code when it is read",
                remedy="get it as value_head.safetensors; if you trust whoever made it: --allow-pickle",
            )


def _unpickled(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors in the pickle *path*; BackendError if it holds anything else, which isn't run."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise BackendError(f"{path} can't be read: {first_line(error)}", remedy="copy it again") from error


def merge_adapter(model: transformers.PreTrainedModel, folder: Path) -> None:
    """Add the LoRA adapter in *folder* to the weights of *model*: W + scale · B A.

    Raises NotFoundError if it isn't there, UsageError if it belongs to another model or is of another kind.
    """
    settings_path, weights_path = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not settings_path.is_file() or not weights_path.is_file():
        raise NotFoundError(
            f"{folder} is no LoRA adapter: it needs adapter_config.json and adapter_model.safetensors",
            remedy="name the folder that holds both",
        )
    settings = json.loads(settings_path.read_text(encoding="utf-8"))
    kind, rank = settings.get("peft_type"), settings.get("r")
    if kind != "LORA" or settings.get("use_dora") or settings.get("rank_pattern") or not rank:
        raise UsageError(f"{folder} is an adapter of a kind that can't be merged here", remedy="merge it with peft")
    scale = settings.get("lora_alpha", rank) / (rank**0.5 if settings.get("use_rslora") else rank)
    weights = dict(model.named_parameters())
    with safe_open(weights_path, framework="pt") as file, torch.no_grad():
        keys = set(file.keys())
        downs = {key for key in keys if key.endswith(".lora_A.weight")}
        if not downs or downs | {key.replace(".lora_A.", ".lora_B.") for key in downs} != keys:
            raise UsageError(f"{folder} holds more or less than LoRA matrices", remedy="merge it with peft")
        for key in downs:
            name = key.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            down, up = file.get_tensor(key).float(), file.get_tensor(key.replace(".lora_A.", ".lora_B.")).float()
            target = weights.get(name)
            if target is None or tuple(target.shape) != (up.shape[0], down.shape[1]) or up.shape[1] != down.shape[0]:
                raise UsageError(
                    f"the LoRA adapter is for another base: {name} doesn't fit",
                    remedy="name the base that it was trained on",
                )
            target.add_(up @ down, alpha=scale)


def first_line(error: BaseException) -> str:
    """Return the first line of what *error* says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
