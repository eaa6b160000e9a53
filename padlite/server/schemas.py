"""From `response_format` to a grammar; a JSON schema may hold only what the grammar really enforces."""

import json
from collections.abc import Iterator, Mapping
from typing import cast

from padlite.backends.llama_grammar import grammar_of_schema
from padlite.errors import UsageError

DEEPEST = 32
LARGEST = 1 << 15  # characters
MOST_REPEATS = 256
_KINDS = ("string", "number", "integer", "boolean", "null", "object", "array")
_NOTES = ("title", "description", "$schema", "$id", "$comment", "default", "examples", "strict", "$defs", "definitions")
_REPEATS = ("minItems", "maxItems", "minLength", "maxLength")
_SCHEMAS = ("items", "additionalProperties")
_MAPS = ("properties", "$defs", "definitions")
_OTHER = ("type", "enum", "const", "required", "anyOf", "$ref", *_SCHEMAS, "properties")


def grammar_for(response_format: Mapping[str, object]) -> str:
    """Return the GBNF grammar of OpenAI's *response_format*, empty for text. Raises UsageError for what it can't be."""
    match response_format:
        case {"type": "text"}:
            return ""
        case {"type": "json_object"}:
            return grammar_of_schema({"type": "object"})
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return grammar_of_schema(checked(cast("dict[str, object]", schema)))
        case _:
            raise UsageError('type must be "text", "json_object" or "json_schema" with json_schema.schema')


def checked(schema: Mapping[str, object]) -> Mapping[str, object]:
    """Return *schema* if a grammar can enforce all of it. Raises UsageError that names the keyword."""
    if len(json.dumps(schema)) > LARGEST:
        raise UsageError(f"the schema is longer than {LARGEST:,} characters")
    _check(schema, schema, 0)
    return schema


def _check(schema: object, root: Mapping[str, object], depth: int) -> None:
    if not isinstance(schema, dict):
        raise UsageError("a schema inside the schema is no object")
    if depth > DEEPEST:
        raise UsageError(f"the schema is nested more than {DEEPEST} deep")
    node = cast("dict[str, object]", schema)
    for name, value in node.items():
        if name not in (*_OTHER, *_NOTES, *_REPEATS):
            raise UsageError(f"the schema's keyword {name[:30].encode('ascii', 'replace').decode()!r} is not supported")
        _check_keyword(name, value, root)
    if not {"type", "enum", "const", "anyOf", "$ref", "properties"} & set(node):
        raise UsageError("a schema inside the schema says no type")
    for inner in _inside(node):
        _check(inner, root, depth + 1)


def _inside(node: Mapping[str, object]) -> Iterator[object]:
    """Yield the schemas directly inside *node*."""
    for name in _SCHEMAS:
        if name in node and not isinstance(node[name], bool):
            yield node[name]
    for name in _MAPS:
        yield from cast("dict[str, object]", node.get(name, {})).values()
    yield from cast("list[object]", node.get("anyOf", []))


def _check_keyword(name: str, value: object, root: Mapping[str, object]) -> None:
    fits = True
    match name:
        case "type":
            kinds = cast("list[object]", value) if isinstance(value, list) else [value]
            fits = bool(kinds) and all(kind in _KINDS for kind in kinds if isinstance(kind, str)) and all(
                isinstance(kind, str) for kind in kinds
            )  # fmt: skip
        case "enum":
            fits = isinstance(value, list) and bool(value) and all(map(_plain, cast("list[object]", value)))
        case "const":
            fits = _plain(value)
        case "properties" | "$defs" | "definitions":
            fits = isinstance(value, dict) and all(map(_plain, cast("dict[str, object]", value)))
        case "required":
            fits = isinstance(value, list) and all(isinstance(each, str) for each in cast("list[object]", value))
        case "anyOf":
            fits = isinstance(value, list) and bool(value)
        case "$ref":
            fits = isinstance(value, str) and _resolves(value, root)
        case _ if name in _REPEATS:
            fits = type(value) is int and 0 <= value <= MOST_REPEATS
        case _:
            pass
    if not fits:
        raise UsageError(f"the schema's {name} can't be followed")


def _plain(value: object) -> bool:
    """Tell whether a grammar can spell *value*: the converter doesn't escape backslashes."""
    return "\\" not in json.dumps(value)


def _resolves(reference: str, root: Mapping[str, object]) -> bool:
    """Tell whether *reference* is to a definition in the schema itself."""
    parts = reference.split("/")
    if len(parts) != 3 or parts[0] != "#" or parts[1] not in ("$defs", "definitions"):
        return False
    definitions = root.get(parts[1])
    return isinstance(definitions, dict) and parts[2] in definitions
