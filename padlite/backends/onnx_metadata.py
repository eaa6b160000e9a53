"""What every kind of reward model says about itself in its file's metadata, and how a file is refused.

The keys are described in docs/formats.md. Knows no graph and runs nothing.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from padlite.backends import onnx_schema as onnx
from padlite.errors import BackendError
from padlite.seams import Dimension

SCHEMA = "1"
_REMEDY = "export it again with this version of padlite, or choose another reward model"
_CALLED = {"head": "head", "lm": "LM"}


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of a reward model of this *kind*; every method raises BackendError for what it can't accept."""

    values: Mapping[str, str]
    kind: str

    @classmethod
    def of(cls, model: onnx.Model, kind: str) -> "Metadata":
        """Return the metadata of *model* after checking its schema and kind."""
        metadata = cls({entry.key: entry.value for entry in model.metadata_props}, kind)
        schema, found = metadata.values.get("padlite.schema"), metadata.values.get("padlite.kind")
        if schema is None:
            raise BackendError(
                "this ONNX file is no padlite reward model: it has no padlite.schema in its metadata", remedy=_REMEDY
            )
        if schema != SCHEMA:
            raise BackendError(
                f"the reward model has schema {schema[:20]!r}, this padlite reads {SCHEMA!r}", remedy="upgrade padlite"
            )
        if found != kind:
            raise metadata.refused(f"its kind is {(found or '')[:20]!r}, not {kind!r}")
        return metadata

    def refused(self, reason: str) -> BackendError:
        """Return the error to raise."""
        return BackendError(f"the reward {_CALLED[self.kind]} can't be used: {reason}", remedy=_REMEDY)

    def json(self, key: str) -> object:
        """Return the value of *key*, parsed."""
        try:
            return cast(object, json.loads(self.text(key)))
        except (ValueError, RecursionError) as error:
            raise self.refused(f"{key} in its metadata is no JSON") from error

    def text(self, key: str) -> str:
        """Return the value of *key* as it is."""
        if key not in self.values:
            raise self.refused(f"its metadata lacks {key}")
        return self.values[key]

    def whole_number(self, key: str) -> int:
        """Return the value of *key*, at least 1."""
        text = self.text(key)
        if not (text.isascii() and text.isdecimal() and len(text) <= 15 and int(text) > 0):
            raise self.refused(f"{key} isn't a positive whole number")
        return int(text)

    def sha256(self, key: str) -> str:
        """Return the value of *key*, 64 hexadecimal digits."""
        value = self.values.get(key, "")
        if not re.fullmatch("[0-9a-f]{64}", value):
            raise self.refused(f"{key} isn't a sha256 in hexadecimal")
        return value

    def dimensions(self, count: int) -> tuple[Dimension, ...]:
        """Return the dimensions, *count* of them with different names."""
        listed = self.json("padlite.dimensions")
        if not isinstance(listed, list):
            raise self.refused("padlite.dimensions isn't a list")
        entries = cast(list[object], listed)
        if len(entries) != count:
            raise self.refused(f"it names {len(entries)} dimensions, but its graph computes {count}")
        dimensions = tuple(map(self._dimension, entries))
        if len({each.name for each in dimensions}) != len(dimensions):
            raise self.refused("two of its dimensions have the same name")
        return dimensions

    def _dimension(self, entry: object) -> Dimension:
        fields = cast(dict[str, object], entry) if isinstance(entry, dict) else {}
        name, description, scale = fields.get("name"), fields.get("description", ""), fields.get("scale", 1.0)
        if not (isinstance(name, str) and name and isinstance(description, str) and is_finite(scale)):
            raise self.refused("an entry of padlite.dimensions isn't {name, description, scale}")
        return Dimension(name=name, description=description, scale=float(cast(float, scale)))


def signature(value: onnx.Value) -> tuple[str, int, tuple[int | str, ...]]:
    """Return name, item type and shape of an input or output; sizes that vary are names."""
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, tuple(each.dim_param or each.dim_value for each in tensor.shape.dim)


def is_finite(value: object) -> bool:
    """Tell whether *value* is a number that a float32 can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e30
