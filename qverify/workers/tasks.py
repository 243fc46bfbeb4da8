"""Work as plain data that travels between processes: what is to be done, and what came out.

Large things (network, samples, radii and options) are *parcels*, bytes under the name of their sha256, so that each
travels to a process once however many tasks need it.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.verification.row import Row
    from qverify.verification.verdict import Options

_SMALLEST, CHUNK, _LARGE_CHUNK = 32, 512, 128
"""The fewest samples that share a task for the cheap stages, the most of a network, and the most of a large one. What
is left of a chunk shares the passes of the later stages: of more samples each takes less time, and more of them are
lost if the process ends."""
_TASKS = 4
"""Tasks that samples are cut into at the least, as far as the smallest allows: rows come early, and workers share."""
_LARGE = 1e6
"""Multiplications of a forward pass of a large network."""
GRACE = 10.0
"""Seconds that a sample may exceed its time limit before its process is killed: the last resort, for a process that
does not end its solver itself (exact/solvers/process.py)."""


@dataclass(frozen=True, eq=False, repr=False)
class Setting(Brief):
    """The radii of a case, and the options of its computation."""

    radii: Radii
    options: Options


@dataclass(frozen=True, kw_only=True)
class Task:
    """The cheap stages on the samples from `start` up to `stop`; or, if `exact`, all stages on the one there is.

    `network`, `samples`, `setting` name parcels: a Network, (index of the first, x (N, n_in), y (N,)), a Setting.
    `limit`: seconds after which a task that is `exact` is ended by force, None for never. `spent`: seconds that the
    cheap stages took for its sample, which count towards its time limit.
    """

    case: str
    network: str
    samples: str
    setting: str
    limit: float | None = None
    start: int = 0
    stop: int = 0
    exact: bool = False
    spent: float = 0.0

    @property
    def parcels(self) -> tuple[str, str, str]:
        """The names of all parcels that the task needs."""
        return self.network, self.samples, self.setting


@dataclass(frozen=True, repr=False)
class Found(Brief):
    """The answer to a task: `rows` decided, and `open` what is left to the exact step, as unknown with its bounds."""

    rows: tuple[Row, ...]
    open: tuple[Row, ...]
    seconds: float


@dataclass(frozen=True)
class Lost:
    """A task without an answer: why, in words for the user, the seconds it took, and whether its time was up."""

    reason: str
    seconds: float
    overdue: bool = False


def chunk_of(network: Network, samples: int) -> int:
    """How many of the samples share a task: those with indices from k chunks up to k+1, a power of two.

    Numbers may depend in their last digits on what is computed together, so chunks depend neither on what is missing
    nor on the jobs.
    """
    most = CHUNK if network.multiplications <= _LARGE else _LARGE_CHUNK
    share = max(1, samples // _TASKS)
    return min(most, max(_SMALLEST, 1 << (share.bit_length() - 1)))


class Parcels:
    """Parcels by name, on the side that hands out work."""

    def __init__(self) -> None:
        self._content: dict[str, bytes] = {}

    def add(self, value: Any) -> str:
        """Pack a value; returns its name."""
        content = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        name = hashlib.sha256(content).hexdigest()
        self._content[name] = content
        return name

    def __getitem__(self, name: str) -> bytes:
        return self._content[name]
