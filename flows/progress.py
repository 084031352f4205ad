"""How flows tell what they are doing, whoever listens."""

from typing import Protocol


class Progress(Protocol):
    """Told of stages and of how far they are."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins; `total` units of work where that is known."""
        ...

    def advance(self, done: int, total: int | None = None, note: str = "") -> None:
        """The current stage has done that many units; `note` is shown beside."""
        ...


class Silent:
    """Nobody listens."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Take note of nothing."""

    def advance(self, done: int, total: int | None = None, note: str = "") -> None:
        """Take note of nothing."""
