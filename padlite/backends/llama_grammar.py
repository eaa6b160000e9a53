"""Grammars that an answer must fit: llama.cpp's own, asked about the candidates, and JSON schemas turned into them.

Knows token ids and llama.cpp's grammar sampler; knows no scores. One constraint follows one answer.
"""

import ctypes
import json
import weakref
from collections.abc import Mapping

import llama_cpp
import llama_cpp.llama_grammar
import numpy as np
import numpy.typing as npt

from padlite.backends.llama import LlamaModel
from padlite.errors import BackendError, UsageError
from padlite.seams import BoolArray, TokenArray

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
_LARGEST_GRAMMAR = 1 << 16  # characters


class GrammarConstraint:
    """The GBNF *grammar* on the vocabulary of *base* (`Constraint` in `padlite.seams`).

    Raises UsageError for a grammar that llama.cpp doesn't accept.
    """

    def __init__(self, base: LlamaModel, grammar: str) -> None:
        if len(grammar) > _LARGEST_GRAMMAR:
            raise UsageError(f"the grammar has {len(grammar):,} characters", remedy="use a smaller one")
        sampler = llama_cpp.llama_sampler_init_grammar(base.vocabulary, grammar.encode(), b"root")
        if not sampler:
            raise UsageError("llama.cpp doesn't accept this grammar", remedy="simplify it")
        self._sampler, self._tokenizer = sampler, base.tokenizer
        weakref.finalize(self, llama_cpp.llama_sampler_free, sampler)

    def allowed(self, candidates: TokenArray) -> BoolArray:
        """Tell of each of *candidates* (k,) whether the grammar has it next; control tokens with no text never are."""
        data = np.zeros(len(candidates), dtype=_CANDIDATE)
        data["id"] = candidates
        array = llama_cpp.llama_token_data_array(
            data.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data)), len(data), -1, False
        )
        llama_cpp.llama_sampler_apply(self._sampler, (llama_cpp.llama_token_data_array * 1)(array))
        allowed: npt.NDArray[np.bool_] = np.isfinite(data["logit"])
        for at in np.flatnonzero(allowed):
            token = int(candidates[at])
            if not self._tokenizer.piece(token) and not self._tokenizer.is_end(token):
                allowed[at] = False
        return allowed

    def accept(self, token: int) -> None:
        """Go on after *token*."""
        llama_cpp.llama_sampler_accept(self._sampler, token)


def grammar_of_schema(schema: Mapping[str, object]) -> str:
    """Return the GBNF grammar of a JSON schema whose references are local. Raises UsageError if there is none."""
    try:
        return str(llama_cpp.llama_grammar.json_schema_to_gbnf(json.dumps(schema)))
    except BackendError:
        raise
    except Exception as error:  # the converter asserts, and indexes what isn't there
        raise UsageError("this JSON schema can't be made a grammar", remedy="simplify the schema") from error
