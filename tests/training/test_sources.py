"""Absent text is named, with where it can be had."""

from pathlib import Path

import pytest

from padlite.errors import NotFoundError
from padlite_training.build import main
from padlite_training.sources import SOURCES, read_rows


@pytest.mark.parametrize("name", [source.name for source in SOURCES])
def test_absent_text_is_an_error_that_says_where_it_can_be_had(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFoundError) as error:
        list(read_rows(tmp_path, name))
    assert name in error.value.message
    assert "github.com" in error.value.remedy


def test_building_without_text_ends_with_that_message(tmp_path: Path) -> None:
    folders = ["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    with pytest.raises(SystemExit, match=r"github\.com"):
        main(folders)
