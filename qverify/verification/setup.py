"""A family set up for one run: its tensors, its layers as matrices, the limits on time and memory, and the threads.

What stages (`cascade`), the exact step (`exact_step`) and the questions of `analysis` share; it decides nothing.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, TypeVar

from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.budget import Deadline, working_memory
from qverify.exact.maps import Maps
from qverify.exact.solvers.process import Lent, borrowed
from qverify.family.family import Family
from qverify.kinds import NETWORK, OPTIONS, expected
from qverify.layers import Conv, Dense
from qverify.network import Network
from qverify.verification.arguments import usable_device
from qverify.verification.threads import in_threads
from qverify.verification.verdict import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.family.radii import Radii

T = TypeVar("T")

_CHUNK = 4096
"""Samples in a chunk at most: what is left of them shares the passes of the later stages."""
_COPIES, _PASSES = 16, 1
"""Tensors of the size of all layers that one sample of a chunk takes, and forward passes that a piece counts for: those
of IBP are about four times as many, and nothing else goes over a whole chunk at once."""
_TEMPORARY = 0.35
"""Share of the memory that temporary tensors of one piece of work take; programs and solvers have the rest."""
_PROGRAMS = 0.6
"""Share of the memory that the programs of all samples under way take together, solvers included."""
_HOST = 64 << 20
"""Bytes that the process of a solver takes before it has a program (measured: 47 MiB)."""


class Setup:
    """The quantised family of a network under given options, ready to compute with.

    `family`: radii as arrays; `model`: the same as tensors on `options.device`; `maps`: its layers as matrices;
    `memory`: bytes for arrays, programs and solvers; `stop`: once set, work ends soon. Raises RadiiError where radii
    do not fit the network, UsageError for a device or a memory that cannot be used.
    """

    def __init__(self, network: Network, radii: Radii, options: Options, stop: threading.Event | None = None):
        expected(options, Options, "options", OPTIONS)
        expected(network, Network, "The network", NETWORK)
        self.network, self.options = network, options
        self.memory = working_memory(options.memory, _held(network))
        self.family = Family.of(network, radii, options.clip)
        self.model = BoundModel.of(self.family, usable_device(options.device), int(_TEMPORARY * self.memory))
        self.stop = stop or threading.Event()
        self.maps = Maps(self.family)

    @property
    def chunk(self) -> int:
        """Samples worked on together, at least 1: few enough for the memory."""
        return min(_CHUNK, self.model.rows_that_fit(_COPIES, sum(layer.size for layer in self.network.layers), _PASSES))

    def deadline(self, seconds: float | None) -> Deadline:
        """A deadline in so many seconds, None for none; it passes as well once `stop` is set."""
        return Deadline.after(seconds, self.stop)

    def intervals(self, x: Array, deadline: Deadline | None = None) -> Bounds:
        """IBP on every layer for samples x (N, n_in). Sound. Raises OutOfTime, RadiiError, DataError."""
        low, high = self.family.box(x)
        return interval_bounds(self.model, self.model.tensor(low), self.model.tensor(high), deadline)

    def centre(self, x: Array) -> Array:
        """The outputs (N, n_out) of the member without errors on each of the samples x (N, n_in)."""
        return self.family.network.evaluate(self.family.centre(x))

    def own_family(self, bounds: Bounds, position: int) -> Family:
        """The family of the sample at `position` of `bounds`: its own activation radii where the scheme clips."""
        if not self.family.per_sample:
            return self.family
        return self.family.with_activation(bounds.sample(position).activation)

    @property
    def program_memory(self) -> int:
        """Bytes for the program of one sample, while `options.workers` samples are asked at once."""
        return program_memory(self.options, self.memory)

    def solver_process(self) -> contextlib.AbstractContextManager[Lent | None]:
        """See the function of this name."""
        return solver_process(self.options, self.memory)

    def in_threads(self, work: Callable[[int], T | None], count: int, tell: Callable[[T], None]) -> None:
        """See `threads.in_threads`."""
        in_threads(self.options, self.stop, work, count, tell)


def program_memory(options: Options, memory: int) -> int:
    """Bytes for the program of one sample, of the `memory` for all at once."""
    return max(_HOST // 4, int(_PROGRAMS * memory / options.workers) - (_HOST if options.isolated else 0))


def solver_process(options: Options, memory: int) -> contextlib.AbstractContextManager[Lent | None]:
    """The process that the solver of one sample works in, with its share of the `memory`; None, for this process,
    unless the options isolate solvers."""
    return borrowed(program_memory(options, memory)) if options.isolated else contextlib.nullcontext()


def _held(network: Network) -> int:
    """Bytes that a family and its bounds take for as long as they live, and while they are made (measured)."""
    sizes = [layer.weight.size for layer in network.layers if isinstance(layer, (Dense, Conv))]
    return 40 * sum(sizes) + 32 * max(sizes, default=0)
