"""Freezes the offline assistant with PyInstaller, and tries the result where no Python and no program can be found.

    pip install pyinstaller && python examples/frozen/build.py [FOLDER]

padlite's own hook (found by its entry point) collects what padlite needs.
Prints the size in MB (10^6 bytes, limit 150) and ends with 1 if the program is larger, doesn't start or doesn't answer.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ASSISTANT = Path(__file__).parents[1] / "assistant" / "assistant.py"
LARGEST_MB = 150
# What numpy, llama-cpp-python and ONNX Runtime import where it happens to be installed, and a chat never needs.
UNUSED = (
    "huggingface_hub", "hypothesis", "mypy", "onnx", "pandas", "PIL", "pydantic", "pydantic_core", "pytest", "scipy",
    "sklearn", "sympy", "tkinter", "torch", "transformers", "yaml",
)  # fmt: skip


def freeze(folder: Path) -> Path:
    """Return the program, in a folder that can be copied to another machine."""
    places = ["--distpath", folder / "dist", "--workpath", folder / "work", "--specpath", folder]
    leave_out = [word for name in UNUSED for word in ("--exclude-module", name)]
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN"]
    subprocess.run(list(map(str, [*command, *leave_out, *places, ASSISTANT])), check=True)
    program = folder / "dist" / "assistant" / "assistant"
    slim(program.parent / "_internal")
    return program


def slim(folder: Path) -> None:
    """Make equal libraries links of one another, and take the notes for debuggers out of Python's own.

    PyInstaller's --strip would strip numpy's OpenBLAS too, which can't be loaded afterwards.
    """
    seen: dict[bytes, Path] = {}
    for file in sorted(each for each in folder.rglob("*.so*") if not each.is_symlink()):
        same = seen.setdefault(hashlib.sha256(file.read_bytes()).digest(), file)
        if same != file and same.parent == file.parent:
            file.unlink()
            file.symlink_to(same.name)
    own = [*folder.glob("libpython*.so*"), *folder.glob("python*/lib-dynload/*.so")]
    if strip := shutil.which("strip"):
        subprocess.run([strip, "--strip-unneeded", *map(str, own)], check=True)


def size_mb(folder: Path) -> float:
    """Return what the files take, in 10^6 bytes; links count once."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()) / 1e6


def talk(program: Path, lines: str) -> list[str]:
    """Return what the program prints, in an empty home folder and with nothing on the path."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": home, "LANG": "C.UTF-8"}
        done = subprocess.run(
            [str(program), "facts.txt"], input=lines, cwd=home, env=environment, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
    if done.returncode or done.stderr:
        sys.exit(f"the program ended with {done.returncode}: {done.stderr}")
    return done.stdout.splitlines()


def main(folder: Path) -> None:
    program = freeze(folder)
    size = size_mb(program.parent)
    said = talk(program, "remember that I like tea\nwhat do you remember?\nWhat should I do today?\n")
    print(f"{program.parent}: {size:.1f} MB", *said, sep="\n")
    if said[:2] != ["I will remember that.", "I like tea"] or not " ".join(said[2:]).strip():
        sys.exit("the program doesn't answer")
    if size > LARGEST_MB:
        sys.exit(f"the program is larger than {LARGEST_MB} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/frozen"))
