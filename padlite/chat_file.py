"""A conversation in a file of its own, for programs that keep it where they like: JSON, private, whole or not at all.

Answers carry the ids of their tokens, so that the model goes on exactly. Knows messages; knows no model.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from padlite.errors import NotFoundError, StoreError
from padlite.private_files import write_atomically
from padlite.seams import Message

SCHEMA = 1
_ROLES = ("system", "user", "assistant")


def write_conversation(path: Path, messages: Sequence[Message], *, model: str) -> None:
    """Write *messages* to *path*; *model* is noted for people. Raises StoreError if that isn't possible."""
    record = {
        "schema": SCHEMA,
        "model": model,
        "messages": [{"role": m.role, "content": m.content, "tokens": list(m.tokens)} for m in messages],
    }
    try:
        write_atomically(path, json.dumps(record) + "\n")
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror}", remedy="choose another folder") from error


def read_conversation(path: Path) -> list[Message]:
    """Return the messages in the file *path*. Raises NotFoundError, and StoreError if it holds no conversation."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no conversation at {path}", remedy="check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, "it can't be read") from error
    try:
        record: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is no JSON") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or not isinstance(record.get("messages"), list):
        raise _damaged(path, f"it is no conversation of schema {SCHEMA}")
    return [_message(each, path) for each in record["messages"]]


def _message(record: object, path: Path) -> Message:
    match record:
        case {"role": str(role), "content": str(content), "tokens": list(tokens)} if role in _ROLES and all(
            type(token) is int for token in tokens
        ):
            return Message(role=role, content=content, tokens=tuple(tokens))
        case _:
            raise _damaged(path, "one of its messages is damaged")


def _damaged(path: Path, reason: str) -> StoreError:
    return StoreError(f"{path}: {reason}", remedy="use a file that Chat.save() wrote")
