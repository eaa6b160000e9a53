"""Small reward LMs as files, made of padlite's own description of the format: one attention layer, no more.

    h = embedding[token] + attention(h) · O           scores = h[last] · rows of the output matrix at the candidates

The same in numpy beside it (`reference_scores`), for tests of everything that runs one. Shapes: V vocabulary, d width,
one head of width d (a multiple of 8, as the operator wants).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from padlite.backends import onnx_schema as onnx
from padlite.seams import FloatArray, TokenArray

SHA256 = "0123456789abcdef" * 4
_INT, _INTS, _INT32 = 2, 7, 6
_INLINE_BYTES = 1 << 20  # larger arrays lie beside the graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """*embedding* (V, d), *projection* (d, 3·d) to query, key and value, *mixing* (d, d), *output* (V, d)."""

    embedding: FloatArray
    projection: FloatArray
    mixing: FloatArray
    output: FloatArray


def random_weights(vocabulary_size: int = 40, width: int = 16, *, seed: int = 3) -> Weights:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> FloatArray:
        return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[-1]), dtype=np.float32)

    return Weights(
        embedding=2 * normal(vocabulary_size, width),
        projection=2 * normal(width, 3 * width),
        mixing=4 * normal(width, width),
        output=4 * normal(vocabulary_size, width),
    )


def reading_off(scores: FloatArray) -> Weights:
    """Return the weights of an LM whose scores after token t are *scores*[t], (T, V), whatever came before."""
    tokens, size = scores.shape
    width = -(-max(tokens, 8) // 8) * 8
    embedding = np.zeros((size, width), dtype=np.float32)
    embedding[np.arange(tokens), np.arange(tokens)] = 1.0
    output = np.zeros((size, width), dtype=np.float32)
    output[:, :tokens] = scores.T
    nothing = np.zeros((width, 4 * width), dtype=np.float32)
    return Weights(
        embedding=embedding, projection=nothing[:, : 3 * width], mixing=nothing[:, 3 * width :], output=output
    )


def reference_scores(weights: Weights, tokens: Sequence[int]) -> FloatArray:
    """Return the scores (V,) after *tokens*, computed all at once."""
    h = weights.embedding[list(tokens)].astype(np.float64)
    query, key, value = np.split(h @ weights.projection, 3, axis=1)
    logits = query[-1] @ key.T / np.sqrt(key.shape[1])
    attention = np.exp(logits - logits.max())
    mixed = (attention / attention.sum()) @ value
    return np.asarray((h[-1] + mixed @ weights.mixing) @ weights.output.T, dtype=np.float32)


def write_lm(
    path: Path,
    weights: Weights,
    *,
    normalized: bool = False,
    context_length: int = 64,
    tokenizer_sha256: str = SHA256,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    size, width = weights.embedding.shape
    model = onnx.new_model()
    model.ir_version = 10
    model.opset_import.add().version = 21
    extra = model.opset_import.add()
    extra.domain, extra.version = "com.microsoft", 1
    graph = model.graph
    graph.name = "lm"
    constants: dict[str, FloatArray | TokenArray] = {
        "embedding": weights.embedding, "projection": weights.projection, "mixing": weights.mixing,
        "output": np.ascontiguousarray(weights.output.T) if normalized else weights.output,
        "one": np.array([1], dtype=np.int64), "last": np.array(-1, dtype=np.int64), "zero": np.array(1, dtype=np.int64),
    }  # fmt: skip
    data = bytearray()
    for name, array in constants.items():
        tensor = graph.initializer.add()
        tensor.name = name
        if array.nbytes < _INLINE_BYTES:
            tensor.raw_data = array.tobytes()
        else:
            tensor.data_location = onnx.EXTERNAL
            for key, value in (("location", f"{path.name}.data"), ("offset", len(data)), ("length", array.nbytes)):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, str(value)
            data += array.tobytes()
        tensor.data_type = onnx.INT64 if array.dtype == np.int64 else onnx.FLOAT
        tensor.dims.extend(array.shape)
    _node(graph, "Gather", ["embedding", "input_ids"], ["h"])
    _node(graph, "MatMul", ["h", "projection"], ["qkv"])
    _node(graph, "ReduceSum", ["attention_mask", "one"], ["filled"])
    _node(graph, "Sub", ["filled", "one"], ["behind"])
    _node(graph, "Cast", ["behind"], ["seqlens"], to=_INT32)
    _node(graph, "Shape", ["attention_mask"], ["mask_shape"])
    _node(graph, "Gather", ["mask_shape", "zero"], ["total"])
    _node(graph, "Cast", ["total"], ["total32"], to=_INT32)
    past, present = (
        [f"{word}.0.{part}" for part in ("key", "value")] for word in ("past_key_values", "present")
    )  # fmt: skip
    attention = ["qkv", "", "", *past, "seqlens", "total32"]
    _node(graph, "GroupQueryAttention", attention, ["mixed", *present], num_heads=1, kv_num_heads=1)
    graph.node[len(graph.node) - 1].domain = "com.microsoft"
    _node(graph, "MatMul", ["mixed", "mixing"], ["added"])
    _node(graph, "Add", ["h", "added"], ["states"])
    _node(graph, "Gather", ["states", "last"], ["hidden"], axis=1)
    if normalized:
        _node(graph, "MatMul", ["state", "output"], ["logits"])
        _node(graph, "ReduceLogSumExp", ["logits", "one"], ["normalizer"], keepdims=1)
        _node(graph, "Gather", ["logits", "candidates"], ["chosen"], axis=1)
        _node(graph, "Sub", ["chosen", "normalizer"], ["scores"])
    else:
        _node(graph, "Gather", ["output", "candidates"], ["rows"])
        _node(graph, "Gemm", ["state", "rows"], ["scores"], transB=1)
    _value(graph.input.add(), "input_ids", onnx.INT64, ["b", "s"])
    _value(graph.input.add(), "attention_mask", onnx.INT64, ["b", "t"])
    _value(graph.input.add(), "state", onnx.FLOAT, ["b", width])
    _value(graph.input.add(), "candidates", onnx.INT64, ["k"])
    _value(graph.output.add(), "scores", onnx.FLOAT, ["b", "k"])
    _value(graph.output.add(), "hidden", onnx.FLOAT, ["b", width])
    for name in past:
        _value(graph.input.add(), name, onnx.FLOAT, ["b", 1, "c", width])
    for name in present:
        _value(graph.output.add(), name, onnx.FLOAT, ["b", 1, "c", width])
    entries = {
        "padlite.schema": "1",
        "padlite.kind": "lm",
        "padlite.dimensions": json.dumps([{"name": "preference", "description": "what it is told"}]),
        "padlite.scores": "logprob" if normalized else "logit",
        "padlite.vocabulary_size": str(size),
        "padlite.context_length": str(context_length),
        "padlite.parameters": str(2 * size * width),
        "padlite.tokenizer_sha256": tokenizer_sha256,
        "padlite.preference": "humor",
        **(metadata or {}),
    }
    for key, value in entries.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    path.write_bytes(onnx.serialize_model(model))
    if data:
        path.with_name(f"{path.name}.data").write_bytes(data)
    return path


def _node(graph: onnx.Graph, operator: str, inputs: Sequence[str], outputs: Sequence[str], **settings: int) -> None:
    node = graph.node.add()
    node.op_type, node.name = operator, outputs[0]
    node.input.extend(inputs)
    node.output.extend(outputs)
    for name, value in settings.items():
        attribute = node.attribute.add()
        attribute.name, attribute.type, attribute.i = name, _INT, value


def _value(value: onnx.Value, name: str, item: int, shape: Sequence[int | str]) -> None:
    value.name = name
    value.type.tensor_type.elem_type = item
    for size in shape:
        dimension = value.type.tensor_type.shape.dim.add()
        if isinstance(size, int):
            dimension.dim_value = size
        else:
            dimension.dim_param = size
