"""What `pip install` puts on a person's machine."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import padlite
from tests.packaging.conftest import REPOSITORY, build

BUNDLE = REPOSITORY / "models" / "padlite-tiny"
MEBIBYTE = 1024 * 1024


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_bundled_model_file_by_file(wheel: Path) -> None:
    inside = "padlite/models/padlite-tiny/"
    shipped = {name.removeprefix(inside): data for name, data in _files(wheel).items() if name.startswith(inside)}
    assert {"base.gguf", "reward.onnx", "bundle.toml", "card.md"} <= set(shipped)
    assert shipped == {file.name: file.read_bytes() for file in BUNDLE.iterdir()}


def test_the_wheel_holds_the_packages_and_nothing_of_the_workshop(wheel: Path) -> None:
    names = names_in(wheel)
    assert {
        "padlite/py.typed",
        "padlite/decode.py",
        "padlite/cli/__init__.py",
        "padlite_training/__init__.py",
        "padlite_export/__init__.py",
    } <= names
    metadata = f"padlite-{padlite.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"padlite", "padlite_training", "padlite_export", metadata}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_every_module_of_the_repository_is_in_the_wheel(wheel: Path) -> None:
    packages = {
        REPOSITORY: "padlite",
        REPOSITORY / "training": "padlite_training",
        REPOSITORY / "export": "padlite_export",
    }
    modules = {str(file.relative_to(top)) for top, name in packages.items() for file in (top / name).rglob("*.py")}
    assert modules == {name for name in names_in(wheel) if name.endswith(".py")}


def test_the_wheel_is_small_enough_to_download_without_thinking(wheel: Path) -> None:
    assert wheel.stat().st_size < 45 * MEBIBYTE


def test_the_runtime_depends_on_no_training_library(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(f"padlite-{padlite.__version__}.dist-info/METADATA").decode())
    always = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert always
    unwanted = ("torch", "transformers", "optimum", "onnxruntime-gpu", "onnx>", "scikit-learn")
    assert not [line for line in always if line.startswith(unwanted)]
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_source_archive_makes_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    for part in ("tests/packaging/test_wheel.py", "docs", "examples/me.toml", "LICENSE", "CHANGELOG.md", ".ci/run"):
        assert (source / part).exists(), part
    again = build(source, "wheel", tmp_path / "again")
    assert _files(again) == _files(wheel)


def _files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel in it; the dependencies are lent by the one that runs the tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)],
        check=True,
        timeout=120,
    )
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # A path in a .pth file comes after the environment's own packages, and .pth files found there are not followed:
    # the repository's editable install stays out of sight.
    (own / "lent_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def _run(installed: Path, home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "PATH": f"{installed / 'bin'}:{os.defpath}", "LANG": "C.UTF-8"}
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_installed_command_tells_its_version(installed: Path, tmp_path: Path) -> None:
    outcome = _run(installed, tmp_path, "padlite", "--version")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert padlite.__version__ in outcome.stdout


def test_the_installed_package_is_the_wheel_and_finds_its_model_there(installed: Path, tmp_path: Path) -> None:
    outcome = _run(installed, tmp_path, "python", "-c", "import padlite.settings as s; print(s.bundled_models())")
    assert Path(outcome.stdout.strip()).is_relative_to(installed), outcome.stderr
    outcome = _run(installed, tmp_path, "padlite", "models", "path", "padlite-tiny")
    assert outcome.returncode == 0, outcome.stderr
    folder = Path(outcome.stdout.strip())
    assert folder.is_relative_to(installed)
    assert (folder / "base.gguf").is_file()


def test_the_installed_command_answers_from_another_folder(installed: Path, tmp_path: Path) -> None:
    outcome = _run(installed, tmp_path, "padlite", "chat", "--no-save", "-p", "Hello, how are you?")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.strip()


def test_the_types_of_everything_public_are_known_where_the_wheel_is_installed(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="needs pyright: pip install -e '.[dev]'")
    inherited = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    outcome = subprocess.run(
        [sys.executable, "-m", "pyright", "--verifytypes", "padlite", "--ignoreexternal", "--outputjson"],
        cwd=tmp_path, env={**inherited, "PATH": f"{installed / 'bin'}:{os.environ['PATH']}"}, capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip
    report = json.loads(outcome.stdout[outcome.stdout.index("{") :])["typeCompleteness"]
    assert Path(report["packageRootDirectory"]).is_relative_to(installed)
    unknown = [symbol["name"] for symbol in report["symbols"] if symbol["isExported"] and not symbol["isTypeKnown"]]
    assert (unknown, report["completenessScore"]) == ([], 1)


def test_an_editable_install_finds_the_same_model() -> None:
    assert (REPOSITORY / "models").is_dir()
    assert not (REPOSITORY / "padlite" / "models").exists(), "a second copy would win over the repository's own"
