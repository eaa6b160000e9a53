"""What PyInstaller puts beside a program that imports padlite: bundles, llama.cpp's libraries, ONNX Runtime's.

Run by PyInstaller alone, while it looks for what a program needs; the names without underscore are the ones it reads.
Leaves out the terminal's chat and the server unless the program itself imports them.
"""

from PyInstaller.utils.hooks import (  # pyright: ignore[reportMissingImports]
    collect_dynamic_libs,
    collect_submodules,
)

from padlite.settings import bundled_models

_APART = ("padlite.cli", "padlite.server", "padlite.pyinstaller", "padlite.__main__")


def _is_wanted(module: str) -> bool:
    return not module.startswith(_APART)


# Names are imported when they are first used, so no import statement leads to them.
hiddenimports: list[str] = [*collect_submodules("padlite", filter=_is_wanted), "llama_cpp", "onnxruntime"]
datas: list[tuple[str, str]] = [(str(bundled_models()), "padlite/models")]
binaries: list[tuple[str, str]] = [*collect_dynamic_libs("llama_cpp"), *collect_dynamic_libs("onnxruntime")]
# ONNX Runtime's and llama-cpp-python's tools for developers; chatting needs none of them.
excludedimports: list[str] = [
    "onnxruntime.quantization", "onnxruntime.tools", "onnxruntime.transformers", "llama_cpp.server", "onnx", "sympy",
    "torch", "transformers", "padlite_training",
]  # fmt: skip
