"""Cases of a batch without a question, for tests of those who dispatch their work."""

from __future__ import annotations

from dataclasses import dataclass

from qverify.workers.tasks import Task

CHUNK = 128


@dataclass(frozen=True)
class Plain:
    """A case whose keys are words."""

    name: str
    indices: range
    task: Task
    timeout: float | None = 5.0
    chunk: int = CHUNK

    def key(self, index: int) -> str:
        return f"{self.name} {index}"
