"""Settings that transformers 5 writes and transformers 4 passes over without a word, said again in the older way.

A checkpoint saved by transformers 5 keeps its rotary embedding under `rope_parameters`. Version 4 doesn't know that
key, takes θ = 10,000 and computes another model. Knows only dictionaries; reads no file.
"""

from collections.abc import Mapping
from typing import cast

from padlite.errors import UsageError

_KEYS: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
}


def older_settings(config: Mapping[str, object]) -> dict[str, object]:
    """Return what *config*, a config.json, must be told in addition when transformers 4 reads it: often nothing.

    Raises UsageError for rotary embeddings that can't be said in the older way.
    """
    rope = config.get("rope_parameters")
    if rope is None:
        return {}
    fields = dict(cast("Mapping[str, object]", rope)) if isinstance(rope, Mapping) else {}
    kind = str(fields.pop("rope_type", "default"))
    theta, share = fields.pop("rope_theta", None), fields.pop("partial_rotary_factor", None)
    if not isinstance(theta, int | float) or kind not in _KEYS or not fields.keys() <= _KEYS[kind]:
        raise UsageError(
            "the checkpoint was saved by transformers 5, and transformers 4 would misread its rotary embedding "
            f"({kind!r})",
            remedy="use --via builder or --via torch, with pip install 'padlite[export]' in an environment of its own",
        )
    settings: dict[str, object] = {"rope_theta": float(theta)}
    if kind != "default":
        settings["rope_scaling"] = {"rope_type": kind, **fields}
    if share is not None:
        settings["partial_rotary_factor"] = share
    return settings
