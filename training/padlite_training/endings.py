"""How a program of the training ends on what a person can put right: with the message and the remedy, no traceback."""

import contextlib
import sys
from collections.abc import Iterator

from padlite.errors import PadliteError


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """Exit with the message of a PadliteError or OSError that comes out of what is inside."""
    try:
        yield
    except PadliteError as error:
        sys.exit(f"{error.message}\n{error.remedy}")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))
