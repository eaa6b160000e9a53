"""Reads what a reward LM's file says about itself: sizes from its inputs and outputs, the rest from its metadata.

Unlike a head's, its graph is not one graph: what lies between inputs and outputs is limited by the operator list of
`preflight` alone (docs/formats.md). c is the number of cells of its cache. Runs nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from padlite.backends import onnx_schema as onnx
from padlite.backends.onnx_metadata import Metadata, signature
from padlite.seams import Dimension

TOKENS, MASK, CANDIDATES, SCORES = "input_ids", "attention_mask", "candidates", "scores"
_OWN_TOKENIZER = "padlite.tokenizer_json_sha256"
_CACHE_PARTS = ("key", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class LmInfo:
    """A reward LM's own words: its one *dimension*, and whether its scores are *normalized* log-probabilities.

    *caches* are (input, output) names of the KV cache, all of shape (1, *kv_heads*, c, *head_size*), c at least
    *window*, the tokens that a layer with a sliding window looks back (0: none has one); *prompt* and
    *preference* say what it is asked (`padlite.reward_lm`); *chat_template* is empty if its base's is meant.
    *tokenizer_json_sha256* is that of the tokenizer file beside it, empty if it brings none along; *end_text* the text
    of the token that ends its texts.
    """

    dimension: Dimension
    vocabulary_size: int
    context_length: int
    parameters: int
    normalized: bool
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


def read_lm(model: onnx.Model) -> LmInfo:
    """Return what *model* says about itself; raise BackendError unless it is a reward LM that padlite can run."""
    metadata = Metadata.of(model, "lm")
    scores = metadata.text("padlite.scores")
    if scores not in {"logit", "logprob"}:
        raise metadata.refused(f"padlite.scores is {scores[:20]!r}, not 'logit' or 'logprob'")
    caches, kv_heads, head_size = _read_caches(model.graph, metadata)
    return LmInfo(
        dimension=metadata.dimensions(1)[0],
        vocabulary_size=metadata.whole_number("padlite.vocabulary_size"),
        context_length=metadata.whole_number("padlite.context_length"),
        parameters=metadata.whole_number("padlite.parameters"),
        normalized=scores == "logprob",
        caches=caches,
        kv_heads=kv_heads,
        head_size=head_size,
        window=max((0, *_windows(model.graph))),
        tokenizer_sha256=metadata.sha256("padlite.tokenizer_sha256"),
        tokenizer_json_sha256=metadata.sha256(_OWN_TOKENIZER) if _OWN_TOKENIZER in metadata.values else "",
        end_text=metadata.values.get("padlite.end_text", ""),
        prompt=_read_prompt(metadata),
        preference=metadata.values.get("padlite.preference", ""),
        chat_template=metadata.values.get("padlite.chat_template", ""),
    )


def _windows(graph: onnx.Graph) -> Iterator[int]:
    for node in graph.node:
        yield from (setting.i for setting in node.attribute if setting.name == "local_window_size")


def _read_prompt(metadata: Metadata) -> str:
    prompt = metadata.values.get("padlite.prompt", "")
    if prompt and not all(prompt.count(field) == 1 for field in ("{preference}", "{message}")):
        raise metadata.refused("padlite.prompt doesn't hold {preference} and {message} once each")
    return prompt


def _read_caches(graph: onnx.Graph, metadata: Metadata) -> tuple[tuple[tuple[str, str], ...], int, int]:
    """Return the cache's names, its heads and their width, after checking every input and output."""
    inputs = {name: (item, shape) for name, item, shape in map(signature, graph.input)}
    outputs = {name: (item, shape) for name, item, shape in map(signature, graph.output)}
    layers = (len(inputs) - 3) // 2
    caches = tuple(
        (f"past_key_values.{layer}.{part}", f"present.{layer}.{part}")
        for layer in range(layers)
        for part in _CACHE_PARTS
    )
    if layers < 1 or inputs.keys() != {TOKENS, MASK, CANDIDATES, *(name for name, _ in caches)}:
        raise metadata.refused("its inputs aren't tokens, mask, candidates and a cache for each layer")
    if outputs.keys() != {SCORES, *(name for _, name in caches)}:
        raise metadata.refused("its outputs aren't scores and a cache for each layer")
    _, first = inputs[caches[0][0]]
    kv_heads, head_size = (first[1], first[3]) if len(first) == 4 else (0, 0)
    if not isinstance(kv_heads, int) or not isinstance(head_size, int) or kv_heads < 1 or head_size < 1:
        raise metadata.refused("its cache isn't (1, heads, cells, width)")
    for name, (item, shape) in [*inputs.items(), *outputs.items()]:
        whole = item == onnx.INT64 and name in inputs and not name.startswith("past")
        cache = name != SCORES and item == onnx.FLOAT and (shape[1:2], shape[3:]) == ((kv_heads,), (head_size,))
        if not (whole or cache or (name == SCORES and item == onnx.FLOAT)):
            raise metadata.refused(f"its input or output {name!r} has another type or shape than a reward LM's")
    return caches, kv_heads, head_size
