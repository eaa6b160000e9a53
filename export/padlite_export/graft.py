"""Makes a reward LM's graph of a bare language model's: its output gathered at the candidates, its names padlite's own.

Takes a graph that ends in `hidden_states` (1, s, d) and gives one that docs/formats.md describes, in two parts that no
value connects: tokens to hidden state, state to scores. Constants become initializers and notes on intermediate values
go, so that the pre-flight of the runtime accepts it. Shapes: s new tokens, k candidates, V vocabulary, d width. Runs
nothing.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

HIDDEN = "hidden_states"
_LAST, _STATE = "hidden", "state"  # where the first part ends and the second begins
_BLOCK = 32

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How hidden states become scores: *matrix* (V, d), or None for the embedding's; *bias* (V,); PAD's *value_head*.

    *head_size* is the width of an attention head, *scale* multiplies logits as Cohere and Granite do, *softcap*
    squeezes them as Gemma does, *normalized* makes log-probabilities of them.
    """

    matrix: Array | None
    head_size: int
    bias: Array | None = None
    value_head: tuple[Array, Array] | None = None
    scale: float = 1.0
    softcap: float = 0.0
    normalized: bool = False


def graft(model: onnx.ModelProto, output: Output, *, metadata: Mapping[str, str]) -> None:
    """Give *model* the inputs and outputs of a reward LM, in place."""
    graph = model.graph
    lift_constants(graph)
    matrix = _embedding(graph) if output.matrix is None else _constant(graph, "scores.matrix", output.matrix)
    width = next(each.dims[1] for each in graph.initializer if each.name == matrix)
    _add(graph, "Gather", [HIDDEN, _constant(graph, "scores.last", np.array(-1))], _LAST, axis=1)
    state = _STATE
    if output.value_head is not None:
        parts = [_constant(graph, f"v_head.{i}", part) for i, part in enumerate(output.value_head)]
        state = _add(graph, "Gemm", [state, *parts], "scores.valued", transB=1)
    _score(graph, state, matrix, output)
    graph.input.append(helper.make_tensor_value_info(_STATE, TensorProto.FLOAT, ["b", width]))
    graph.input.append(helper.make_tensor_value_info("candidates", TensorProto.INT64, ["k"]))
    caches = [value for value in graph.output if value.name.startswith("present.")]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(_LAST, TensorProto.FLOAT, ["b", width]))
    graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["b", "k"]))
    graph.output.extend(caches)
    for cache in [*graph.output[2:], *(value for value in graph.input if value.name.startswith("past_key_values."))]:
        cache.type.tensor_type.shape.dim[3].dim_value = output.head_size
    del graph.value_info[:]
    for node in graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    graph.name, model.producer_name = "lm", "padlite"
    graph.ClearField("doc_string")
    graph.ClearField("metadata_props")
    model.ClearField("producer_version")
    helper.set_model_props(model, dict(metadata))


def _score(graph: onnx.GraphProto, state: str, matrix: str, output: Output) -> None:
    """Add the nodes from *state* (1, d) to `scores` (1, k)."""
    bias = [] if output.bias is None else [_constant(graph, "scores.bias", output.bias)]
    if output.normalized:
        logits = _shaped(graph, _add(graph, "Gemm", [state, matrix, *bias], "scores.logits", transB=1), output)
        axis = _constant(graph, "scores.axis", np.array([1]))
        normalizer = _add(graph, "ReduceLogSumExp", [logits, axis], "scores.normalizer", keepdims=1)
        chosen = _add(graph, "Gather", [logits, "candidates"], "scores.chosen", axis=1)
        _add(graph, "Sub", [chosen, normalizer], "scores")
        return
    rows = _add(graph, "Gather", [matrix, "candidates"], "scores.rows", axis=0)
    bias = [_add(graph, "Gather", [each, "candidates"], "scores.biases", axis=0) for each in bias]
    _shaped(graph, _add(graph, "Gemm", [state, rows, *bias], "scores.logits", transB=1), output)
    graph.node[-1].output[0] = "scores"


def _shaped(graph: onnx.GraphProto, logits: str, output: Output) -> str:
    """Return cap · tanh(scale · logits / cap), without a cap scale · logits."""
    cap = output.softcap
    if output.scale != 1.0:
        factor = _constant(graph, "scores.scale", np.array(output.scale, dtype=np.float32))
        logits = _add(graph, "Mul", [logits, factor], "scores.multiplied")
    if not cap:
        return logits
    inverse = _constant(graph, "scores.inverse_cap", np.array(1 / cap, dtype=np.float32))
    squeezed = _add(graph, "Tanh", [_add(graph, "Mul", [logits, inverse], "scores.scaled")], "scores.squeezed")
    limit = _constant(graph, "scores.cap", np.array(cap, dtype=np.float32))
    return _add(graph, "Mul", [squeezed, limit], "scores.capped")


