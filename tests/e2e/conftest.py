"""One person's empty folders, and a model in them that really runs."""

import shutil
from pathlib import Path

import pytest

from padlite.bundle import write_manifest
from padlite.seams import Dimension
from tests.command_line import Home
from tests.e2e.terminal import Home as ChattingHome

RANDOM_DIMENSIONS = tuple(Dimension(name=name, description="noise") for name in ("alpha", "beta", "gamma"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Nothing is here yet."""
    return Home(folder=tmp_path)


@pytest.fixture
def home_with_model(home: Home, random_base: Path, random_head: Path) -> Home:
    """The model `noise` is installed; its dimensions are alpha, beta and gamma. A profile `me` wants it."""
    folder = home.data / "models" / "noise"
    folder.mkdir(parents=True, mode=0o700)
    home.data.chmod(0o700)
    shutil.copy(random_base, folder / "base.gguf")
    shutil.copy(random_head, folder / "reward.onnx")
    write_manifest(
        folder, name="noise", license="CC0-1.0", title="Noise", dimensions=RANDOM_DIMENSIONS, training={"seed": "1"}
    )
    home.profile().parent.mkdir(parents=True, mode=0o700)
    home.config.chmod(0o700)
    home.profile().write_text('model = "noise"\n[preferences]\nalpha = 0.5\n', encoding="utf-8")
    return home


@pytest.fixture
def chatting_home(tmp_path: Path, random_base: Path, random_head: Path) -> ChattingHome:
    """A fresh home and a chat with the random model and its head."""
    return ChattingHome(
        tmp_path,
        [
            "--model",
            str(random_base),
            "--reward",
            str(random_head),
            "-w",
            "alpha=1",
            "--threads",
            "1",
        ],
    )
