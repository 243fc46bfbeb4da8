"""Progress that nobody is shown."""

from __future__ import annotations


class Silent:
    """A course of work that is told to nobody."""

    def chunk(self, samples: int, still_open: int, seconds: float) -> None: ...

    def exact(self, seconds: float) -> None: ...

    def tick(self) -> None: ...
