"""What is asked for with -p and stdin: the prompt put together, and how the answer is to be written.

Loads no engine, so that a prompt that makes no sense is refused before anything is loaded.
"""

from dataclasses import dataclass
from typing import BinaryIO

from padlite.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How the answer is written: as it comes or at once, as text or as one JSON object, with its trace or without."""

    json: bool = False
    trace: bool = False
    stream: bool = True


def read_prompt(prompt: str | None, stdin: BinaryIO | None) -> str:
    """Return what to say: *prompt* with the text of *stdin* (None: a terminal) below it; '-' stands for stdin alone.

    Raises UsageError if that is empty or not UTF-8.
    """
    attached = _text_of(stdin) if stdin is not None else ""
    if prompt is None or prompt == "-":
        if stdin is None:
            raise UsageError("-p - reads the prompt from stdin, but stdin is a terminal", remedy="padlite chat -p TEXT")
        text = attached
    else:
        text = f"{_argument(prompt)}\n\n{attached}" if attached.strip() else _argument(prompt)
    if not text.strip():
        raise UsageError("the prompt is empty", remedy='padlite chat -p "What is a haiku?"')
    return text.rstrip("\r\n") if prompt is None or prompt == "-" or attached.strip() else text


def _argument(prompt: str) -> str:
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("the prompt is not valid UTF-8", remedy="check the encoding of your terminal") from None
    return prompt


def _text_of(stdin: BinaryIO) -> str:
    content = stdin.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"stdin is not valid UTF-8 (byte {error.start + 1:,} of {len(content):,})",
            remedy="iconv -f LATIN1 -t UTF-8 FILE | padlite chat …",
        ) from error
