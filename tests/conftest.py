"""Fixtures that several folders of tests share: random models as files, written once per run."""

import signal
from pathlib import Path

import pytest

from padlite_training.random_llama import TINY, write_random_llama


def pytest_configure() -> None:
    """Let signals reach the programs under test, even where the suite itself runs in the background or under nohup."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def random_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama (V = 512, d = 64, context 512) with a ChatML template; it ends no answer by itself."""
    path = tmp_path_factory.mktemp("random_base") / "base.gguf"
    write_random_llama(path, TINY, seed=1)
    return path


@pytest.fixture(scope="session")
def random_base_without_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model without a chat template."""
    path = tmp_path_factory.mktemp("random_base_without_template") / "base.gguf"
    write_random_llama(path, TINY, seed=1, chat_template=None)
    return path


@pytest.fixture(scope="session")
def random_head(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random reward head of `random_base` with the dimensions alpha, beta and gamma."""
    from padlite_training.random_head import write_random_head  # loads llama.cpp, which most tests don't need

    path = tmp_path_factory.mktemp("random_head") / "reward.onnx"
    write_random_head(path, random_base, dimensions=["alpha", "beta", "gamma"], seed=1)
    return path


@pytest.fixture(scope="session")
def converter(pytestconfig: pytest.Config) -> Path:
    """llama.cpp's converter, fetched once and kept with pytest's own cache."""
    from padlite.errors import NotFoundError
    from padlite_export.converter import find_converter  # loads llama.cpp, which most tests don't need

    assert pytestconfig.cache is not None
    try:
        return find_converter(None, pytestconfig.cache.mkdir("converters"), lambda _line: None)
    except NotFoundError as error:
        pytest.skip(f"no network? {error.message}")
