"""Where padlite keeps things and what it reads from the environment: the only module that does.

`PADLITE_CONFIG_DIR`, `PADLITE_DATA_DIR` and `PADLITE_CACHE_DIR` move the folders; otherwise they are the
platform's own.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from padlite import __file__ as _package_file

APP = "padlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The folders and files of one person: all are absolute, none is created by asking for it."""

    config: Path
    data: Path
    cache: Path

    @property
    def converters(self) -> Path:
        """What `padlite export base` fetched: llama.cpp's converter, a folder for each version."""
        return self.cache / "converters"

    @property
    def profiles(self) -> Path:
        """Named profiles, NAME.toml."""
        return self.config / "profiles"

    @property
    def user_models(self) -> Path:
        """Bundles that the person installed."""
        return self.data / "models"

    @property
    def heads(self) -> Path:
        """Reward heads that the person made for bare GGUF files, a folder for each."""
        return self.data / "heads"

    @property
    def harvests(self) -> Path:
        """What was collected for new dimensions: of runs that go on, were stopped, or need more answers."""
        return self.data / "harvests"

    @property
    def sessions(self) -> Path:
        """The SQLite file of kept conversations."""
        return self.data / "sessions.sqlite3"

    @property
    def input_history(self) -> Path:
        """Lines typed at the prompt."""
        return self.data / "input_history"


def paths() -> Paths:
    """Return this person's folders."""
    return Paths(
        config=Path(
            os.environ.get("PADLITE_CONFIG_DIR") or platformdirs.user_config_path(APP, appauthor=False)
        ).absolute(),
        data=Path(os.environ.get("PADLITE_DATA_DIR") or platformdirs.user_data_path(APP, appauthor=False)).absolute(),
        cache=Path(
            os.environ.get("PADLITE_CACHE_DIR") or platformdirs.user_cache_path(APP, appauthor=False)
        ).absolute(),
    )


def bundled_models() -> Path:
    """Return the folder of the bundles that ship with padlite, in a wheel and in an editable install alike."""
    package = Path(_package_file).resolve().parent
    shipped = package / "models"
    return shipped if shipped.is_dir() else package.parent / "models"


def editor() -> str | None:
    """Return the person's editor command, or None."""
    return os.environ.get("VISUAL") or os.environ.get("EDITOR") or None


def color_wanted() -> bool:
    """Tell whether colour is allowed (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def api_key() -> str | None:
    """Return the key that clients of `padlite serve` must send, or None."""
    return os.environ.get("PADLITE_API_KEY") or None


def variable(name: str) -> str | None:
    """Return an environment variable that a caller owns (the shell's request for completions), or None."""
    return os.environ.get(name) or None


def quiet_hub() -> None:
    """Keep huggingface_hub from adding what it finds on this machine to its requests; who sets it to 0 is obeyed.

    It reads the variable when it is imported for the first time, so this comes before.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
