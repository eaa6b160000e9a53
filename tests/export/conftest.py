"""Small checkpoints and what became of them; everything here needs the extra padlite[export]."""

from pathlib import Path

import pytest

for _module in ("torch", "transformers", "onnx"):
    pytest.importorskip(_module, reason="needs the export extra: pip install -e '.[export]'")

from padlite_export.random_checkpoint import write_adapter, write_checkpoint  # noqa: E402
from padlite_export.reward import Report, export_reward  # noqa: E402


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with PAD's value head, tied embeddings, and the tokenizer of `random_base`."""
    return write_checkpoint(tmp_path_factory.mktemp("llama"), value_head=True)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="session")
def exported(checkpoint: Path, adapter: Path, random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The checkpoint with its adapter as fp32."""
    out = tmp_path_factory.mktemp("exported") / "reward.onnx"
    return export_reward(
        checkpoint, out, base=random_base, dtype="fp32", adapter=adapter, name="humor", preference="funny"
    )  # fmt: skip
