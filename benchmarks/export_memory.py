"""Time and peak memory of `padlite export base` for a random checkpoint of 135 million weights.

    python -m benchmarks.export_memory [OPTIONS of padlite export base]

The peak is the largest of the command and its converter, which don't both hold the weights at once.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from padlite_export.random_checkpoint import write_checkpoint
from padlite_training.random_llama import LLAMA_135M


def main() -> None:
    """Write the checkpoint, export it, print the figures."""
    shape = LLAMA_135M
    sizes = {
        "vocab_size": shape.vocabulary_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": shape.context_length,
    }
    with tempfile.TemporaryDirectory() as folder:
        source = write_checkpoint(Path(folder) / "source", sizes=sizes)
        out = Path(folder) / "base.gguf"
        command = [sys.executable, "-m", "padlite", "export", "base", str(source), "--out", str(out), *sys.argv[1:]]
        began = time.perf_counter()
        subprocess.run(command, check=True)
        spent = time.perf_counter() - began
        peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"{spent:.0f} s, peak {peak_kib / 2**20:.2f} GiB, {out.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
