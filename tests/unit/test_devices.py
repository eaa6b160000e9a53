"""Where the models run: what can be asked for, what llama.cpp is then allowed, and what a machine without GPU says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cuda import parity
from padlite.backends import llama_devices
from padlite.backends.llama import LlamaModel, _layer_attempts
from padlite.backends.llama_devices import Gpu, allowed, as_list, gpus
from padlite.errors import BackendError, UsageError
from padlite.opening import _engine_options, find_source, open_models
from padlite.options import EngineOptions
from padlite.profile import Profile

CUDA0 = Gpu(name="CUDA0", description="NVIDIA RTX", handle=17)
CUDA1 = Gpu(name="CUDA1", description="NVIDIA RTX", handle=18)
VULKAN = Gpu(name="Vulkan0", description="AMD", handle=19)

without_gpu = pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU that llama.cpp uses")


def test_auto_leaves_the_choice_to_llama() -> None:
    assert allowed(EngineOptions(), [CUDA0, VULKAN]) is None


def test_cpu_allows_no_gpu() -> None:
    assert allowed(EngineOptions(device="cpu"), [CUDA0]) == ()
    assert list(as_list(())) == [None]


def test_cuda_allows_nvidias_gpus_alone() -> None:
    chosen = allowed(EngineOptions(device="cuda"), [VULKAN, CUDA0, CUDA1])
    assert chosen == [CUDA0, CUDA1]
    assert list(as_list(chosen)) == [17, 18, None]


def test_cuda_is_not_needed_for_a_base_that_shall_not_be_on_the_gpu() -> None:
    assert allowed(EngineOptions(device="cuda", gpu_layers=0), []) == ()


def test_cuda_that_is_not_there_is_an_error_with_a_remedy() -> None:
    with pytest.raises(BackendError, match=r"CUDA was asked for, but llama\.cpp") as caught:
        allowed(EngineOptions(device="cuda"), [VULKAN])
    assert caught.value.exit_code == 5
    assert "'auto' or 'cpu'" in caught.value.remedy


@without_gpu
def test_models_are_not_touched_if_their_device_cannot_be_had(tmp_path: Path) -> None:
    profile = Profile(base=tmp_path / "no.gguf", reward=tmp_path / "no.onnx", device="cuda")
    with pytest.raises(BackendError, match="CUDA was asked for"), open_models(profile):
        pass


def test_an_unknown_device_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean 'cuda'") as caught:
        EngineOptions(device="cuda0")
    assert caught.value.remedy == "set device to one of: auto, cpu, cuda"


def test_layers_on_the_gpu_contradict_the_cpu() -> None:
    assert EngineOptions(device="cpu", gpu_layers=0).gpu_layers == 0
    with pytest.raises(UsageError, match="contradict"):
        EngineOptions(device="cpu", gpu_layers=1)


def test_a_device_that_is_chosen_for_a_run_overrules_the_profiles_layers() -> None:
    profile = Profile(gpu_layers=20)
    assert profile.on_device("cpu") == replace(profile, device="cpu", gpu_layers=-1)
    assert profile.on_device("cuda") == replace(profile, device="cuda")


@pytest.mark.parametrize(
    ("options", "gpu", "attempts"),
    [
        (EngineOptions(), True, [999, 32, 24, 16, 8, 0]),
        (EngineOptions(), False, [0]),
        (EngineOptions(device="cpu"), True, [0]),
        (EngineOptions(device="cuda"), True, [999, 32, 24, 16, 8]),
        (EngineOptions(gpu_layers=5), True, [5]),
        (EngineOptions(device="cuda", gpu_layers=0), True, [0]),
    ],
)
def test_only_cuda_insists_on_the_gpu(options: EngineOptions, gpu: bool, attempts: list[int]) -> None:
    assert _layer_attempts(options, gpu=gpu) == attempts


def test_a_model_that_is_allowed_no_gpu_computes_the_same(random_base: Path) -> None:
    tokens = [1, 40, 41, 42]
    with (
        LlamaModel.open(random_base, EngineOptions(device="cpu", threads=1)) as cpu,
        LlamaModel.open(random_base, EngineOptions(gpu_layers=0, threads=1)) as auto,
    ):
        assert cpu.gpu_layers == 0
        assert np.array_equal(cpu.prefill(tokens).logits, auto.prefill(tokens).logits)


def test_the_profile_says_where_its_base_runs(random_base: Path) -> None:
    profile = Profile(base=random_base, device="cpu")
    options = _engine_options(profile, find_source(profile), parallel=1, sentences=0, hidden_states=False)
    assert options.device == "cpu"


@without_gpu
def test_this_machine_has_nothing_beside_the_cpu() -> None:
    assert llama_devices.gpus() == ()


def test_the_benchmark_finds_no_difference_between_the_cpu_and_itself(random_base: Path, random_head: Path) -> None:
    same = parity(random_base, random_head, gpu="cpu")
    assert (same.base_logprob, same.base_top_1, same.head_feature) == (0.0, 1.0, 0.0)
