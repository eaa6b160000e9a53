"""Runs onnxruntime-genai's model builder in a process of its own: a checkpoint in, its bare graph out.

That graph has grouped-query attention with the rotary embedding inside and writes the KV cache in place, which is
twice as fast as what other exporters make. Knows neither candidates nor padlite's metadata.
"""

import os
import subprocess
import sys
from pathlib import Path

import onnx

from padlite.errors import BackendError
from padlite_export.checkpoint import Checkpoint

_SHOWN_LINES = 5


def build(checkpoint: Checkpoint, work: Path) -> onnx.ModelProto:
    """Return the float32 graph of *checkpoint*, ending in its hidden states; *work* is an empty folder for files.

    Raises BackendError with the builder's last lines if it doesn't know the architecture.
    """
    source, target = work / "checkpoint", work / "built"
    checkpoint.model.save_pretrained(source)
    checkpoint.tokenizer.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8")
    command = [
        sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(target), "-p", "fp32",
        "-e", "cpu", "-c", str(work / "cache"), "--extra_options", "exclude_lm_head=true", "hf_token=false",
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if ended.returncode != 0 or not (target / "model.onnx").is_file():
        lines = [line.strip() for line in (ended.stderr + ended.stdout).splitlines() if line.strip()]
        raise BackendError(
            f"the model builder can't export {checkpoint.kind!r}: " + " / ".join(lines[-_SHOWN_LINES:])[-600:],
            remedy="export it with --via torch",
        )
    return onnx.load(target / "model.onnx")
