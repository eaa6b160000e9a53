"""A checkpoint's graph by optimum-onnx, for those who keep to it: its own extra, as it needs transformers before 4.58.

optimum writes a cache that grows by copying, a mask, and the logits of the whole vocabulary. Here each attention
becomes GroupQueryAttention of ONNX Runtime, which writes keys and values in place, the positions are counted inside,
and the graph ends in its hidden states. Shapes: s new tokens, t tokens in all, h key-value heads of width w.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import transformers
from onnx import TensorProto, helper, numpy_helper

from padlite.errors import BackendError
from padlite_export.checkpoint import Checkpoint, first_line
from padlite_export.graft import HIDDEN, lift_constants


class _UnknownGraphError(Exception):
    """The graph isn't put together as optimum does it for the models that are known here."""


def build(checkpoint: Checkpoint, work: Path) -> onnx.ModelProto:
    """Return the float32 graph of *checkpoint*, ending in its hidden states; *work* is an empty folder for files.

    Raises BackendError if optimum can't export it, or if it attends in a way that has no cache in place.
    """
    require_older_transformers(transformers.__version__)
    config = checkpoint.model.config
    try:
        _require_full_attention(config)
        with _quiet():
            from optimum.exporters.onnx import onnx_export_from_model

            onnx_export_from_model(
                checkpoint.model, work / "built", task="text-generation-with-past", do_validation=False
            )
        model = onnx.load(work / "built" / "model.onnx")
        lift_constants(model.graph)
        _drop_identities(model.graph)
        _end_in_hidden_states(model.graph, int(config.vocab_size))
        _count_positions(model)
        _attend_in_place(model, heads=int(config.num_attention_heads))
    except Exception as error:  # whatever optimum and a model's own code may raise
        raise _refused(checkpoint, error) from error
    _replace_filled_shapes(model.graph)
    _prune(model.graph)
    return model


def require_older_transformers(version: str) -> None:
    """Raise BackendError unless *version* of transformers is one that optimum-onnx was made for: before 4.58."""
    parts = version.split(".")
    if (int(parts[0]), int(parts[1])) >= (4, 58):
        raise BackendError(
            f"optimum-onnx was made for transformers before 4.58 and misreads what {version} says",
            remedy="pip install 'padlite[optimum]' in an environment of its own, or use --via torch",
        )


def _refused(checkpoint: Checkpoint, error: Exception) -> BackendError:
    return BackendError(
        f"optimum can't export {checkpoint.kind!r} with a cache in place: {first_line(error)}",
        remedy="use --via builder or --via torch, with pip install 'padlite[export]' in an environment of its own",
    )


