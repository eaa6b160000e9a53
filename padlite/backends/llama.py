"""llama.cpp behind the seams: a GGUF model stepped token by token, and its tokenizer.

The only module that imports llama_cpp, and only its low-level functions. Knows token ids, logits (V,) and hidden
states (d,); knows no text beyond tokenizing, no reward and no conversation. One thread at a time may step a model.
"""

import collections
import contextlib
import ctypes
import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import llama_cpp
import numpy as np
import psutil

from padlite.backends import llama_devices
from padlite.errors import BackendError, ContextFullError, DecodingCancelled, NotFoundError
from padlite.options import EngineOptions
from padlite.seams import BaseState, FloatArray

_log = logging.getLogger(__name__)

_ABORTED = 2  # llama_decode: stopped by the abort callback
_NO_SLOT = 1  # llama_decode: the cache has no room
_OUTPUTS_AT_ONCE = 64  # of `states`: rows of logits, half a megabyte each for a large vocabulary
_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING}  # ggml_log_level; others are DEBUG
_EMPTY = np.empty(0, dtype=np.float32)
_NO_DATA = ctypes.c_void_p(0)

# What llama.cpp said last, for the reason in an error: the callback belongs to the whole process, as in the library.
_recent_lines: collections.deque[str] = collections.deque(maxlen=50)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _data: object) -> None:
    """Send llama.cpp's log to `logging`, never to the terminal."""
    line = text.decode("utf-8", "replace").rstrip()
    if line and line != ".":
        _recent_lines.append(line)
        _log.log(_LEVELS.get(level, logging.DEBUG), "%s", line)


# Prototypes of our own that return plain addresses: making a ctypes pointer object costs more than the call.
_library = llama_cpp.llama_cpp._lib  # pyright: ignore[reportPrivateUsage]
_logits_address = _library["llama_get_logits_ith"]
_logits_address.argtypes, _logits_address.restype = [ctypes.c_void_p, ctypes.c_int32], ctypes.c_void_p
_hidden_address = _library["llama_get_embeddings_ith"]
_hidden_address.argtypes, _hidden_address.restype = [ctypes.c_void_p, ctypes.c_int32], ctypes.c_void_p


def physical_cores() -> int:
    """Return the number of physical cores that this process may use, at least 1."""
    usable = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count()
    return max(1, min(psutil.cpu_count(logical=False) or 1, usable or 1))


def system_info() -> str:
    """Return llama.cpp's own list of CPU and GPU features."""
    return str(llama_cpp.llama_print_system_info().decode("utf-8", "replace")).strip()


def may_repack(info: str | None = None) -> bool:
    """Tell whether weights may be laid out anew for faster products: not where llama.cpp's line of features has AMX.

    Its AMX code stops the process with a segmentation fault in many builds: compilers before GCC 12.4 and 13.3 drop
    part of the tile configuration that it writes (GCC bug 114098). The same switch covers all layouts.
    """
    return "AMX_INT8 = 1" not in (system_info() if info is None else info)


def version() -> str:
    """Return the version of llama-cpp-python."""
    return str(llama_cpp.__version__)


