"""`padlite doctor` as people run it: on a machine where chat works, and on broken ones."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.command_line import Home

SUBJECTS = [
    "padlite", "processor", "llama.cpp", "ONNX Runtime", "telemetry", "graphics", "config", "data", "profile",
    "threads", "model files", "memory", "model",
]  # fmt: skip


def found(outcome: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    """The findings of `doctor --json` by subject."""
    assert outcome.stderr == ""
    return {finding["subject"]: finding for finding in json.loads(outcome.stdout)["findings"]}


def failures(outcome: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What failed, with its remedy."""
    return {
        f"{name}: {finding['text']}": str(finding["remedy"])
        for name, finding in found(outcome).items()
        if finding["status"] == "fail"
    }


def test_where_chat_works_every_line_says_so_and_the_exit_code_is_0(home_with_model: Home) -> None:
    outcome = home_with_model.run("doctor")
    assert outcome.returncode == 0, outcome.stdout
    assert outcome.stderr == ""
    assert "\x1b" not in outcome.stdout
    lines = outcome.stdout.splitlines()
    assert [line[6:20].strip() for line in lines if line[:4].strip() in {"ok", "warn", "fail"}] == [*SUBJECTS, "speed"]
    assert lines[-1].startswith("chat works here")
    assert "tokens per second without and" in outcome.stdout


def test_as_json_it_holds_every_finding_and_the_verdict(home_with_model: Home) -> None:
    outcome = home_with_model.run("doctor", "--json", "--quick")
    assert outcome.returncode == 0, outcome.stdout
    assert json.loads(outcome.stdout)["ok"] is True
    findings = found(outcome)
    assert list(findings) == SUBJECTS
    assert findings["model"]["facts"]["dimensions"] == ["alpha", "beta", "gamma"]  # type: ignore[index]
    assert findings["telemetry"]["facts"] == {"off": True}


def test_it_leaves_nothing_behind(home_with_model: Home) -> None:
    before = sorted(home_with_model.folder.rglob("*"))
    assert home_with_model.run("doctor", "--quick").returncode == 0
    assert sorted(home_with_model.folder.rglob("*")) == before


def test_it_checks_the_profile_it_is_given(home_with_model: Home, tmp_path: Path) -> None:
    profile = tmp_path / "other.toml"
    profile.write_text('model = "noise"\n[preferences]\nalfa = 0.5\n', encoding="utf-8")
    outcome = home_with_model.run("doctor", "--quick", "--json", "--profile", str(profile))
    assert outcome.returncode == 1
    ((text, remedy),) = failures(outcome).items()
    assert "'alfa' — did you mean 'alpha'?" in text
    assert "alpha, beta, gamma" in remedy


def test_a_profile_that_is_not_there_is_one_failure(home_with_model: Home) -> None:
    outcome = home_with_model.run("doctor", "--quick", "--json", "--profile", "mee")
    assert outcome.returncode == 1
    ((text, remedy),) = failures(outcome).items()
    assert text.startswith("profile: there is no profile 'mee'")
    assert "padlite profile new mee" in remedy


def test_a_damaged_model_file_is_named(home_with_model: Home) -> None:
    file = home_with_model.data / "models" / "noise" / "base.gguf"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    outcome = home_with_model.run("doctor", "--quick", "--json")
    assert outcome.returncode == 1
    assert any("model files: base.gguf of model 'noise' is damaged" in text for text in failures(outcome))


def test_a_model_without_a_chat_template_is_a_failure(home: Home, random_base_without_template: Path) -> None:
    profile = home.folder / "bare.toml"
    profile.write_text(f"base = {json.dumps(str(random_base_without_template))}\n", encoding="utf-8")
    outcome = home.run("doctor", "--quick", "--json", "--profile", str(profile))
    assert outcome.returncode == 1
    ((text, _),) = failures(outcome).items()
    assert "has no chat template" in text


def test_where_nothing_can_be_kept_chat_still_works(home: Home, random_base: Path) -> None:
    profile = home.folder / "bare.toml"
    profile.write_text(f"base = {json.dumps(str(random_base))}\n", encoding="utf-8")
    blocked = {"PADLITE_DATA_DIR": str(profile / "data")}
    outcome = home.run("doctor", "--quick", "--json", "--profile", str(profile), environment=blocked)
    assert outcome.returncode == 0, outcome.stdout
    assert found(outcome)["data"]["status"] == "warn"


def shadowed(home: Home, name: str, code: str) -> dict[str, str]:
    """An environment in which the package *name* is *code* instead of itself."""
    folder = home.folder / "broken"
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(folder), home.environment["PYTHONPATH"]])}


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("raise OSError('libllama.so: undefined symbol')", "can't be loaded: OSError: libllama.so: undefined symbol"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "ends the process with signal 4"),
        ("raise ModuleNotFoundError(\"No module named 'llama_cpp'\")", "llama-cpp-python is not installed"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="signals end processes on POSIX")
def test_it_survives_a_broken_llama(home_with_model: Home, code: str, text: str) -> None:
    environment = shadowed(home_with_model, "llama_cpp", code)
    outcome = home_with_model.run("doctor", "--quick", "--json", environment=environment)
    assert outcome.returncode == 1
    ((said, remedy),) = failures(outcome).items()
    assert text in said
    assert "llama-cpp-python" in remedy
    assert found(outcome)["ONNX Runtime"]["status"] == "ok"
    assert found(outcome)["threads"]["status"] in {"ok", "warn"}


@pytest.mark.parametrize(
    ("code", "repair"),
    [
        ("", "pip uninstall -y onnxruntime onnxruntime-gpu"),
        ("raise ImportError('no')", "pip install --force-reinstall"),
    ],
)
def test_it_survives_a_broken_onnx_runtime(home_with_model: Home, code: str, repair: str) -> None:
    environment = shadowed(home_with_model, "onnxruntime", code)
    outcome = home_with_model.run("doctor", "--quick", "--json", environment=environment)
    assert outcome.returncode == 1
    ((said, remedy),) = failures(outcome).items()
    assert said.startswith("ONNX Runtime: ")
    assert remedy.startswith(repair)
    assert found(outcome)["llama.cpp"]["status"] in {"ok", "warn"}


def test_it_survives_a_broken_psutil(home_with_model: Home) -> None:
    environment = shadowed(home_with_model, "psutil", "raise ImportError('no psutil here')")
    outcome = home_with_model.run("doctor", "--quick", "--json", environment=environment)
    assert outcome.returncode == 1
    assert "processor" in " ".join(failures(outcome))
    assert found(outcome)["data"]["status"] == "ok"
