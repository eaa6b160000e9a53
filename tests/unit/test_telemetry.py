"""ONNX Runtime's telemetry is off: nothing lands in the home folder, no thread is left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import heads

ROOT = Path(__file__).parents[2]

SCORE = """
import os, sys
from pathlib import Path
import numpy
threads_before = len(os.listdir("/proc/self/task"))
from padlite.backends.onnx import OnnxHead
from padlite.seams import Step
with OnnxHead.open(Path(sys.argv[1])) as head:
    head.features(Step(context=(), candidates=numpy.arange(3), base_logits=numpy.zeros(3, "f4"),
                       hidden=numpy.ones(head.hidden_size, "f4"),
                       weights=numpy.ones(len(head.dimensions), "f4")))
    print(len(os.listdir("/proc/self/task")) - threads_before)
"""


def _run(program: str, *arguments: str, home: Path, **variables: str) -> str:
    """Run *program* with a fresh home folder and none of this process's settings for ONNX Runtime."""
    folders = {
        "HOME": "",
        "XDG_CACHE_HOME": "cache",
        "XDG_CONFIG_HOME": "config",
        "XDG_DATA_HOME": "data",
        "TMPDIR": "tmp",
    }
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "XDG_"))}
    environment |= {key: str(home / folder) for key, folder in folders.items()} | variables
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment, cwd=home, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_opening_a_head_writes_nothing_into_the_home_folder_and_starts_no_thread(tmp_path: Path) -> None:
    head = heads.write_small_head(tmp_path / "reward.onnx")
    home = tmp_path / "home"
    home.mkdir()
    assert _run(SCORE, str(head), home=home) == "0"
    assert list(home.rglob("*")) == []


def test_importing_padlite_switches_telemetry_off_and_imports_no_engine(tmp_path: Path) -> None:
    program = (
        "import os, sys, padlite; "
        "print(os.environ['ORT_DISABLE_TELEMETRY'], {'onnxruntime', 'numpy', 'llama_cpp'} & sys.modules.keys())"
    )
    assert _run(program, home=tmp_path) == "1 set()"


def test_the_variable_is_set_before_onnx_runtime_is_imported(tmp_path: Path) -> None:
    """An import hook notes the environment at the moment when somebody first asks for onnxruntime."""
    program = """
import os, sys
class Witness:
    seen = []
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            self.seen.append(os.environ.get("ORT_DISABLE_TELEMETRY"))
        return None
sys.meta_path.insert(0, Witness())
from padlite.backends.onnx_runtime import providers
assert not Witness.seen, "importing the backend must not import ONNX Runtime"
providers()
print(Witness.seen[0])
"""
    assert _run(program, home=tmp_path) == "1"


def test_a_person_who_sets_the_variable_is_obeyed(tmp_path: Path) -> None:
    program = "import os, padlite; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert _run(program, home=tmp_path, ORT_DISABLE_TELEMETRY="0") == "0"
