"""`python -m padlite`: the command line."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit code, also when Ctrl-C comes while it is still being loaded."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if ours:
            signal.signal(signal.SIGINT, _leave)
        from padlite.cli import main as run

        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return run()
    except KeyboardInterrupt:
        return INTERRUPTED


def _leave(number: int, frame: FrameType | None) -> None:
    """Leave at once: nothing is open yet, and an exception in the middle of an import can get lost in its machinery."""
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
