"""A checkpoint's graph by PyTorch's own exporter, for architectures that the model builder doesn't know.

The model runs its own code but for attention: that becomes GroupQueryAttention of ONNX Runtime, whose keys and values
are written in place, as in the builder's graphs. Shapes: s new tokens, t tokens in all, h key-value heads of width w.
Knows neither candidates nor padlite's metadata.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import onnx
import torch
import transformers

from padlite.errors import BackendError
from padlite_export.checkpoint import Checkpoint, first_line
from padlite_export.graft import HIDDEN, fold_transposes, rename

_ATTENTION = "padlite_in_place"
_OPSET = 21
_EXAMPLE = (5, 12)  # new tokens and tokens in all, unlike each other and any size of a model

# What an attention may be told without changing what it computes here: one text, no padding, no dropout.
_HARMLESS = frozenset({"dropout", "position_ids", "use_cache", "is_causal", "output_attentions", "position_bias"})


class _Layers:
    """What stands in for attention while a model is traced: takes each layer's cache, and keeps what it becomes."""

    def __init__(self, caches: tuple[torch.Tensor, ...], mask: torch.Tensor) -> None:
        self._caches = caches
        self._filled = (mask.sum(dim=1) - 1).to(torch.int32)
        self._total = torch.scalar_tensor(mask.shape[1], dtype=torch.int32)
        self.presents: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        scaling: float | None = None,
        softcap: float | None = None,
        sliding_window: int | None = None,
        **settings: object,
    ) -> tuple[torch.Tensor, None]:
        """Attend from *query* (1, heads, s, w) to the cache with *key* and *value* (1, h, s, w) appended."""
        layer = cast(int, module.layer_idx)
        asked = sorted(name for name, setting in settings.items() if setting is not None and name not in _HARMLESS)
        if asked or attention_mask is not None or key.shape != value.shape or layer in self.presents:
            raise NotImplementedError(f"its attention is of another kind ({', '.join(asked) or 'mask or widths'})")
        _, heads, count, width = query.shape
        kv_heads = key.shape[1]
        past_key, past_value = self._caches[2 * layer : 2 * layer + 2]
        mixed, present_key, present_value = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            [*(_side_by_side(each) for each in (query, key, value)), past_key, past_value, self._filled, self._total],
            attrs={
                "num_heads": heads,
                "kv_num_heads": kv_heads,
                "scale": float(scaling if scaling is not None else width**-0.5),
                "softcap": float(softcap or 0.0),
                "local_window_size": int(sliding_window or -1),
            },
            dtypes=(query.dtype,) * 3,
            shapes=((1, count, heads * width), past_key.shape, past_value.shape),
            version=1,
        )
        self.presents[layer] = (present_key, present_value)
        return mixed.view(1, count, heads, width), None


class _InPlace(torch.nn.Module):
    """The model's body with a cache in and out: (input_ids, attention_mask, *caches) → (hidden states, *caches)."""

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        super().__init__()
        self._model, self._layers = model.base_model, int(model.config.num_hidden_layers)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, caches: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...]:
        layers = _Layers(caches, attention_mask)
        transformers.AttentionInterface.register(_ATTENTION, layers.attend)
        total, count = attention_mask.shape[1], input_ids.shape[1]
        positions = (torch.arange(count) + (total - count)).unsqueeze(0)
        hidden = self._model(input_ids=input_ids, position_ids=positions, use_cache=False).last_hidden_state
        if sorted(layers.presents) != list(range(self._layers)):
            raise NotImplementedError("not all of its layers attend in the usual way")
        return (hidden, *(each for layer in range(self._layers) for each in layers.presents[layer]))


def build(checkpoint: Checkpoint, work: Path) -> onnx.ModelProto:
    """Return the float32 graph of *checkpoint*, ending in its hidden states; *work* isn't needed.

    Raises BackendError if PyTorch can't export it, or if it attends in a way that has no cache in place.
    """
    model = checkpoint.model
    try:
        with torch.no_grad(), _replaced_attention(model), _quiet():
            cells = _cell_shapes(model)
            program = torch.onnx.export(
                _InPlace(model), _example(cells), dynamo=True, opset_version=_OPSET, verbose=False,
                dynamic_shapes=_dynamic(2 * model.config.num_hidden_layers), external_data=True,
            )  # fmt: skip
    except Exception as error:  # whatever a model's own code and the exporter may raise
        *_, reason = _causes(error)
        raise BackendError(
            f"PyTorch can't export {checkpoint.kind!r} with a cache in place: {first_line(reason)}",
            remedy="use a reward LM of another architecture (Llama, Qwen, Gemma, GPT-NeoX, … are known)",
        ) from error
    if program is None:
        raise BackendError(f"PyTorch made no graph of {checkpoint.kind!r}", remedy="report the architecture")
    graph = program.model_proto
    names = [f"{{}}.{layer}.{part}" for layer in range(model.config.num_hidden_layers) for part in ("key", "value")]
    rename(
        graph,
        inputs=["input_ids", "attention_mask", *(name.format("past_key_values") for name in names)],
        outputs=[HIDDEN, *(name.format("present") for name in names)],
    )
    fold_transposes(graph.graph)
    return graph


def _cell_shapes(model: transformers.PreTrainedModel) -> list[tuple[int, int]]:
    """Return how many key-value heads each layer has, and their width, from a short run of *model*."""
    found: dict[int, tuple[int, int]] = {}

    def note(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *_inputs: object,
        **_settings: object,
    ) -> tuple[torch.Tensor, None]:
        found[cast(int, module.layer_idx)] = (int(key.shape[1]), int(key.shape[3]))
        return torch.zeros(1, query.shape[2], query.shape[1], value.shape[3]), None

    transformers.AttentionInterface.register(_ATTENTION, note)
    model.base_model(input_ids=torch.zeros(1, 2, dtype=torch.long), use_cache=False)
    if sorted(found) != list(range(int(model.config.num_hidden_layers))):
        raise NotImplementedError("not all of its layers attend in the usual way")
    if len(set(found.values())) != 1:
        raise NotImplementedError("its layers have caches of different shapes")
    return [found[layer] for layer in sorted(found)]


def _example(cells: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    count, total = _EXAMPLE
    caches = tuple(torch.zeros(1, heads, total + 3, width) for heads, width in cells for _ in ("key", "value"))
    return torch.zeros(1, count, dtype=torch.long), torch.ones(1, total, dtype=torch.long), caches


def _dynamic(caches: int) -> tuple[object, ...]:
    sized = torch.export.Dim.DYNAMIC
    return {1: sized}, {1: sized}, tuple({2: sized} for _ in range(caches))


def _side_by_side(heads: torch.Tensor) -> torch.Tensor:
    """Return (1, n, s, w) as (1, s, n·w)."""
    return heads.transpose(1, 2).flatten(2)


@contextlib.contextmanager
def _replaced_attention(model: transformers.PreTrainedModel) -> Iterator[None]:
    """Let *model* attend through `_Layers` for a while."""
    before = model.config._attn_implementation
    transformers.AttentionInterface.register(_ATTENTION, _unset)
    model.set_attn_implementation(_ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        transformers.AttentionInterface.register(_ATTENTION, _unset)


def _unset(*_inputs: object, **_settings: object) -> None:
    raise NotImplementedError("nothing is being exported")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter tells its own developers off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield *error* and what led to it, the first cause last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