def silence() -> None:
    """Begin anew with what llama.cpp says, and keep it away from the terminal."""
    llama_cpp.llama_log_set(_on_log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    _recent_lines.clear()


def supports_gpu() -> bool:
    """Tell whether this build of llama.cpp can use a GPU."""
    return bool(llama_cpp.llama_supports_gpu_offload())


class LlamaTokenizer:
    """The tokenizer of a GGUF model (`Tokenizer` in `padlite.seams`)."""

    def __init__(self, model: llama_cpp.llama_model_p) -> None:
        vocab = llama_cpp.llama_model_get_vocab(model)
        if vocab is None:
            raise BackendError("the model has no vocabulary", remedy="use a text model")
        self._vocab = vocab
        self.vocabulary_size: int = int(llama_cpp.llama_vocab_n_tokens(vocab))
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self._control: frozenset[str] | None = None

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of *text*; control tokens in it are recognized only when *special* is true. Adds no BOS."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), ids, room, False, special)
        if count < 0:
            ids = (llama_cpp.llama_token * -count)()
            count = llama_cpp.llama_tokenize(self._vocab, data, len(data), ids, -count, False, special)
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        """Return the bytes that *token* adds to the text; empty for control tokens."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._text_of(token, special=False)
        return piece

    def is_end(self, token: int) -> bool:
        """Tell whether *token* ends the answer (EOS, end of turn, …)."""
        end = self._ends.get(token)
        if end is None:
            end = self._ends[token] = bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))
        return end

    @property
    def beginning(self) -> int | None:
        """The token that must begin every text (BOS), or None if the model wants none."""
        token = int(llama_cpp.llama_vocab_bos(self._vocab))
        return token if llama_cpp.llama_vocab_get_add_bos(self._vocab) and token >= 0 else None

    def named_text(self, name: str) -> str:
        """Return the text of the token that the model calls *name*, ``bos`` or ``eos``, or an empty string."""
        token = int({"bos": llama_cpp.llama_vocab_bos, "eos": llama_cpp.llama_vocab_eos}[name](self._vocab))
        return self._text_of(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    @property
    def control_texts(self) -> frozenset[str]:
        """The texts of all tokens that text could be mistaken for: control tokens and those a vocabulary adds."""
        if self._control is None:
            added = (
                llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
                | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
                | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
            )
            ids = (i for i in range(self.vocabulary_size) if llama_cpp.llama_vocab_get_attr(self._vocab, i) & added)
            texts = (llama_cpp.llama_vocab_get_text(self._vocab, i) or b"" for i in ids)
            self._control = frozenset(text.decode("utf-8", "replace") for text in texts if text)
        return self._control

    @property
    def sha256(self) -> str:
        """A fingerprint of the vocabulary: the SHA-256 of every token's text and attributes, in order."""
        digest = hashlib.sha256()
        for token in range(self.vocabulary_size):
            digest.update(llama_cpp.llama_vocab_get_text(self._vocab, token) or b"")
            digest.update(b"\0%d\n" % llama_cpp.llama_vocab_get_attr(self._vocab, token))
        return digest.hexdigest()

    def _text_of(self, token: int, *, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            room = -length


class LlamaModel:
    """A base model (`BaseModel` in `padlite.seams`); a context manager that gives the memory back.

    Its sequences share one cache with room for as many full contexts as the options say; a prefix that several have in
    common counts once.
    """

    def __init__(self, model: llama_cpp.llama_model_p, path: Path, options: EngineOptions, gpu_layers: int) -> None:
        self._model, self._closed = model, False
        self.path: Path = path
        self.gpu_layers: int = gpu_layers
        self.tokenizer: LlamaTokenizer = LlamaTokenizer(model)
        self.threads: int = options.threads or physical_cores()
        self.step_threads: int = self.threads
        self.vocabulary_size: int = self.tokenizer.vocabulary_size
        self.hidden_size: int = int(llama_cpp.llama_model_n_embd(model))
        self.trained_context: int = int(llama_cpp.llama_model_n_ctx_train(model))
        self._hidden_states = options.hidden_states
        self._cached: dict[int, list[int]] = {}
        self._cancelled: Callable[[], bool] = _never
        self._abort = llama_cpp.ggml_abort_callback(self._stop_asked)
        self._no_abort = llama_cpp.ggml_abort_callback(0)
        self.evaluated_tokens: int = 0
        self._open_context(model, options)

    @classmethod
    def open(cls, path: Path, options: EngineOptions | None = None) -> Self:
        """Load the GGUF file at *path*. Raises NotFoundError, or BackendError with llama.cpp's reason."""
        options = options or EngineOptions()
        require_gguf(path)
        silence()
        allowed = llama_devices.allowed(options)
        devices = None if allowed is None else llama_devices.as_list(allowed)
        attempts = _layer_attempts(options, gpu=supports_gpu())
        for layers in attempts:
            _recent_lines.clear()
            parameters = llama_cpp.llama_model_default_params()
            parameters.n_gpu_layers = layers
            if devices is not None:
                parameters.devices = ctypes.addressof(devices)  # pyright: ignore[reportAttributeAccessIssue]
            parameters.use_extra_bufts = may_repack()
            model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
            if model is None and _is_short_of_memory(_recent_lines):
                continue
            if model is None:
                break
            try:
                return cls(model, path, options, layers)
            except BackendError:
                llama_cpp.llama_model_free(model)
                if layers == attempts[-1] or not _is_short_of_memory(_recent_lines):
                    raise
        remedy = "check the file, or download it again"
        if options.device == "cuda" and _is_short_of_memory(_recent_lines):
            remedy = "use the device 'auto', which leaves on the CPU what doesn't fit"
        raise BackendError(f"{path.name} can't be loaded: {reason()}", remedy=remedy)

    def _open_context(self, model: llama_cpp.llama_model_p, options: EngineOptions) -> None:
        if not llama_cpp.llama_model_has_decoder(model) or llama_cpp.llama_model_is_diffusion(model):
            raise BackendError(f"{self.path.name} is not a chat model", remedy="use a GGUF of a causal language model")
        parameters = llama_cpp.llama_context_default_params()
        context_length = options.context_length or min(self.trained_context, options.largest_context)
        parameters.n_ctx = context_length * options.contexts
        parameters.n_batch = parameters.n_ubatch = max(options.batch_size, options.sequences)
        parameters.n_seq_max = options.sequences
        parameters.kv_unified = True
        parameters.n_threads = parameters.n_threads_batch = self.threads
        parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
        if options.exact:
            parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_F32
            parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
        parameters.no_perf = True
        context = llama_cpp.llama_init_from_model(model, parameters)
        if context is None:
            raise BackendError(
                f"no context of {parameters.n_ctx:,} tokens could be made for {self.path.name}: {reason()}",
                remedy="set a smaller context_length under [engine] in the profile",
            )
        self._context = context
        self.context_length: int = int(llama_cpp.llama_n_ctx(context)) // options.contexts
        self._memory = cast("llama_cpp.llama_memory_t", llama_cpp.llama_get_memory(context))  # a decoder has one
        self._batch_size = int(llama_cpp.llama_n_batch(context))
        self._many = llama_cpp.llama_batch_init(self._batch_size, 0, 1)
        self._one = llama_cpp.llama_batch_init(1, 0, 1)
        self._one.n_tokens, self._one.n_seq_id[0], self._one.logits[0] = 1, 1, 1
        # Its pointers, kept: each access through the structure would make a new object of them.
        self._one_token, self._one_position, self._one_sequence = self._one.token, self._one.pos, self._one.seq_id[0]
        self._gives_hidden = False
        self._logits_view: tuple[int, FloatArray] = (0, _EMPTY)
        self._hidden_view: tuple[int, FloatArray] = (0, _EMPTY)

    @property
    def vocabulary(self) -> llama_cpp.llama_vocab_p:
        """llama.cpp's own handle of the vocabulary, for what else works with it."""
        return cast("llama_cpp.llama_vocab_p", llama_cpp.llama_model_get_vocab(self._model))

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the model's chat template, or None."""
        source = llama_cpp.llama_model_chat_template(self._model, None)
        return source.decode("utf-8", "replace") if source else None

    @property
    def description(self) -> str:
        """What llama.cpp calls the model, such as ``llama 8B Q4_K - Medium``; a size it has no name for is counted."""
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace").replace("?B", f"{self.parameters / 1e6:.1f}M")

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return int(llama_cpp.llama_model_n_params(self._model))

    def prefill(
        self, tokens: Sequence[int], *, sequence: int = 0, cancelled: Callable[[], bool] | None = None
    ) -> BaseState:
        """Make *sequence* hold exactly *tokens* (at least one), evaluating only what its cache lacks.

        Raises ContextFullError when they don't fit, and DecodingCancelled soon after *cancelled* turns true; what was
        evaluated until then is kept.
        """
        self._require_room(tokens)
        self._hold(tokens[:-1], sequence, cancelled)
        return self.step(tokens[-1], sequence=sequence)

    def states(
        self,
        tokens: Sequence[int],
        *,
        first: int,
        sequence: int = 0,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[BaseState]:
        """Make *sequence* hold *tokens* and yield the state after each of them from the one at *first* on.

        Evaluates many tokens at once, for texts that are known: several times as fast as step by step. Each state is
        valid until the next one is asked for. Raises what `prefill` raises.
        """
        self._require_room(tokens)
        self._hold(tokens[:first], sequence, cancelled)
        for begin in range(first, len(tokens), min(self._batch_size, _OUTPUTS_AT_ONCE)):
            part = tokens[begin : begin + min(self._batch_size, _OUTPUTS_AT_ONCE)]
            self._output_hidden(self._hidden_states)
            with self._abortable(cancelled):
                self._evaluate_many(part, sequence, outputs=True)
            for i in range(len(part)):
                yield self._state_of(i)

    def step(self, token: int, *, sequence: int = 0) -> BaseState:
        """Append one token to *sequence* and return the state after it; ContextFullError when there is no room."""
        cached = self._cached.setdefault(sequence, [])
        self._one_token[0], self._one_position[0], self._one_sequence[0] = token, len(cached), sequence
        if self._gives_hidden is not self._hidden_states:
            self._output_hidden(self._hidden_states)
        if code := llama_cpp.llama_decode(self._context, self._one):
            self._check(code)
        cached.append(token)
        self.evaluated_tokens += 1
        return BaseState(logits=self._logits(), hidden=self._hidden() if self._hidden_states else _EMPTY)

    def step_together(self, token: int, sequences: Sequence[int]) -> list[BaseState]:
        """Append *token* to each of *sequences* in one evaluation and return the states after it, in that order."""
        batch = self._many
        batch.n_tokens = len(sequences)
        for i, sequence in enumerate(sequences):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, self.cached_tokens(sequence), 1
            batch.seq_id[i][0], batch.logits[i] = sequence, 1
        self._output_hidden(self._hidden_states)
        self._set_threads(self.step_threads)  # of a batch, as a prompt is one
        code = llama_cpp.llama_decode(self._context, batch)
        self._set_threads(self.threads)
        self._check(code)
        for sequence in sequences:
            self._cached.setdefault(sequence, []).append(token)
        self.evaluated_tokens += len(sequences)
        return [
            BaseState(
                logits=_view(_logits_address(self._context, i), self.vocabulary_size),
                hidden=_view(_hidden_address(self._context, i), self.hidden_size) if self._hidden_states else _EMPTY,
            )
            for i in range(len(sequences))
        ]

    def leave_threads(self, count: int) -> None:
        """Leave *count* of the threads, but one, to what runs beside every step from now on; prompts get all of them.

        More threads than cores would wait for each other: many times as long as a step takes.
        """
        self.step_threads = max(1, self.threads - count)
        self._set_threads(self.threads)

    def fork(self, source: int, target: int) -> None:
        """Make sequence *target* a copy of *source*: nothing is evaluated and no cells are copied."""
        self._truncate(target, 0)
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self._cached[target] = list(self._cached.get(source, []))

    def forget(self, sequence: int) -> None:
        """Empty *sequence*."""
        self._truncate(sequence, 0)

    def cached_tokens(self, sequence: int = 0) -> int:
        """Return how many tokens *sequence* holds."""
        return len(self._cached.get(sequence, ()))

    def shared_tokens(self, tokens: Sequence[int], sequence: int = 0) -> int:
        """Return how many of the first *tokens* are those that *sequence* begins with."""
        return _common_prefix(self._cached.get(sequence, ()), tokens)

    def unit_hidden_state(self, text: str) -> FloatArray:
        """Return the hidden state (d,) after *text* on its own, scaled to length 1: what tells base models apart."""
        with self.spare_sequence() as sequence:
            state = self.prefill(self.tokenizer.encode(text, special=False), sequence=sequence)
            hidden = state.hidden.copy()
        return np.asarray(hidden / max(float(np.linalg.norm(hidden)), 1e-12), dtype=np.float32)

    @contextlib.contextmanager
    def spare_sequence(self) -> Iterator[int]:
        """Lend the last sequence, empty, for texts that belong to no conversation."""
        last = int(llama_cpp.llama_n_seq_max(self._context)) - 1
        self.forget(last)
        try:
            yield last
        finally:
            self.forget(last)

    def close(self) -> None:
        """Free the context and the model; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        llama_cpp.llama_batch_free(self._many)
        llama_cpp.llama_batch_free(self._one)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)
        self._logits_view = self._hidden_view = (0, _EMPTY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _set_threads(self, batch: int) -> None:
        """Say how many threads evaluate several tokens at once; a single one has those for a step."""
        llama_cpp.llama_set_n_threads(self._context, self.step_threads, batch)

    def _stop_asked(self, _data: object) -> bool:
        return self._cancelled()

    def _require_room(self, tokens: Sequence[int]) -> None:
        if len(tokens) > self.context_length:
            raise ContextFullError(
                f"{len(tokens):,} tokens don't fit the context of {self.context_length:,}",
                remedy="shorten the text, or set a larger context_length under [engine] in the profile",
            )

    def _hold(self, tokens: Sequence[int], sequence: int, cancelled: Callable[[], bool] | None) -> None:
        """Make *sequence* hold exactly *tokens*, evaluating what its cache lacks, without any output."""
        self._truncate(sequence, _common_prefix(self._cached.setdefault(sequence, []), tokens))
        cached = self._cached[sequence]
        self._output_hidden(False)
        with self._abortable(cancelled):
            while len(cached) < len(tokens):
                self._evaluate_many(tokens[len(cached) :][: self._batch_size], sequence, outputs=False)

    @contextlib.contextmanager
    def _abortable(self, cancelled: Callable[[], bool] | None) -> Iterator[None]:
        """Let *cancelled* stop the evaluations inside."""
        self._cancelled = cancelled or _never
        llama_cpp.llama_set_abort_callback(self._context, self._abort, _NO_DATA)
        try:
            yield
        finally:
            llama_cpp.llama_set_abort_callback(self._context, self._no_abort, _NO_DATA)

    def _evaluate_many(self, tokens: Sequence[int], sequence: int, *, outputs: bool) -> None:
        """Append *tokens* (at most a batch) to *sequence*; *outputs*: compute the logits and hidden states of all."""
        cached, batch = self._cached[sequence], self._many
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, len(cached) + i, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, int(outputs)
        code = llama_cpp.llama_decode(self._context, batch)
        if code == _ABORTED:
            self._truncate(sequence, len(cached))
            raise DecodingCancelled("stopped", remedy="")
        self._check(code)
        cached.extend(tokens)
        self.evaluated_tokens += len(tokens)

    def _truncate(self, sequence: int, length: int) -> None:
        """Keep the first *length* tokens of *sequence*; a model that can't rewind (recurrent, hybrid) starts over."""
        cached = self._cached.setdefault(sequence, [])
        if not llama_cpp.llama_memory_seq_rm(self._memory, sequence, length, -1):
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            length = 0
        del cached[length:]

    def _check(self, code: int) -> None:
        if code == _NO_SLOT:
            raise ContextFullError(
                f"the context of {self.context_length:,} tokens is full",
                remedy="start a new conversation, or set a larger context_length under [engine] in the profile",
            )
        if code != 0:
            raise BackendError(
                f"llama.cpp failed to evaluate a token (code {code}): {reason()}", remedy="run `padlite doctor`"
            )

    def _output_hidden(self, wanted: bool) -> None:
        """Say whether the next evaluation gives hidden states; only on a change, because llama.cpp logs the call."""
        if wanted is not self._gives_hidden:
            llama_cpp.llama_set_embeddings(self._context, wanted)
            self._gives_hidden = wanted

    def _state_of(self, i: int) -> BaseState:
        """Return the state after token *i* of the last batch."""
        return BaseState(
            logits=_view(_logits_address(self._context, i), self.vocabulary_size),
            hidden=_view(_hidden_address(self._context, i), self.hidden_size) if self._hidden_states else _EMPTY,
        )

    def _logits(self) -> FloatArray:
        address = _logits_address(self._context, -1)
        if address != self._logits_view[0]:
            self._logits_view = (address, _view(address, self.vocabulary_size))
        return self._logits_view[1]

    def _hidden(self) -> FloatArray:
        address = _hidden_address(self._context, -1)
        if address != self._hidden_view[0]:
            self._hidden_view = (address, _view(address, self.hidden_size))
        return self._hidden_view[1]


def _view(address: int | None, size: int) -> FloatArray:
    if not address:
        raise BackendError("llama.cpp gave no output for the last token", remedy="run `padlite doctor`")
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), shape=(size,))


def _never() -> bool:
    return False


def _common_prefix(cached: Sequence[int], tokens: Sequence[int]) -> int:
    """Return how many first tokens are the same."""
    for i, (a, b) in enumerate(zip(cached, tokens, strict=False)):
        if a != b:
            return i
    return min(len(cached), len(tokens))


def _layer_attempts(options: EngineOptions, *, gpu: bool) -> list[int]:
    """Return the numbers of GPU layers to try: what was asked for, or all, then ever fewer, then none where it may."""
    if options.gpu_layers >= 0:
        return [options.gpu_layers]
    if options.device == "cpu" or not gpu:
        return [0]
    return [999, 32, 24, 16, 8] if options.device == "cuda" else [999, 32, 24, 16, 8, 0]


def _is_short_of_memory(lines: Iterable[str]) -> bool:
    """Tell whether llama.cpp's last *lines* speak of memory that wasn't there: only then can fewer GPU layers help."""
    missing = r"(fail|unable|can ?not|not enough).*(alloc|memory|buffer)|out of (device )?memory"
    return any(re.search(missing, line, re.IGNORECASE) for line in lines)


def require_gguf(path: Path) -> None:
    """Raise NotFoundError or BackendError unless *path* is a file that begins like a GGUF."""
    if not path.is_file():
        raise NotFoundError(f"there is no model file {path}", remedy="check the path, or run `padlite models list`")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise BackendError(f"{path} can't be read: {error.strerror}", remedy=f"check the rights of {path}") from error
    if magic != b"GGUF":
        what = "is empty" if not magic else "is not a GGUF file"
        raise BackendError(f"{path} {what}", remedy="use a model in llama.cpp's GGUF format")


def reason() -> str:
    """Return the most telling of llama.cpp's last lines, without its function names."""
    telling = [
        line
        for line in _recent_lines
        if re.search(r"error|fail|invalid|unknown|unable|missing|corrupt|bounds", line, re.IGNORECASE)
        and not line.startswith("print_info:")
    ]
    line = telling[0] if telling else "llama.cpp gave no reason"
    return re.sub(r"^\w+: (error:? )?", "", line).strip()
