"""Writing a conversation to a file that a person named: Markdown for reading, JSON for programs.

Knows messages and files, no store.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from padlite.errors import PadliteError
from padlite.private_files import write_atomically
from padlite.template import Message

_NAMES = {"user": "You", "assistant": "Answer", "system": "System"}


def write_transcript(path: Path, messages: Sequence[Message]) -> None:
    """Write *messages* to *path*: JSON if it ends in .json, else Markdown. Raises PadliteError."""
    if path.suffix == ".json":
        records = [{"role": message.role, "content": message.content} for message in messages]
        text = json.dumps(records, ensure_ascii=False, indent=2) + "\n"
    else:
        text = "\n\n".join(f"## {_NAMES.get(m.role, m.role)}\n\n{m.content.strip()}" for m in messages) + "\n"
    try:
        write_atomically(path, text)
    except OSError as error:
        raise PadliteError(f"can't write {path}: {error.strerror}", remedy="choose another place") from error
