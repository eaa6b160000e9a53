"""`python -m padlite`: the command line."""

import sys


def main() -> int:
    """Run the command line and return its exit code, also when Ctrl-C comes while it is still being loaded."""
    try:
        from padlite.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
