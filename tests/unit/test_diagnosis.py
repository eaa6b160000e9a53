"""What doctor makes of facts: processors, builds, memory, folders, speed, and checks that break."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from padlite.backends.llama import may_repack
from padlite.backends.onnx_packages import RuntimeState, state_of, unusable_state
from padlite.backends.onnx_runtime import CPU, CUDA, RuntimeReport
from padlite.diagnosis import would_chat
from padlite.diagnosis.chat import Speed, judge_speed, measure_speed
from padlite.diagnosis.engines import (
    CudaHere,
    LlamaBuild,
    Trial,
    features_of_system_info,
    judge_llama,
    judge_llama_trial,
    judge_onnx_runtime,
    judge_onnx_trial,
    judge_telemetry,
    try_in_process,
)
from padlite.diagnosis.finding import Finding, Status, examine
from padlite.diagnosis.folders import examine_folder
from padlite.diagnosis.machine import (
    Memory,
    Processor,
    features_of_cpuinfo,
    features_of_sysctl,
    has_cuda_wheels,
    judge_graphics,
    judge_memory,
    judge_processor,
    judge_threads,
    read_memory,
    read_processor,
)
from padlite.errors import BackendError
from padlite.options import DecodingOptions
from padlite.seams import FloatArray
from padlite.session import Session
from padlite.template import ChatTemplate
from tests.fakes import ALPHABET, LetterTokenizer, TableBase, liking, spelling

LAPTOP = Processor(model="Laptop", features=frozenset({"AVX2", "FMA"}), physical=4, logical=8, usable=8, busy=0.1)
BUILD = LlamaBuild(version="0.3.36", features=frozenset({"AVX2", "FMA", "OPENMP"}), graphics=False)

posix = pytest.mark.skipif(os.name != "posix", reason="modes of files are a matter of POSIX")
not_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")


def test_the_processor_line_names_model_cores_and_instruction_sets() -> None:
    text = judge_processor(dataclasses.replace(LAPTOP, usable=2)).text
    assert text == "Laptop; 4 physical and 8 logical cores, 2 of them usable; AVX2 FMA"


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("processor : 0\nmodel name : X\nflags\t\t: fpu avx avx2 avx512f fma\n", {"AVX", "AVX2", "AVX512", "FMA"}),
        ("Features\t: fp asimd asimddp i8mm\n", {"NEON", "DOTPROD", "MATMUL_INT8"}),
        ("model name : avx2\n", set()),
        ("", set()),
    ],
)
def test_linux_lists_instruction_sets_in_cpuinfo(text: str, features: set[str]) -> None:
    assert features_of_cpuinfo(text) == features


def test_macos_lists_instruction_sets_as_optional_hardware() -> None:
    text = "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_SME: 0\nhw.optional.neon: 1\nhw.optional.avx2_0: 0\n"
    assert features_of_sysctl(text) == {"DOTPROD", "NEON"}


def test_llama_says_what_it_was_built_with() -> None:
    assert features_of_system_info("CPU : SSE3 = 1 | AVX2 = 1 | NEON = 0 | OPENMP = 1 | ") == {"SSE3", "AVX2", "OPENMP"}


def test_a_build_that_fits_the_processor_is_fine() -> None:
    finding = judge_llama(BUILD, LAPTOP.features)
    assert (finding.status, finding.remedy) == (Status.OK, "")


def test_a_build_that_leaves_a_decisive_instruction_set_unused_is_worth_compiling_again() -> None:
    finding = judge_llama(
        dataclasses.replace(BUILD, features=frozenset({"SSSE3"})), frozenset({"SSSE3", "AVX2", "AMX_INT8"})
    )
    assert finding.status is Status.WARN
    assert "leaves AVX2 of this processor unused" in finding.text
    assert "--no-binary llama-cpp-python" in finding.remedy


def test_a_build_for_another_processor_would_crash() -> None:
    finding = judge_llama(dataclasses.replace(BUILD, features=frozenset({"AVX2", "AVX512"})), LAPTOP.features)
    assert finding.status is Status.FAIL
    assert "lacks AVX512" in finding.text


def test_a_processor_nothing_is_known_about_is_given_the_benefit_of_the_doubt() -> None:
    assert judge_llama(BUILD, frozenset()).status is Status.OK


def test_a_build_with_amx_is_used_without_it() -> None:
    finding = judge_llama(dataclasses.replace(BUILD, features=BUILD.features | {"AMX_INT8"}), LAPTOP.features)
    assert "AMX is left unused" in finding.text
    assert not may_repack("CPU : AVX2 = 1 | AMX_INT8 = 1 | REPACK = 1 |")
    assert may_repack("CPU : AVX2 = 1 | REPACK = 1 |")


@pytest.mark.parametrize(
    ("reason", "text", "remedy"),
    [
        ("ModuleNotFoundError: No module named 'llama_cpp'", "is not installed", "pip install llama-cpp-python"),
        ("loading it ends the process with signal 4", "signal 4", "compile it for this machine"),
    ],
)
def test_an_engine_that_does_not_load_is_a_failure_with_a_remedy(reason: str, text: str, remedy: str) -> None:
    finding = judge_llama_trial(Trial(reason=reason))
    assert finding.status is Status.FAIL
    assert text in finding.text
    assert finding.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("pass", ""),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("raise SystemExit(3)", "loading it ends with code 3"),
    ],
)
def test_a_trial_says_how_another_process_ended(code: str, reason: str) -> None:
    assert try_in_process(code).reason == reason


@posix
def test_a_trial_survives_a_process_that_is_killed() -> None:
    assert try_in_process("import os, signal; os.kill(os.getpid(), signal.SIGILL)").reason.endswith("signal 4")


@pytest.mark.parametrize(
    ("threads", "chosen", "busy", "status", "remedy"),
    [
        (4, False, 0.1, Status.OK, ""),
        (4, False, 0.9, Status.WARN, "threads = 3"),
        (1, True, 0.9, Status.OK, ""),
        (5, True, 0.1, Status.WARN, "threads = 4"),
    ],
)
def test_threads_must_not_wait_for_each_other(
    threads: int, chosen: bool, busy: float, status: Status, remedy: str
) -> None:
    finding = judge_threads(dataclasses.replace(LAPTOP, busy=busy), threads, chosen=chosen)
    assert finding.status is status
    assert remedy in finding.remedy


def test_a_model_larger_than_the_free_memory_is_worth_a_warning() -> None:
    memory = Memory(total=16_000_000_000, available=4_000_000_000)
    assert judge_memory(memory, 3_000_000_000).status is Status.OK
    tight = judge_memory(memory, 5_000_000_000)
    assert tight.status is Status.WARN
    assert "5.0 GB" in tight.text


@pytest.mark.parametrize(
    ("names", "supported", "status", "text"),
    [
        ([], False, Status.OK, "none found"),
        (["RTX 4090, 24564 MiB"], True, Status.OK, "RTX 4090"),
        (["RTX 4090, 24564 MiB"], False, Status.WARN, "can't use it"),
    ],
)
def test_a_graphics_processor_that_lies_idle_is_worth_a_warning(
    names: Sequence[str], supported: bool, status: Status, text: str
) -> None:
    finding = judge_graphics(names, supported=supported)
    assert finding.status is status
    assert text in finding.text


NO_GPU = CudaHere(driver="", wheels=True)
RTX = CudaHere(driver="580.65.06", wheels=True)
SWAP = "pip uninstall -y onnxruntime\npip install 'onnxruntime-gpu[cuda,cudnn]'"
SWAP_BACK = "pip uninstall -y onnxruntime-gpu\npip install onnxruntime"
REPAIR = "pip uninstall -y onnxruntime onnxruntime-gpu\npip install onnxruntime"
REPAIR_WITH_CUDA = "pip uninstall -y onnxruntime onnxruntime-gpu\npip install 'onnxruntime-gpu[cuda,cudnn]'"


@pytest.mark.parametrize(
    ("state", "cuda", "status", "remedy"),
    [
        (RuntimeState.CPU, NO_GPU, Status.OK, ""),
        (RuntimeState.CPU, CudaHere(driver="580.65.06", wheels=False), Status.OK, ""),
        (RuntimeState.CPU, RTX, Status.OK, SWAP),
        (RuntimeState.GPU, RTX, Status.OK, ""),
        (RuntimeState.GPU_WITHOUT_CUDA, RTX, Status.WARN, "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        (RuntimeState.GPU_WITHOUT_CUDA, NO_GPU, Status.WARN, SWAP_BACK),
        (RuntimeState.BOTH, NO_GPU, Status.WARN, REPAIR),
        (RuntimeState.BOTH, RTX, Status.WARN, REPAIR_WITH_CUDA),
    ],
)
def test_each_state_of_onnx_runtime_comes_with_the_lines_that_fit_the_machine(
    state: RuntimeState, cuda: CudaHere, status: Status, remedy: str
) -> None:
    providers = (CUDA, CPU) if state is RuntimeState.GPU else (CPU,)
    finding = judge_onnx_runtime(RuntimeReport(state=state, version="1.32.0", providers=providers), cuda)
    assert (finding.status, "\n".join(finding.remedy.splitlines()[-2:])) == (status, remedy)
    assert finding.text == f"1.32.0, {state.value}; uses {'CUDA, CPU' if state is RuntimeState.GPU else 'CPU'}"


def test_a_driver_that_is_too_old_for_cuda_13_comes_first() -> None:
    old = CudaHere(driver="535.104.05", wheels=True)
    finding = judge_onnx_runtime(RuntimeReport(state=RuntimeState.CPU, version="1", providers=(CPU,)), old)
    assert "first a newer NVIDIA driver: CUDA 13 needs 580, this is 535.104.05" in finding.remedy
    assert RTX.needs == ()


@pytest.mark.parametrize(
    ("reason", "state", "cuda", "text", "remedy"),
    [
        ("no module", RuntimeState.MISSING, RTX, "it is missing", "pip install onnxruntime"),
        ("no module", RuntimeState.BROKEN, NO_GPU, "it is half removed", REPAIR),
        ("AttributeError: module 'onnxruntime'", None, RTX, "it is half removed", REPAIR_WITH_CUDA),
        ("libgomp", None, NO_GPU, "it can't be loaded: libgomp", "pip install --force-reinstall onnxruntime"),
    ],
)
def test_an_onnx_runtime_that_does_not_load_is_a_failure_with_its_repair(
    reason: str, state: RuntimeState | None, cuda: CudaHere, text: str, remedy: str
) -> None:
    finding = judge_onnx_trial(Trial(reason=reason), state, cuda)
    assert (finding.status, finding.text) == (Status.FAIL, text)
    assert finding.remedy.startswith(remedy)


def test_what_is_installed_says_which_state_it_is() -> None:
    both = ("onnxruntime", "onnxruntime-gpu")
    assert state_of(both[:1], cuda_works=False) is RuntimeState.CPU
    assert state_of(both[1:], cuda_works=True) is RuntimeState.GPU
    assert state_of(both[1:], cuda_works=False) is RuntimeState.GPU_WITHOUT_CUDA
    assert state_of(both, cuda_works=True) is RuntimeState.BOTH


def test_a_folder_without_its_heart_is_half_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "padlite_test_half" / "capi").mkdir(parents=True)
    (tmp_path / "padlite_test_whole").mkdir()
    (tmp_path / "padlite_test_whole" / "__init__.py").write_text("")
    assert unusable_state("padlite_test_half") is RuntimeState.BROKEN
    assert unusable_state("padlite_test_whole") is None
    assert unusable_state("padlite_test_nothing") is RuntimeState.MISSING


@pytest.mark.parametrize(
    ("system", "architecture", "wheels"),
    [("Linux", "x86_64", True), ("Windows", "AMD64", True), ("Linux", "aarch64", False), ("Darwin", "arm64", False)],
)
def test_not_every_machine_has_wheels_with_cuda(system: str, architecture: str, wheels: bool) -> None:
    assert has_cuda_wheels(system, architecture) is wheels


@pytest.mark.parametrize(("value", "status"), [("1", Status.OK), ("0", Status.WARN), (None, Status.WARN)])
def test_telemetry_that_is_on_is_worth_a_warning(value: str | None, status: Status) -> None:
    assert judge_telemetry(value).status is status


def test_this_machine_has_a_processor_and_memory() -> None:
    processor, memory = read_processor(), read_memory()
    assert 1 <= processor.physical <= processor.logical
    assert 1 <= processor.usable <= processor.logical
    assert 0 <= processor.busy <= 1
    assert 0 < memory.available <= memory.total


def test_a_private_folder_is_fine_and_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    finding = examine_folder("data", folder, keeps="conversations")
    assert (finding.status, finding.text) == (Status.OK, str(folder))
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_not_there_yet_is_fine_and_not_made(tmp_path: Path) -> None:
    finding = examine_folder("data", tmp_path / "a" / "b", keeps="conversations")
    assert finding.status is Status.OK
    assert "will be made" in finding.text
    assert not (tmp_path / "a").exists()


@posix
def test_a_folder_that_others_can_look_into_is_worth_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    finding = examine_folder("data", folder, keeps="conversations")
    assert finding.status is Status.WARN
    assert finding.remedy == f"chmod -R go= {folder}"
    folder.chmod(0o700)
    (folder / "sessions.sqlite3").write_text("")
    assert examine_folder("data", folder, keeps="conversations").status is Status.OK


def test_a_file_in_the_place_of_a_folder_is_worth_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = examine_folder("data", tmp_path / "file" / "data", keeps="conversations")
    assert finding.status is Status.WARN
    assert "is a file, so conversations can't be kept" in finding.text
    assert "PADLITE_DATA_DIR" in finding.remedy


@not_root
def test_a_folder_that_cannot_be_written_to_is_worth_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert examine_folder("data", tmp_path, keeps="conversations").status is Status.WARN
        assert examine_folder("data", tmp_path / "new", keeps="conversations").status is Status.WARN
    finally:
        tmp_path.chmod(0o700)


def raising(error: Exception) -> Callable[[], Finding]:
    def check() -> Finding:
        raise error

    return check


@pytest.mark.parametrize(
    ("error", "text", "remedy"),
    [
        (
            BackendError("reward.onnx is damaged", remedy="install it again"),
            "reward.onnx is damaged",
            "install it again",
        ),
        (ImportError("libgomp.so.1: cannot open\nmore"), "libgomp.so.1: cannot open", "install padlite again"),
        (ZeroDivisionError("division"), "ZeroDivisionError: division", "padlite --debug doctor"),
    ],
)
def test_a_check_that_breaks_is_a_failed_finding(error: Exception, text: str, remedy: str) -> None:
    (finding,) = examine("model", raising(error))
    assert finding.status is Status.FAIL
    assert finding.text.endswith(text)
    assert finding.remedy.startswith(remedy)


def test_a_check_that_breaks_halfway_keeps_what_it_had_found() -> None:
    def check() -> Iterator[Finding]:
        yield Finding(subject="model", text="loaded")
        raise BackendError("no template", remedy="another model")

    assert [finding.text for finding in examine("model", check)] == ["loaded", "no template"]


def test_warnings_do_not_keep_anyone_from_chatting_but_failures_do() -> None:
    ok, warn, fail = (Finding(subject="x", text="", status=status) for status in Status)
    assert would_chat([ok, warn])
    assert not would_chat([ok, fail])


def session(*, weights: dict[str, float] | None = None, dimensions: Sequence[str] = ("style", "other")) -> Session:
    """A session on a base that answers without end; rewards like the letter n."""

    def rule(tokens: Sequence[int]) -> FloatArray:
        return spelling("y" * 1000, after=0)(tokens)

    return Session(
        base=TableBase(rule, vocabulary_size=len(ALPHABET), context_length=256),
        tokenizer=LetterTokenizer(),
        template=ChatTemplate("{{ messages[-1].content }}"),
        reward=liking("n", by=5.0, names=dimensions) if dimensions else None,
        weights=weights,
        options=DecodingOptions(candidates=len(ALPHABET)),
    )


def passing(step_s: float) -> Callable[[], float]:
    """A clock that moves on by *step_s* whenever somebody looks."""
    ticks = iter(np.arange(0, 1000, step_s).tolist())
    return lambda: float(next(ticks))


def test_speed_is_measured_with_and_without_the_profile() -> None:
    speed = measure_speed(session(weights={"other": 1.0}), seconds=3, clock=passing(0.2))
    assert speed.plain > 0
    assert speed.guided is not None
    assert speed.guided > 0
    assert speed.steered_by == "the profile"


def test_without_preferences_speed_is_measured_along_the_first_dimension() -> None:
    assert measure_speed(session(), seconds=0, clock=passing(1)).steered_by == "style = 1"


def test_without_a_reward_model_only_the_plain_speed_is_measured() -> None:
    speed = measure_speed(session(dimensions=()), seconds=0, clock=passing(1))
    assert speed.plain > 0
    assert speed.guided is None


def test_one_stalled_answer_does_not_spoil_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.1, 0.1, 0.1, 0.1, 50.0, 0.1, *[0.1] * 100])  # the third plain answer: another program interferes
    monkeypatch.setattr("padlite.diagnosis.chat._answer", lambda _session, _prompt: (10, next(seconds)))
    speed = measure_speed(session(), seconds=3, clock=passing(0.4))
    assert speed.plain == pytest.approx(100)


def test_the_speed_test_leaves_no_conversation_behind() -> None:
    tried = session()
    measure_speed(tried, seconds=1, clock=passing(0.2))
    assert tried.messages == ()


@pytest.mark.parametrize(
    ("plain", "guided", "status", "words"),
    [
        (100.0, 95.0, Status.OK, "100.0 tokens per second without and 95.0 with"),
        (100.0, None, Status.OK, "100.0 tokens per second"),
        (4.0, 3.9, Status.WARN, "slower than people read"),
        (100.0, 40.0, Status.WARN, "guidance should cost far less"),
        (0.0, 0.0, Status.WARN, "nothing to measure"),
    ],
)
def test_slowness_and_costly_guidance_are_worth_a_warning(
    plain: float, guided: float | None, status: Status, words: str
) -> None:
    finding = judge_speed(Speed(plain=plain, guided=guided, steered_by="the profile"))
    assert finding.status is status
    assert words in finding.text
    assert bool(finding.remedy) == (status is Status.WARN)


def test_the_diagnosis_can_be_imported_without_the_engines() -> None:
    engines = "{'numpy', 'llama_cpp', 'onnxruntime', 'psutil', 'rich'}"
    assert try_in_process(f"import sys, padlite.diagnosis; sys.exit(bool({engines} & set(sys.modules)))").reason == ""
