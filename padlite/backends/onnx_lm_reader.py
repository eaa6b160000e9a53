"""Reads what a reward LM's file says about itself: sizes from its inputs and outputs, the rest from its metadata.

Unlike a head's, its graph is not one graph: what lies between inputs and outputs is limited by the operator list of
`preflight` alone (docs/formats.md). It has two parts, tokens to hidden state (d,) and state to scores, so that the
first can run before the candidates are known. c is the number of cells of its cache. Runs nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from padlite.backends import onnx_schema as onnx
from padlite.backends.onnx_metadata import Metadata, signature
from padlite.seams import Dimension

TOKENS, MASK, HIDDEN = "input_ids", "attention_mask", "hidden"
STATE, CANDIDATES, SCORES = "state", "candidates", "scores"
_OWN_TOKENIZER = "padlite.tokenizer_json_sha256"
_CACHE_PARTS = ("key", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class LmInfo:
    """A reward LM's own words: its one *dimension*, and whether its scores are *normalized* log-probabilities.

    *hidden_size* is d. *caches* are (input, output) names of the KV cache, all of shape (1, *kv_heads*, c,
    *head_size*), c at least *window*, the tokens that a layer with a sliding window looks back (0: none has one);
    *prompt* and *preference* say what it is asked (`padlite.reward_lm`); *chat_template* is empty if its base's is
    meant. *tokenizer_json_sha256* is that of the tokenizer file beside it, empty if it brings none along; *end_text*
    the text of the token that ends its texts.
    """

    dimension: Dimension
    vocabulary_size: int
    context_length: int
    parameters: int
    normalized: bool
    hidden_size: int
    caches: tuple[tuple[str, str], ...]
    kv_heads: int
    head_size: int
    window: int
    tokenizer_sha256: str
    tokenizer_json_sha256: str
    end_text: str
    prompt: str
    preference: str
    chat_template: str


class _Arrays(NamedTuple):
    """What inputs and outputs say: the cache's names (input, output), its heads and their width, d."""

    caches: tuple[tuple[str, str], ...]
    kv_heads: int
    head_size: int
    width: int


def read_lm(model: onnx.Model) -> LmInfo:
    """Return what *model* says about itself; raise BackendError unless it is a reward LM that padlite can run."""
    metadata = Metadata.of(model, "lm")
    scores = metadata.text("padlite.scores")
    if scores not in {"logit", "logprob"}:
        raise metadata.refused(f"padlite.scores is {scores[:20]!r}, not 'logit' or 'logprob'")
    arrays = _read_arrays(model.graph, metadata)
    return LmInfo(
        dimension=metadata.dimensions(1)[0],
        vocabulary_size=metadata.whole_number("padlite.vocabulary_size"),
        context_length=metadata.whole_number("padlite.context_length"),
        parameters=metadata.whole_number("padlite.parameters"),
        normalized=scores == "logprob",
        hidden_size=arrays.width,
        caches=arrays.caches,
        kv_heads=arrays.kv_heads,
        head_size=arrays.head_size,
        window=max((0, *_windows(model.graph))),
        tokenizer_sha256=metadata.sha256("padlite.tokenizer_sha256"),
        tokenizer_json_sha256=metadata.sha256(_OWN_TOKENIZER) if _OWN_TOKENIZER in metadata.values else "",
        end_text=metadata.values.get("padlite.end_text", ""),
        prompt=_read_prompt(metadata),
        preference=metadata.values.get("padlite.preference", ""),
        chat_template=metadata.values.get("padlite.chat_template", ""),
    )


def split(model: onnx.Model, info: LmInfo) -> tuple[onnx.Model, onnx.Model]:
    """Return the parts of *model*: from tokens, mask and cache to hidden state and cache; from state to scores.

    Raises BackendError unless they are apart.
    """
    pasts, presents = zip(*info.caches, strict=True)
    parts = onnx.part_of(model, (HIDDEN, *presents)), onnx.part_of(model, (SCORES,))
    for part, wanted in zip(parts, ({TOKENS, MASK, *pasts}, {STATE, CANDIDATES}), strict=True):
        if {each.name for each in part.graph.input} != wanted:
            raise Metadata.of(model, "lm").refused("its hidden state and its scores aren't two parts of their own")
    return parts


def _windows(graph: onnx.Graph) -> Iterator[int]:
    for node in graph.node:
        yield from (setting.i for setting in node.attribute if setting.name == "local_window_size")


def _read_prompt(metadata: Metadata) -> str:
    prompt = metadata.values.get("padlite.prompt", "")
    if prompt and not all(prompt.count(field) == 1 for field in ("{preference}", "{message}")):
        raise metadata.refused("padlite.prompt doesn't hold {preference} and {message} once each")
    return prompt


def _read_arrays(graph: onnx.Graph, metadata: Metadata) -> _Arrays:
    """Return the cache's names and the sizes, after checking every input and output."""
    inputs = {name: (item, shape) for name, item, shape in map(signature, graph.input)}
    outputs = {name: (item, shape) for name, item, shape in map(signature, graph.output)}
    layers = (len(inputs) - 4) // 2
    caches = tuple(
        (f"past_key_values.{layer}.{part}", f"present.{layer}.{part}")
        for layer in range(layers)
        for part in _CACHE_PARTS
    )
    if layers < 1 or inputs.keys() != {TOKENS, MASK, STATE, CANDIDATES, *(name for name, _ in caches)}:
        raise metadata.refused("its inputs aren't tokens, mask, state, candidates and a cache for each layer")
    if outputs.keys() != {HIDDEN, SCORES, *(name for _, name in caches)}:
        raise metadata.refused("its outputs aren't hidden state, scores and a cache for each layer")
    (_, state), (_, first) = inputs[STATE], inputs[caches[0][0]]
    width = state[1] if len(state) == 2 else 0
    kv_heads, head_size = (first[1], first[3]) if len(first) == 4 else (0, 0)
    if not isinstance(width, int) or width < 1:
        raise metadata.refused("its state isn't (1, width)")
    if not isinstance(kv_heads, int) or not isinstance(head_size, int) or kv_heads < 1 or head_size < 1:
        raise metadata.refused("its cache isn't (1, heads, cells, width)")
    for name, (item, shape) in [*inputs.items(), *outputs.items()]:
        if name in {TOKENS, MASK, CANDIDATES}:
            fits = item == onnx.INT64
        elif name in {STATE, HIDDEN}:
            fits = item == onnx.FLOAT and shape[1:] == (width,)
        else:
            cache = (shape[1:2], shape[3:]) == ((kv_heads,), (head_size,))
            fits = item == onnx.FLOAT and (name == SCORES or cache)
        if not fits:
            raise metadata.refused(f"its input or output {name!r} has another type or shape than a reward LM's")
    return _Arrays(caches, kv_heads, head_size, width)
