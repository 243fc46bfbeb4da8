"""The starts of a run: when each worked on it, with which solver, on what (formats.md, section 1.2)."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from qverify.choices import VERIFY_METHODS
from qverify.exact import solvers
from qverify.files.strict_json import Fits, faults, mapping, optional, positive, text, whole, word
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qverify.verification.verdict import Options


@dataclass(frozen=True)
class SolverUsed:
    """The solver of the exact step."""

    name: str
    version: str
    licence: str | None = None

    @staticmethod
    def of(options: Options) -> SolverUsed | None:
        """The solver that the exact step will use; None if the method has no such step.

        Asked before the work begins: a licence that is missing should not show after an hour. Raises SolverError.
        """
        if options.method not in ("auto", "exact"):
            return None
        solver = solvers.choose(options.solver, options.formulation == "bilinear")
        state = solver.availability()
        return SolverUsed(solver.name, state.version, state.licence)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def to_json(self) -> dict[str, str]:
        """The object under `solver`."""
        found = {"name": self.name, "version": self.version}
        return found if self.licence is None else found | {"licence": self.licence}


@dataclass(frozen=True)
class LayersAsked:
    """A search layer by layer, of a start of radius: the share of samples and the method, None if there is none."""

    accuracy: float | None
    layer_method: str | None


@dataclass(frozen=True, kw_only=True, repr=False)
class Start(Brief):
    """A start of a run: when, with which solver and where it worked.

    `jobs` and `device`, or `cluster`, say where; `layers` is of radius. They are None, and not kept, where a kind of
    run has no such thing; `solver` is None, and kept as null, if the method has none.
    """

    started: str | None = None
    solver: SolverUsed | None = None
    jobs: int | None = None
    device: str | None = None
    cluster: str | None = None
    layers: LayersAsked | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """Keys that this version, or this kind of run, does not know."""

    @staticmethod
    def now() -> str:
        """The time, in UTC."""
        return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

    def to_json(self) -> dict[str, Any]:
        """The object under `runs`."""
        own = {name: getattr(self, name) for name in _PLAIN} | {"solver": self.solver and self.solver.to_json()}
        found = {name: value for name, value in own.items() if value is not None or name == "solver"}
        return found | (asdict(self.layers) if self.layers else {}) | dict(self.more)

    @staticmethod
    def from_json(start: Any) -> Start:
        """The start that an object describes. Raises ValueError, which says in a few words what is wrong."""
        if not is_start(start):
            raise ValueError("a start is senseless")
        own = {name: start[name] for name in _PLAIN if name in start}
        if (solver := own.get("solver")) is not None:
            own["solver"] = SolverUsed(solver["name"], solver["version"], solver.get("licence"))
        if start.keys() >= _LAYERS:
            own["layers"] = LayersAsked(**{name: start[name] for name in _LAYERS})
        known = {*_PLAIN, *(_LAYERS if "layers" in own else ())}
        return Start(**own, more={name: value for name, value in start.items() if name not in known})


_PLAIN = ("started", "solver", "jobs", "device", "cluster")
_LAYERS = {one.name for one in fields(LayersAsked)}


def used_solvers(starts: Iterable[Start]) -> list[str]:
    """The solvers of all starts with their versions, each once."""
    return list(dict.fromkeys(str(start.solver) for start in starts if start.solver is not None))


# -- what may stand in an object ------------------------------------------------------------------

_SOLVER: dict[str, Fits] = {"name": text, "version": text}
_START: dict[str, Fits] = {
    "started": text,
    "solver": optional(lambda value: mapping(text)(value) and not faults(value, _SOLVER, _SOLVER)),
    "jobs": whole,
    "device": text,
    "cluster": text,
    "accuracy": optional(positive),
    "layer_method": optional(word(*VERIFY_METHODS)),
}


def is_start(value: Any) -> bool:
    """Whether a value may stand for a start."""
    return isinstance(value, dict) and not faults(value, _START)