def _require_full_attention(config: transformers.PretrainedConfig) -> None:
    """Raise _UnknownGraphError for a model with a window: that is hidden in optimum's mask, which is left out here."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if kinds - {"full_attention"} or (window and not kinds):
        raise _UnknownGraphError("it has layers with a sliding window")


def _drop_identities(graph: onnx.GraphProto) -> None:
    """Let readers of a copy read the original."""
    original: dict[str, str] = {}
    kept = []
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        node.input[:] = [original.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.output[0] not in outputs:
            original[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _end_in_hidden_states(graph: onnx.GraphProto, vocabulary_size: int) -> None:
    """Replace the output `logits` by what their last matrix product reads."""
    makers = {name: node for node in graph.node for name in node.output}
    matrices = {each.name for each in graph.initializer if vocabulary_size in each.dims}
    name = "logits"
    for _ in range(8):
        node = makers.get(name)
        if node is None:
            break
        if node.op_type == "MatMul" and node.input[1] in matrices:
            _rename(graph, node.input[0], HIDDEN)
            graph.output.remove(next(value for value in graph.output if value.name == "logits"))
            graph.output.insert(0, helper.make_tensor_value_info(HIDDEN, TensorProto.FLOAT, ["b", "s", "d"]))
            return
        name = next((each for each in node.input if each in makers), "")
    raise _UnknownGraphError("its logits aren't a product with the output matrix")


def _count_positions(model: onnx.ModelProto) -> None:
    """Replace the input `position_ids` by the places of the last s of t tokens."""
    graph = model.graph
    found = next((value for value in graph.input if value.name == "position_ids"), None)
    if found is None:
        return
    graph.input.remove(found)
    constants = {"padlite.one": np.array(1), "padlite.axis": np.array([0])}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    nodes = [
        *_size_of("input_ids", "padlite.new"),
        *_size_of("attention_mask", "padlite.total"),
        helper.make_node("Sub", ["padlite.total", "padlite.new"], ["padlite.held"]),
        helper.make_node("Range", ["padlite.held", "padlite.total", "padlite.one"], ["padlite.places"]),
        helper.make_node("Unsqueeze", ["padlite.places", "padlite.axis"], ["position_ids"]),
    ]
    for at, node in enumerate(nodes):
        graph.node.insert(at, node)


def _size_of(name: str, result: str) -> list[onnx.NodeProto]:
    """Return the nodes that give the second size of *name* as a number."""
    shape = f"{result}.shape"
    return [
        helper.make_node("Shape", [name], [shape]),
        helper.make_node("Gather", [shape, "padlite.one"], [result], axis=0),
    ]


def _attend_in_place(model: onnx.ModelProto, *, heads: int) -> None:
    """Replace the attention of every layer."""
    graph = model.graph
    if not any(node.output[0] == "padlite.total" for node in graph.node):
        raise _UnknownGraphError("it doesn't take positions")
    made = [
        helper.make_node("ReduceSum", ["attention_mask", "padlite.last"], ["padlite.seen"], keepdims=0),
        helper.make_node("Sub", ["padlite.seen", "padlite.one"], ["padlite.before"]),
        helper.make_node("Cast", ["padlite.before"], ["padlite.filled"], to=TensorProto.INT32),
        helper.make_node("Cast", ["padlite.total"], ["padlite.total32"], to=TensorProto.INT32),
    ]
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "padlite.last"))
    start = 1 + next(at for at, node in enumerate(graph.node) if node.output[0] == "position_ids")
    for at, node in enumerate(made):
        graph.node.insert(start + at, node)
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    layers = sum(value.name.endswith(".key") for value in graph.output)
    for softmax in softmaxes:
        _replace_attention(graph, softmax, heads=heads)
    found = sum(node.op_type == "GroupQueryAttention" for node in graph.node)
    if found != layers or len(softmaxes) != layers:
        raise _UnknownGraphError("not all of its layers attend in the usual way")
    if not any(each.domain == "com.microsoft" for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _replace_attention(graph: onnx.GraphProto, softmax: onnx.NodeProto, *, heads: int) -> None:
    """Replace softmax(c·Q · c'·Kᵀ + mask) · V of one layer, Q (1, heads, s, w), in place."""
    makers = {name: node for node in graph.node for name in node.output}
    numbers = {each.name: each for each in graph.initializer}
    masked = makers[softmax.input[0]]
    product = next((node for name in masked.input if (node := makers.get(name)) and node.op_type == "MatMul"), None)
    if masked.op_type != "Add" or product is None:
        raise _UnknownGraphError("its attention has more than a mask")
    query, scale = _without_factor(product.input[0], makers, numbers)
    keys, other = _without_factor(product.input[1], makers, numbers)
    key = _ancestor(keys, makers, lambda name: name.startswith("present.") and name.endswith(".key"))
    mixing = _reader(graph, softmax.output[0])
    value = f"{key.removesuffix('key')}value"
    if _ancestor(mixing.input[1], makers, lambda name: name.startswith("present.")) != value:
        raise _UnknownGraphError("its keys and values don't belong together")
    new = {}
    for name in (key, value):
        joined = makers[name]
        past = f"past_key_values.{name.removeprefix('present.')}"
        if joined.op_type != "Concat" or joined.input[0] != past or len(joined.input) != 2:
            raise _UnknownGraphError("its cache isn't the old one and the new keys and values")
        new[name] = joined.input[1]
        graph.node.remove(joined)
    pasts = [value for value in graph.input if value.name == f"past_key_values.{key.removeprefix('present.')}"]
    kv_heads, width = (pasts[0].type.tensor_type.shape.dim[at].dim_value for at in (1, 3))
    prefix = f"padlite.{key.removesuffix('.key')}"
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, -1]), f"{prefix}.flat"))
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, heads, width]), f"{prefix}.heads"))
    nodes = []
    for part, name in (("query", query), ("key", new[key]), ("value", new[value])):
        nodes += [
            helper.make_node("Transpose", [name], [f"{prefix}.{part}.turned"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", [f"{prefix}.{part}.turned", f"{prefix}.flat"], [f"{prefix}.{part}"]),
        ]
    inputs = [f"{prefix}.{part}" for part in ("query", "key", "value")]
    caches = [f"past_key_values.{name.removeprefix('present.')}" for name in (key, value)]
    nodes += [
        helper.make_node(
            "GroupQueryAttention", [*inputs, *caches, "padlite.filled", "padlite.total32"],
            [f"{prefix}.mixed", key, value], domain="com.microsoft", num_heads=heads, kv_num_heads=kv_heads,
            scale=scale * other,
        ),
        helper.make_node("Reshape", [f"{prefix}.mixed", f"{prefix}.heads"], [f"{prefix}.split"]),
        helper.make_node("Transpose", [f"{prefix}.split"], [mixing.output[0]], perm=[0, 2, 1, 3]),
    ]  # fmt: skip
    at = list(graph.node).index(mixing)
    graph.node.remove(mixing)
    for step, node in enumerate(nodes):
        graph.node.insert(at + step, node)


def _without_factor(
    name: str, makers: dict[str, onnx.NodeProto], numbers: dict[str, onnx.TensorProto]
) -> tuple[str, float]:
    """Return what is multiplied by a constant to give *name*, and that constant."""
    node = makers.get(name)
    if node is None or node.op_type != "Mul" or node.input[1] not in numbers:
        raise _UnknownGraphError("its products of queries and keys aren't scaled by a constant")
    factor = numpy_helper.to_array(numbers[node.input[1]])
    if factor.size != 1:
        raise _UnknownGraphError("its products of queries and keys aren't scaled by a constant")
    return str(node.input[0]), float(factor.reshape(()))


def _ancestor(name: str, makers: dict[str, onnx.NodeProto], wanted: Callable[[str], bool]) -> str:
    """Return the name nearest to *name*, upwards along first inputs, that is *wanted*."""
    for _ in range(12):
        if wanted(name):
            return name
        node = makers.get(name)
        if node is None:
            break
        name = str(node.input[0])
    raise _UnknownGraphError("its attention doesn't read the cache")


def _reader(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    """Return the product that reads the weights *name*, after the guard against rows that see nothing."""
    for _ in range(3):
        readers = [node for node in graph.node if name in node.input]
        product = next((node for node in readers if node.op_type == "MatMul"), None)
        if product is not None:
            return product
        guard = next((node for node in readers if node.op_type in {"Where", "Cast"}), None)
        if guard is None:
            break
        name = guard.output[0]
    raise _UnknownGraphError("its attention isn't a product with the values")


def _replace_filled_shapes(graph: onnx.GraphProto) -> None:
    """Write arrays of one repeated number as that number, expanded: the pre-flight accepts no arrays as settings."""
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            setting = next((each.t for each in node.attribute if each.name == "value"), None)
            value = np.zeros(1, dtype=np.float32) if setting is None else numpy_helper.to_array(setting)
            graph.initializer.append(numpy_helper.from_array(value.reshape(1), f"{node.output[0]}.value"))
            shape = node.input[0]
            del node.attribute[:]
            node.op_type = "Expand"
            node.input[:] = [f"{node.output[0]}.value", shape]


def _prune(graph: onnx.GraphProto) -> None:
    """Drop what no output needs, and a past that is no input any more."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    arrays = [each for each in graph.initializer if each.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(arrays)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what optimum and PyTorch's older exporter tell of every node off the terminal."""
    loggers = {name: logging.getLogger(name) for name in ("optimum", "transformers", "torch.onnx")}
    levels = {name: each.level for name, each in loggers.items()}
    try:
        for each in loggers.values():
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, each in loggers.items():
            each.setLevel(levels[name])
