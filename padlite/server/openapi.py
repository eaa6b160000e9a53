"""The server described as an OpenAPI document: what the tests that invent requests read."""

from padlite.server.failures import Json

_NUMBER_FIELDS = {
    "temperature": (0, 2), "top_p": (0, 1), "frequency_penalty": (-2, 2), "presence_penalty": (-2, 2),
}  # fmt: skip


def document(version: str) -> Json:
    """Return the OpenAPI document of the server."""
    error: Json = {"description": "what is wrong", "content": {"application/json": {"schema": _ref("Error")}}}
    codes = ("400", "401", "403", "404", "405", "408", "413", "415", "429", "503")
    failures: Json = dict.fromkeys(codes, error)
    found: Json = {"description": "found", "content": {"application/json": {"schema": {"type": "object"}}}}
    with_failures: Json = {"200": found, **failures}
    answered: Json = {
        "description": "the answer, whole or as server-sent events",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
    chatted: Json = {"200": answered, **failures}
    return {
        "openapi": "3.1.0",
        "info": {"title": "padlite", "version": version},
        "paths": {
            "/health": {"get": {"operationId": "health", "responses": {"200": found, "503": found, "403": error}}},
            "/v1/models": {"get": {"operationId": "list_models", "responses": with_failures}},
            "/v1/models/{name}": {
                "get": {
                    "operationId": "get_model",
                    "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
                    "responses": with_failures,
                }
            },
            "/v1/chat/completions": {
                "post": {
                    "operationId": "chat",
                    "requestBody": {
                        "required": True, "content": {"application/json": {"schema": _ref("ChatRequest")}},
                    },
                    "responses": chatted,
                }
            },
        },
        "components": {"schemas": {"Error": _error(), "ChatRequest": _request(), "Message": _message()}},
    }  # fmt: skip


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _error() -> Json:
    inner: Json = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {
            "message": {"type": "string"},
            "type": {"type": "string"},
            "param": {"type": ["string", "null"]},
            "code": {"type": ["string", "null"]},
        },
    }
    return {"type": "object", "required": ["error"], "properties": {"error": inner}}


def _message() -> Json:
    return {
        "type": "object",
        "required": ["role", "content"],
        "additionalProperties": False,
        "properties": {
            "role": {"type": "string", "enum": ["system", "developer", "user", "assistant"]},
            "content": {"type": "string"},
        },
    }


def _request() -> Json:
    properties: Json = {
        "model": {"type": "string", "minLength": 1},
        "messages": {"type": "array", "minItems": 1, "items": _ref("Message")},
        "max_tokens": {"type": "integer", "minimum": 1, "maximum": 10**9},
        "max_completion_tokens": {"type": "integer", "minimum": 1, "maximum": 10**9},
        "n": {"type": "integer", "minimum": 1, "maximum": 16},
        "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1},
        "stop": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 16}]},
        "stream": {"type": "boolean"},
        "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
        "logprobs": {"type": "boolean"},
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
        "logit_bias": {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
        "response_format": {
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {"type": "string", "enum": ["text", "json_object", "json_schema"]},
                "json_schema": {"type": "object"},
            },
        },
        "user": {"type": "string"},
        "padlite": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "profile": {"type": "string"},
                "weights": {"type": "object", "additionalProperties": {"type": "number"}},
                "strength": {"type": "number"},
                "candidates": {"type": "integer", "minimum": 1, "maximum": 1000},
                "trace": {"type": "boolean"},
            },
        },
    }
    for name, (low, high) in _NUMBER_FIELDS.items():
        properties[name] = {"type": "number", "minimum": low, "maximum": high}
    return {
        "type": "object",
        "required": ["model", "messages"],
        "additionalProperties": False,
        "properties": properties,
    }