def halve(model: onnx.ModelProto, *, everything: bool) -> None:
    """Store matrices of float32 as float16, cast where they are read: *everything*, or only rows that are gathered.

    What is gathered is cast after the gathering, so only these rows are.
    """
    graph = model.graph
    halved = {
        each.name
        for each in graph.initializer
        if each.data_type == TensorProto.FLOAT and len(each.dims) == 2 and _may_halve(graph, each.name, everything)
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in halved:
            result = node.output[0]
            node.output[0] = f"{result}.half"
            nodes += [node, helper.make_node("Cast", [f"{result}.half"], [result], to=TensorProto.FLOAT)]
            continue
        for at, name in enumerate(node.input):
            if name in halved:
                node.input[at] = f"{name}.{len(nodes)}"
                nodes.append(helper.make_node("Cast", [name], [node.input[at]], to=TensorProto.FLOAT))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for each in graph.initializer:
        if each.name in halved:
            each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each).astype(np.float16), each.name))


def _may_halve(graph: onnx.GraphProto, name: str, everything: bool) -> bool:
    readers = {node.op_type for node in graph.node if name in node.input}
    return readers == {"Gather"} or (everything and bool(readers) and readers <= {"MatMul", "Gemm", "Gather"})


def quantize(model: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    """Return *model* with the weights of its products in *bits* bits, blocks of 32; gathered rows in float16."""
    with _own_logging():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        model, bits=bits, block_size=_BLOCK, is_symmetric=True, accuracy_level=4, op_types_to_quantize=("MatMul",)
    )
    logging.getLogger("onnxruntime.quantization").setLevel(logging.WARNING)  # it tells of every node
    quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    halve(quantized, everything=False)
    return quantized


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Undo what a library does to the log of the whole program when it is imported."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def parameters(model: onnx.ModelProto) -> int:
    """Return how many weights the graph holds."""
    return sum(int(np.prod(each.dims)) for each in model.graph.initializer)


def _embedding(graph: onnx.GraphProto) -> str:
    """Return the name of the matrix from which the tokens' rows are gathered."""
    tokens = {"input_ids"}
    for node in graph.node:  # in the order in which they run
        if node.op_type == "Gather" and node.input[1] in tokens:
            return str(node.input[0])
        if node.op_type in {"Reshape", "Cast", "Identity"} and node.input[0] in tokens:
            tokens.update(node.output)
    raise ValueError("no rows are gathered for the tokens")


def lift_constants(graph: onnx.GraphProto) -> None:
    """Turn nodes that hold a constant into initializers."""
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Constant":
            kept.append(node)
            continue
        setting = helper.get_attribute_value(node.attribute[0])
        value = numpy_helper.to_array(setting) if isinstance(setting, TensorProto) else _number(setting)
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)


def _number(setting: float | int | Sequence[float] | Sequence[int]) -> npt.NDArray[np.generic]:
    """Return one number or a list of them in the type that ONNX gives such a constant."""
    value = np.array(setting)
    return value.astype(np.float32) if value.dtype.kind == "f" else value.astype(np.int64)


def rename(model: onnx.ModelProto, *, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Call the inputs and outputs of *model* by these names, in place and in this order."""
    graph = model.graph
    new = {value.name: name for value, name in zip([*graph.input, *graph.output], [*inputs, *outputs], strict=True)}
    for value in [*graph.input, *graph.output]:
        value.name = new[value.name]
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]


def fold_transposes(graph: onnx.GraphProto) -> None:
    """Turn matrices that are transposed before each use into what they are then, so that they can be quantized."""
    matrices = {each.name: each for each in graph.initializer}
    kept = []
    for node in graph.node:
        matrix = matrices.get(node.input[0]) if node.op_type == "Transpose" else None
        if matrix is None:
            kept.append(node)
            continue
        order = next((list(each.ints) for each in node.attribute if each.name == "perm"), None)
        turned = np.ascontiguousarray(numpy_helper.to_array(matrix).transpose(order))
        graph.initializer.append(numpy_helper.from_array(turned, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in graph.node for name in node.input}
    used_arrays = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(used_arrays)


def _constant(graph: onnx.GraphProto, name: str, value: npt.NDArray[np.generic]) -> str:
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _add(graph: onnx.GraphProto, operator: str, inputs: list[str], output: str, **settings: int) -> str:
    node = helper.make_node(operator, inputs, [output], name=output)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in settings.items())
    graph.node.append(node)
    return output
