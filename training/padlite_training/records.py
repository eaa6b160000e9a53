"""Records as JSON that every reader takes: what isn't a number is null."""

import json
import math
from collections.abc import Mapping, Sequence


def json_text(record: object) -> str:
    """Return *record* (mappings, sequences, texts, numbers) as JSON in lines; null where a number isn't finite."""
    return json.dumps(_finite(record), ensure_ascii=False, indent=1, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(each) for each in value]
    return value
