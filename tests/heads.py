"""Small reward heads as files, whole or with one thing changed in them; for the tests of everything that reads one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from padlite.backends import onnx_schema as onnx
from padlite.backends.onnx_head import HalfArray, Probe, write_head
from padlite.seams import Dimension, FloatArray, Step

V, D, R = 50, 6, 3
NAMES = ("alpha", "beta")
SHA256 = "0123456789abcdef" * 4


def probe(width: int = D, *, text: str = "Hello there.") -> Probe:
    hidden = np.arange(1, width + 1, dtype=np.float32)
    return Probe(text=text, hidden=(hidden / np.linalg.norm(hidden)).astype(np.float32))


def arrays(*, vocabulary_size: int = V, width: int = D, rank: int = R, seed: int = 1) -> tuple[HalfArray, FloatArray]:
    """A random table (V, r) and random maps (m, d, r)."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((vocabulary_size, rank)).astype(np.float16)
    return table, rng.standard_normal((len(NAMES), width, rank)).astype(np.float32)


def write_small_head(path: Path, *, vocabulary_size: int = V, width: int = D, rank: int = R) -> Path:
    table, maps = arrays(vocabulary_size=vocabulary_size, width=width, rank=rank)
    dimensions = [Dimension(name=name, description=f"more {name}", scale=0.5) for name in NAMES]
    write_head(
        path, table=table, maps=maps, dimensions=dimensions, tokenizer_sha256=SHA256, probe=probe(width)
    )  # fmt: skip
    return path


def write_large_head(path: Path) -> Path:
    """A head whose table (1.2 MB) lies in a data file."""
    return write_small_head(path, vocabulary_size=200_000)


def write_head_of(
    path: Path, *, dimensions: int, width: int, rank: int, vocabulary_size: int = V, seed: int = 1
) -> Path:
    """A head with so many dimensions of random numbers; what is above 1 MiB lies in a data file."""
    rng = np.random.default_rng(seed)
    write_head(
        path, table=rng.standard_normal((vocabulary_size, rank)).astype(np.float16),
        maps=rng.standard_normal((dimensions, width, rank)).astype(np.float32),
        dimensions=[Dimension(name=f"number-{i}") for i in range(dimensions)], tokenizer_sha256=SHA256,
        probe=probe(width),
    )  # fmt: skip
    return path


def edit(path: Path, change: Callable[[onnx.Model], object]) -> Path:
    """Apply *change* to the parsed file and write it back."""
    model = onnx.parse_model(path.read_bytes())
    change(model)
    path.write_bytes(onnx.serialize_model(model))
    return path


def set_metadata(model: onnx.Model, key: str, value: str) -> None:
    next(entry for entry in model.metadata_props if entry.key == key).value = value


def initializer(model: onnx.Model, name: str) -> onnx.Tensor:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def add_node(model: onnx.Model, operator: str, *, domain: str = "") -> onnx.Node:
    """Append a harmless-looking node that reads the hidden state."""
    node = model.graph.node.add()
    node.op_type, node.domain = operator, domain
    node.input.append("hidden")
    node.output.append("extra")
    return node


def step(candidates: list[int], *, width: int = D, seed: int = 2) -> Step:
    hidden = np.random.default_rng(seed).standard_normal(width).astype(np.float32)
    count = len(candidates)
    return Step(
        context=(1, 2),
        candidates=np.array(candidates, dtype=np.int64),
        base_logits=np.zeros(count, dtype=np.float32),
        hidden=hidden,
        weights=np.ones(len(NAMES), dtype=np.float32),
    )
