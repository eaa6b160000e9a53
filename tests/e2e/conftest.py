"""Homes for chats: with the random model, which answers at once and without end."""

from pathlib import Path

import pytest

from tests.e2e.terminal import Home


@pytest.fixture
def home(tmp_path: Path, random_base: Path, random_head: Path) -> Home:
    """A fresh home and a chat with the random model and its head."""
    return Home(
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
