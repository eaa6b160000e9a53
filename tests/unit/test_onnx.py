"""Running a reward head, and refusing one that was made for another base model."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_packages import RuntimeState
from padlite.backends.onnx_runtime import CPU, providers, runtime_state
from padlite.errors import BackendError, NotFoundError, RewardMismatchError, UsageError
from padlite.seams import FloatArray, Step
from tests import heads


@pytest.fixture
def head(tmp_path: Path) -> Iterator[OnnxHead]:
    with OnnxHead.open(heads.write_small_head(tmp_path / "reward.onnx")) as head:
        yield head


def _reference(step: Step, *, vocabulary_size: int = heads.V) -> FloatArray:
    """φ_i(s, a) = u_aᵀ A_i h, one number after the other."""
    table, maps = heads.arrays(vocabulary_size=vocabulary_size)
    rows = [[float(table[a].astype(np.float64) @ (each.T @ step.hidden)) for each in maps] for a in step.candidates]
    return np.array(rows, dtype=np.float32)


@pytest.mark.parametrize("candidates", [[0], [3, 1, 49], list(range(40)), [7, 7]])
def test_features_are_the_bilinear_form_of_each_candidate(head: OnnxHead, candidates: list[int]) -> None:
    step = heads.step(candidates)
    features = head.features(step)
    assert features.dtype == np.float32
    assert features.shape == (len(candidates), len(heads.NAMES))
    np.testing.assert_allclose(features, _reference(step), rtol=1e-4, atol=1e-5)


def test_a_head_with_its_weights_in_a_data_file_gives_the_same(tmp_path: Path) -> None:
    step = heads.step([0, 199_999])
    with OnnxHead.open(heads.write_large_head(tmp_path / "reward.onnx")) as head:
        np.testing.assert_allclose(
            head.features(step), _reference(step, vocabulary_size=200_000), rtol=1e-4, atol=1e-5
        )  # fmt: skip


def test_an_earlier_result_stays_as_it_was(head: OnnxHead) -> None:
    first = head.features(heads.step([1, 2], seed=1))
    kept = first.copy()
    head.features(heads.step([1, 2], seed=9))
    np.testing.assert_array_equal(first, kept)


def test_a_hidden_state_that_is_not_a_number_gives_features_that_are_not(head: OnnxHead) -> None:
    step = heads.step([1, 2])
    step.hidden[0] = np.nan
    assert np.isnan(head.features(step)).all()


@pytest.mark.parametrize(
    "step", [heads.step([heads.V]), heads.step([-heads.V - 1]), heads.step([1], width=heads.D + 1)]
)
def test_a_step_that_does_not_fit_is_one_error_and_no_output(
    head: OnnxHead, step: Step, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BackendError, match="the reward head failed"):
        head.features(step)
    assert capfd.readouterr() == ("", "")


def test_a_closed_head_says_so(head: OnnxHead) -> None:
    head.close()
    head.close()
    with pytest.raises(BackendError, match="closed"):
        head.features(heads.step([1]))


def test_what_the_file_says_about_itself_is_there(head: OnnxHead) -> None:
    assert [each.name for each in head.dimensions] == list(heads.NAMES)
    assert (head.vocabulary_size, head.hidden_size) == (heads.V, heads.D)
    assert head.tokenizer_sha256 == heads.SHA256
    assert head.probe.text == heads.probe().text


def test_an_unknown_device_is_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        OnnxHead.open(heads.write_small_head(tmp_path / "reward.onnx"), device="gpu")
    assert "cuda" in caught.value.remedy


def test_asking_for_cuda_where_there_is_none_is_one_clear_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if providers()[0] != CPU:
        pytest.skip("CUDA works here")
    with pytest.raises(BackendError, match="CUDA was asked for") as caught:
        OnnxHead.open(heads.write_small_head(tmp_path / "reward.onnx"), device="cuda")
    assert "onnxruntime-gpu" in caught.value.remedy
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no reward model"):
        OnnxHead.open(tmp_path / "reward.onnx")


# --- three checks, three errors; the probe is decoded only when the cheap ones pass


def _require_base(
    head: OnnxHead,
    *,
    vocabulary_size: int = heads.V,
    hidden_size: int = heads.D,
    sha256: str = heads.SHA256,
    probe_hidden: Callable[[str], FloatArray] = lambda text: heads.probe().hidden,
) -> None:
    head.require_base(
        vocabulary_size=vocabulary_size,
        hidden_size=hidden_size,
        tokenizer_sha256=sha256,
        probe_hidden=probe_hidden,
    )


def test_its_own_base_is_accepted_whatever_the_length_of_its_hidden_state(head: OnnxHead) -> None:
    _require_base(head, probe_hidden=lambda text: heads.probe().hidden * np.float32(123))


def test_the_probe_is_asked_with_the_text_of_the_head(head: OnnxHead) -> None:
    asked: list[str] = []

    def remember(text: str) -> FloatArray:
        asked.append(text)
        return heads.probe().hidden

    _require_base(head, probe_hidden=remember)
    assert asked == [heads.probe().text]


def test_another_width_is_refused(head: OnnxHead) -> None:
    with pytest.raises(RewardMismatchError, match="width 6, this one of 7"):
        _require_base(head, hidden_size=7)


def test_another_vocabulary_size_is_refused(head: OnnxHead) -> None:
    with pytest.raises(RewardMismatchError, match="50 tokens in its vocabulary, this one 51"):
        _require_base(head, vocabulary_size=51)


def test_another_tokenizer_of_the_same_size_is_refused(head: OnnxHead) -> None:
    with pytest.raises(RewardMismatchError, match="another tokenizer"):
        _require_base(head, sha256="f" * 64)


@pytest.mark.parametrize(("cosine", "fits"), [(0.96, True), (0.94, False), (-1.0, False)])
def test_another_hidden_state_for_the_probe_is_refused_with_the_number(
    head: OnnxHead, cosine: float, fits: bool
) -> None:
    own = heads.probe().hidden
    other = np.zeros_like(own)
    other[:2] = own[1], -own[0]
    other /= np.linalg.norm(other)
    seen = (cosine * own + np.sqrt(1 - cosine**2) * other).astype(np.float32)
    if fits:
        _require_base(head, probe_hidden=lambda text: seen)
        return
    with pytest.raises(RewardMismatchError, match=f"cosine of the probe {cosine:.3f}"):
        _require_base(head, probe_hidden=lambda text: seen)


@pytest.mark.parametrize("seen", [np.zeros(6), np.full(6, np.nan), np.zeros(0)], ids=["zero", "NaN", "empty"])
def test_a_hidden_state_without_direction_is_refused(head: OnnxHead, seen: FloatArray) -> None:
    with pytest.raises(RewardMismatchError, match="cosine"):
        _require_base(head, probe_hidden=lambda text: seen.astype(np.float32))


def test_the_state_of_the_installation_is_known() -> None:
    report = runtime_state()
    assert report.state in {RuntimeState.CPU, RuntimeState.GPU, RuntimeState.GPU_WITHOUT_CUDA}
    assert report.version
    assert report.providers[-1] == CPU


@pytest.mark.parametrize(
    ("module", "message"), [("", "is half removed"), ("raise ImportError('lib missing')", "can't be imported")]
)
def test_an_onnx_runtime_that_is_damaged_is_one_error_with_a_remedy_that_can_be_typed(
    tmp_path: Path, module: str, message: str
) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime/__init__.py").write_text(module)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from padlite.backends.onnx_runtime import runtime_state\n"
        "from padlite.errors import BackendError\n"
        "try: runtime_state()\n"
        "except BackendError as error: print(error.message, error.remedy, sep='\\n')"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said, remedy = shown.stdout.splitlines()
    assert message in said
    assert remedy == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime"
