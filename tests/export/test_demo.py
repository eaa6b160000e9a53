"""examples/export_demo.sh, from nothing to a chat."""

import json
import subprocess
from pathlib import Path

from tests.command_line import REPOSITORY, Home


def test_everything_is_exported_within_its_tolerance_and_chats(tmp_path: Path, converter: Path) -> None:
    done = subprocess.run(
        [str(REPOSITORY / "examples" / "export_demo.sh"), str(tmp_path / "made"), "--converter", str(converter)],
        env=Home(folder=tmp_path).environment, capture_output=True, text=True, check=False, timeout=290,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    proofs = [json.loads(path.read_text()) for path in (tmp_path / "made").glob("*.proof.json")]
    exact = [proof["against_source"]["overall"] for proof in proofs if proof["dtype"] == "f32"]
    assert len(exact) == 4
    assert all(each["logits_difference"] < 1e-3 and each["same_best"] >= 0.999 for each in exact)
    rewards = {proof["dtype"]: proof["parity"] for proof in proofs if "parity" in proof and proof["value_head"]}
    assert set(rewards) == {"fp32", "int8", "int4"}
    assert rewards["fp32"]["largest_error"] < 1e-3 < rewards["int8"]["largest_error"]
    assert rewards["fp32"]["same_best"] >= 0.999
    answers = done.stdout.partition("== chat\n")[2].splitlines()
    assert answers[0] == "Hello, friend. How are you?"
    assert len(answers) == 2
