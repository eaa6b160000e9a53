"""The ordinary requests that a base model answers while a dimension is made. Knows no model."""

from importlib import resources
from pathlib import Path

from padlite.errors import NotFoundError, UsageError

FEWEST = 20
_LARGEST_FILE = 16 * 2**20


def ordinary_prompts() -> tuple[str, ...]:
    """Return the prompts that come with padlite: some twelve hundred everyday requests and remarks."""
    return _lines(resources.files("padlite.dimensions").joinpath("prompts.txt").read_text(encoding="utf-8"))


def read_prompts(path: Path) -> tuple[str, ...]:
    """Return the prompts in the text file *path*, one a line; empty lines and repetitions don't count.

    Raises NotFoundError, or UsageError if the file isn't UTF-8, is larger than 16 MiB or holds too few.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise NotFoundError(f"can't read {path}: {error.strerror}", remedy="check the path") from error
    if len(content) > _LARGEST_FILE:
        raise UsageError(f"{path} is larger than 16 MiB", remedy="a thousand or two are enough")
    try:
        prompts = _lines(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}: this is not UTF-8 text", remedy="save the file as UTF-8") from error
    if len(prompts) < FEWEST:
        raise UsageError(
            f"{path} holds {len(prompts)} different prompts, at least {FEWEST} are needed",
            remedy="write one prompt a line; about a thousand are best",
        )
    return prompts


def _lines(text: str) -> tuple[str, ...]:
    lines = (line.strip() for line in text.splitlines())
    return tuple(dict.fromkeys(line for line in lines if line and "\0" not in line))
