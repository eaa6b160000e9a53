"""Who shows a person how a training or an evaluation proceeds."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Teller(Protocol):
    """Who shows a person what happens."""

    def say(self, text: str) -> None:
        """Show a line."""
        ...

    def counting(self, text: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show how *total* steps of something proceed; the context's value takes the number done."""
        ...
