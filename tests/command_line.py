"""Runs the real command line in a process of its own, with folders of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from padlite.bundle import write_manifest
from padlite.seams import Dimension

REPOSITORY = Path(__file__).resolve().parents[1]
DIMENSIONS = (Dimension(name="friendly", description="warm and kind"), Dimension(name="witty"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """One person's folders, empty at first."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def store(self) -> Path:
        return self.data / "sessions.sqlite3"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a padlite that lives here."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PADLITE")}
        python_path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
        return {
            **inherited,
            "HOME": str(self.folder),
            "PADLITE_CONFIG_DIR": str(self.config),
            "PADLITE_DATA_DIR": str(self.data),
            "PYTHONPATH": python_path,
            "PYTHONUTF8": "1",
            "ORT_DISABLE_TELEMETRY": "1",
        }

    def profile(self, name: str = "me") -> Path:
        """Return the file of a named profile."""
        return self.config / "profiles" / f"{name}.toml"

    def run(
        self,
        *arguments: str,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run `padlite ARGUMENTS`; stdin is empty unless given."""
        return subprocess.run(
            [sys.executable, "-m", "padlite", *arguments],
            env={**self.environment, **(environment or {})},
            input=stdin or "",
            capture_output=True,
            encoding="utf-8",
            timeout=timeout_s,
            check=False,
        )

    def install_model(self, name: str = "tiny") -> None:
        """Install a bundle that can be looked at, though not run, with the dimensions friendly and witty."""
        folder = self.data / "models" / name
        folder.mkdir(parents=True)
        (folder / "base.gguf").write_bytes(b"GGUF")
        (folder / "reward.onnx").write_bytes(b"ONNX")
        write_manifest(folder, name=name, license="CC0-1.0", dimensions=DIMENSIONS)
