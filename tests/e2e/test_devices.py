"""Where the models run, as people ask for it: on the command line, in a profile, in Python; and what doctor says."""

import json
from pathlib import Path

import pytest

import padlite
from padlite.backends.llama_devices import gpus
from padlite.errors import BackendError, UsageError
from padlite.profile import Profile
from tests.command_line import Home

without_gpu = pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU that llama.cpp uses")
ANSWER = ("chat", "-p", "Hello.", "-n", "3", "--no-save")
ADD = ("dimension", "add", "pirate", "-s", "Answer like a pirate.", "-m", "noise")


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_a_gpu_auto_and_cpu_answer_and_say_nothing(home_with_model: Home, device: str) -> None:
    outcome = home_with_model.run(*ANSWER, "--device", device)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert outcome.stdout.strip()


@without_gpu
@pytest.mark.parametrize(
    "words", [(*ANSWER, "--device", "cuda"), ("serve", "-m", "noise", "--device", "cuda"), (*ADD, "--device", "cuda")]
)
def test_cuda_that_cannot_be_had_is_one_line_with_a_remedy(home_with_model: Home, words: tuple[str, ...]) -> None:
    outcome = home_with_model.run(*words)
    assert (outcome.returncode, outcome.stdout) == (5, "")
    message, remedy = outcome.stderr.splitlines()
    assert message.startswith("padlite: CUDA was asked for, but ")
    assert remedy.startswith("try: use the device 'auto' or 'cpu', or ")


def test_the_device_of_a_new_dimension_is_under_the_engines_options(home_with_model: Home) -> None:
    shown = home_with_model.run("dimension", "add", "--help")
    assert "--device [auto|cpu|cuda]" in shown.stdout.partition("\nEngine:\n")[2]
    refused = home_with_model.run(*ADD, "--device", "gpu")
    assert (refused.returncode, "'gpu' is not one of" in refused.stderr) == (2, True)


@without_gpu
def test_a_profile_says_where_and_the_command_line_overrules_it(home_with_model: Home) -> None:
    home_with_model.profile().write_text('model = "noise"\n[engine]\ndevice = "cuda"\ngpu_layers = 20\n')
    refused = home_with_model.run(*ANSWER)
    assert (refused.returncode, "CUDA was asked for" in refused.stderr) == (5, True)
    examined = home_with_model.run("doctor", "--quick")
    assert examined.returncode == 1
    assert "CUDA was asked for" in examined.stdout
    answered = home_with_model.run(*ANSWER, "--device", "cpu")
    assert (answered.returncode, answered.stderr) == (0, "")
    contradictory = home_with_model.run(*ANSWER, "--device", "cpu", "--gpu-layers", "9")
    assert contradictory.returncode == 2
    assert "9 layers on the GPU contradict the device 'cpu'" in contradictory.stderr

    assert home_with_model.run("profile", "set", "device=cpu", "--unset", "gpu_layers").returncode == 0
    assert json.loads(home_with_model.run("profile", "show", "--json").stdout)["engine"]["device"] == "cpu"
    assert "device       cpu" in home_with_model.run("profile", "show").stdout


@without_gpu
def test_in_python_too(random_base: Path) -> None:
    profile = Profile(base=random_base, decoding={"max_tokens": 3}, device="cuda")
    with pytest.raises(BackendError, match="CUDA was asked for"):
        padlite.open(profile)
    for device in ("cpu", "auto"):
        with padlite.open(profile, device=device) as chat:
            assert chat.reply("Hello.").text
    with pytest.raises(UsageError, match="device: 'gpu' is none"):
        padlite.open(profile, device="gpu")


def test_doctor_says_where_the_model_runs_and_how_this_machine_could_have_cuda(
    home_with_model: Home, tmp_path: Path
) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\ncase "$*" in *driver*) echo 535.104.05;; *) echo "RTX 4070, 12282 MiB";; esac\n')
    tool.chmod(0o755)
    path = f"{tool.parent}:{home_with_model.environment['PATH']}"
    outcome = home_with_model.run("doctor", "--quick", environment={"PATH": path, "COLUMNS": "100"})
    assert outcome.returncode == 0, outcome.stdout
    assert "s, on the CPU" in " ".join(outcome.stdout.split())
    lines = [line.strip() for line in outcome.stdout.splitlines()]
    begin = next(i for i, line in enumerate(lines) if "ONNX Runtime" in line)
    assert lines[begin + 1 : begin + 5] == [
        "→ to run reward heads on this GPU (they are as fast without: docs/install.md):",
        "first a newer NVIDIA driver: CUDA 13 needs 580, this is 535.104.05",
        "pip uninstall -y onnxruntime",
        "pip install 'onnxruntime-gpu[cuda,cudnn]'",
    ]
