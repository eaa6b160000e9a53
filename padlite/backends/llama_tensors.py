"""Reads one tensor of a GGUF file as numbers: the output matrix, whose rows e_a a reward head is made of.

llama.cpp's own functions find and dequantize it, so every type of weights that it runs can be read, and as it runs
them. V vocabulary, d width of the hidden state. Opens no model.
"""

import ctypes
from pathlib import Path

import numpy as np
from llama_cpp import _ggml

from padlite.errors import BackendError
from padlite.seams import FloatArray, TokenArray

_NAMES = ("output.weight", "token_embd.weight")  # the second where input and output share one matrix
_BLOCK_ROWS = 4096


class _InitParameters(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


class _TypeTraits(ctypes.Structure):
    """The first fields of ggml's `ggml_type_traits`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block_size", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
    )
    name: bytes
    block_size: int
    type_size: int
    to_float: int | None


_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_FLOAT32 = b"f32"


_library = _ggml.libggml
_open, _free, _find = _library["gguf_init_from_file"], _library["gguf_free"], _library["gguf_find_tensor"]
_offset, _data_offset = _library["gguf_get_tensor_offset"], _library["gguf_get_data_offset"]
_size, _type = _library["gguf_get_tensor_size"], _library["gguf_get_tensor_type"]
_traits = _library["ggml_get_type_traits"]
_open.argtypes, _open.restype = [ctypes.c_char_p, _InitParameters], ctypes.c_void_p
_free.argtypes, _free.restype = [ctypes.c_void_p], None
_find.argtypes, _find.restype = [ctypes.c_void_p, ctypes.c_char_p], ctypes.c_int64
_data_offset.argtypes, _data_offset.restype = [ctypes.c_void_p], ctypes.c_size_t
_offset.argtypes, _offset.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_size_t
_size.argtypes, _size.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_size_t
_type.argtypes, _type.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_int
_traits.argtypes, _traits.restype = [ctypes.c_int], ctypes.POINTER(_TypeTraits)


class OutputMatrix:
    """The output matrix (V, d) of the GGUF at *path*, mapped into memory; rows become float32 when they are asked for.

    Raises BackendError if there is none of that size.
    """

    def __init__(self, path: Path, *, vocabulary_size: int, hidden_size: int) -> None:
        self.vocabulary_size: int = vocabulary_size
        self.hidden_size: int = hidden_size
        file = _open(str(path).encode(), _InitParameters(True, None))
        if not file:
            raise BackendError(f"{path.name} can't be read", remedy="check the file, or download it again")
        try:
            found = [number for name in _NAMES if (number := _find(file, name.encode())) >= 0]
            if not found:
                raise _unusable(path)
            self._type = _traits(_type(file, found[0])).contents
            start, size = _data_offset(file) + _offset(file, found[0]), _size(file, found[0])
        finally:
            _free(file)
        row_bytes = hidden_size // self._type.block_size * self._type.type_size
        if hidden_size % self._type.block_size or size < vocabulary_size * row_bytes:
            raise _unusable(path)
        shape = (vocabulary_size, row_bytes)
        self._rows = np.memmap(path, dtype=np.uint8, mode="r", offset=start, shape=shape)

    def rows(self, tokens: TokenArray) -> FloatArray:
        """Return the rows of *tokens*, (n, d)."""
        raw = np.ascontiguousarray(self._rows[tokens])
        if self._type.name == _FLOAT32:
            return raw.view(np.float32)
        rows = np.empty((len(tokens), self.hidden_size), dtype=np.float32)
        _TO_FLOAT(self._type.to_float or 0)(raw.ctypes.data, rows.ctypes.data, rows.size)
        return rows

    def times(self, projection: FloatArray) -> FloatArray:
        """Return every row times *projection* (d, r): (V, r), block by block, so that it needs little memory."""
        blocks = range(0, self.vocabulary_size, _BLOCK_ROWS)
        ids = np.arange(self.vocabulary_size, dtype=np.int64)
        return np.concatenate([self.rows(ids[at : at + _BLOCK_ROWS]) @ projection for at in blocks])


def _unusable(path: Path) -> BackendError:
    return BackendError(
        f"{path.name} has no output matrix that padlite can read, so no dimension can be made for it",
        remedy="use a GGUF of an ordinary language model, or the sentence itself, under [preferences.sentences]",
    )
