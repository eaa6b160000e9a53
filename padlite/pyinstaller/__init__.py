"""Where PyInstaller finds padlite's hook (entry point ``pyinstaller40``); knows no PyInstaller."""

from pathlib import Path


def hook_dirs() -> list[str]:
    """Return the folder of the hook, `hook-padlite.py`, which only PyInstaller runs."""
    return [str(Path(__file__).parent)]
