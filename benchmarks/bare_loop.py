"""The yardstick: a bare greedy loop on llama.cpp's low-level functions, as little Python as there can be.

One sequence, a batch of one token, llama.cpp's own greedy sampler, no text, no stop, no hidden state. Everything that
padlite adds to a token is measured against this.
"""

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import llama_cpp

from padlite.backends.llama import may_repack


@dataclass(frozen=True, slots=True, kw_only=True)
class BareRun:
    """Ids that were generated, and the seconds from the first of them to the last: on the clock, and of all cores."""

    tokens: tuple[int, ...]
    seconds: float
    cpu_seconds: float


class BareLoop:
    """A model of its own with a context of its own; a context manager."""

    def __init__(self, path: Path, *, threads: int, context_length: int) -> None:
        llama_cpp.llama_backend_init()
        model_parameters = llama_cpp.llama_model_default_params()
        model_parameters.n_gpu_layers = 999 if llama_cpp.llama_supports_gpu_offload() else 0
        model_parameters.use_extra_bufts = may_repack()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_parameters)
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = context_length
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if self._context is None:
            raise RuntimeError(f"{path} can't be opened")
        self._sampler = llama_cpp.llama_sampler_init_greedy()
        self._batch = llama_cpp.llama_batch_init(1, 0, 1)
        self._batch.n_tokens, self._batch.n_seq_id[0], self._batch.logits[0] = 1, 1, 1
        self._batch.seq_id[0][0] = 0

    def run(self, prompt: Sequence[int], count: int) -> BareRun:
        """Answer *prompt* with *count* tokens, ends ignored."""
        context, sampler, batch = self._context, self._sampler, self._batch
        self._prefill(prompt)
        token = llama_cpp.llama_sampler_sample(sampler, context, -1)
        tokens, position = [token], len(prompt)
        start, cpu_start = time.perf_counter(), time.process_time()
        for _ in range(count - 1):
            batch.token[0], batch.pos[0] = token, position
            llama_cpp.llama_decode(context, batch)
            token = llama_cpp.llama_sampler_sample(sampler, context, -1)
            tokens.append(token)
            position += 1
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        return BareRun(tokens=tuple(tokens), seconds=seconds, cpu_seconds=cpu_seconds)

    def parts(self, prompt: Sequence[int], count: int) -> tuple[list[float], list[float]]:
        """Return the seconds that `llama_decode` (with its synchronization) and the sampler took at each token."""
        context, sampler, batch = self._context, self._sampler, self._batch
        self._prefill(prompt)
        token = llama_cpp.llama_sampler_sample(sampler, context, -1)
        decoding, sampling = [], []
        for position in range(len(prompt), len(prompt) + count - 1):
            batch.token[0], batch.pos[0] = token, position
            start = time.perf_counter()
            llama_cpp.llama_decode(context, batch)
            llama_cpp.llama_synchronize(context)
            middle = time.perf_counter()
            token = llama_cpp.llama_sampler_sample(sampler, context, -1)
            decoding.append(middle - start)
            sampling.append(time.perf_counter() - middle)
        return decoding, sampling

    def _prefill(self, prompt: Sequence[int]) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        ids = (llama_cpp.llama_token * len(prompt))(*prompt)
        if llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(ids, len(prompt))) != 0:
            raise RuntimeError("the prompt can't be evaluated")

    def close(self) -> None:
        """Free everything."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_sampler_free(self._sampler)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _swallow(_level: int, _text: bytes, _data: object) -> None:
    """Take a line of llama.cpp's log and do nothing with it."""


_silent = llama_cpp.llama_log_callback(_swallow)


def silence() -> None:
    """Keep llama.cpp's log off the terminal."""
    llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
