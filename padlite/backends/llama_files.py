"""What llama.cpp does with a GGUF file without running it: reads its tokenizer, writes it with smaller weights.

Knows no tokens' meaning and no logits. Types of weights are named as llama.cpp's own tools name them (``q4_k_m``).
"""

import contextlib
import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path

import llama_cpp

from padlite.backends.llama import LlamaTokenizer, reason, silence
from padlite.errors import BackendError

_PRE_TOKENIZER = b"tokenizer.ggml.pre"
_PREFIX = "LLAMA_FTYPE_MOSTLY_"


def quantizations() -> Mapping[str, int]:
    """Return llama.cpp's number for each type that weights can be quantized to, such as ``q8_0``."""
    return {
        name.removeprefix(_PREFIX).lower(): int(number)
        for name, number in vars(llama_cpp).items()
        if name.startswith(_PREFIX) and not name.endswith("F16")
    }


@contextlib.contextmanager
def open_tokenizer(path: Path, *, pre_tokenizer: str | None = None) -> Iterator[LlamaTokenizer]:
    """Yield the tokenizer of the GGUF at *path*, its weights left alone; as if the file named *pre_tokenizer*.

    Raises BackendError if llama.cpp can't load it, or doesn't know the pre-tokenizer.
    """
    silence()
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    overrides = (llama_cpp.llama_model_kv_override * 2)()  # ended by one without a key
    if pre_tokenizer is not None:
        overrides[0].tag, overrides[0].key = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR, _PRE_TOKENIZER
        overrides[0].value.val_str = pre_tokenizer.encode()  # type: ignore[union-attr]
        parameters.kv_overrides = overrides
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    if model is None:
        raise BackendError(f"{path.name} can't be loaded: {reason()}", remedy="export it again")
    try:
        yield LlamaTokenizer(model)
    finally:
        llama_cpp.llama_model_free(model)


def quantize(source: Path, target: Path, weights: str, *, threads: int) -> None:
    """Write the GGUF *source* with its weights as *weights* (see `quantizations`) to *target*.

    Raises BackendError with llama.cpp's reason; what it had written until then is still there.
    """
    silence()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = quantizations()[weights], threads
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.pointer(parameters))
    if code != 0:
        raise BackendError(f"the weights can't be written as {weights}: {reason()}", remedy="choose another --quantize")
