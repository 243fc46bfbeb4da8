"""A plan: models x data x radii x methods as TOML, and what it asks for one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from qverify import datasets
from qverify.choices import (
    ACTIVATIONS,
    BATCHNORMS,
    FORMULATIONS,
    INPUTS,
    KERNELS,
    POINTS,
    RANGED,
    RANGES,
    SOLVER_CHOICES,
    VERIFY_METHODS,
    Rounding,
    Scheme,
)
from qverify.errors import UsageError
from qverify.family.widths import widths
from qverify.files.toml import read_toml
from qverify.runs.given import RANGED_ONLY
from qverify.runs.quantiser_words import QuantiserWords
from qverify.text.escapes import shown


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One case of a plan: one model, one data set, one family, one method. Either `bits` or `radii` is None."""

    model: str
    data: str
    method: str
    bits: int | str | None = None
    scheme: str | None = None
    rounding: str | None = None
    radii: str | None = None

    @property
    def name(self) -> str:
        """For people; two entries may share it."""
        family = Path(self.radii).stem if self.radii else f"{self.bits}bit-{self.scheme}-{self.rounding}"
        return f"{Path(self.model).stem}-{Path(self.data).stem}-{family}-{self.method}"


@dataclass(frozen=True, kw_only=True)
class Plan(QuantiserWords):
    """A plan as its file states it, under the names it has there; paths hold from the current directory."""

    models: tuple[str, ...]
    data: tuple[str, ...]
    bits: tuple[int | str, ...] = ()
    radii: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ("paper",)
    roundings: tuple[str, ...] = ("any",)
    methods: tuple[str, ...] = ("auto",)
    samples: str | None = None
    input_scale: float | None = None
    timeout: float = 300.0
    clip_input: tuple[float, float] | None = None
    formulation: str = "relational"
    solver: str = "auto"
    out: str | None = None

    @staticmethod
    def read(path: str) -> Plan:
        """From a TOML file, whose paths are relative to it. Raises UsageError; whether files exist shows later."""
        stated = read_toml(path, "plan", UsageError)
        known = {field.name.replace("_", "-") for field in fields(Plan)}
        if unknown := sorted(set(stated) - known):
            keys = ", ".join(sorted(known))
            raise UsageError(f"{path} has the unknown key {shown(unknown[0])}; the keys are {keys}.")
        for key in ("models", "data"):
            if key not in stated:
                raise UsageError(f"{path} names no {key}; add {key} = [...].")
        values = {key.replace("-", "_"): _READERS[key](f"{key} in {path}", value) for key, value in stated.items()}
        plan, folder = Plan(**values), Path(path).parent
        if not plan.bits and not plan.radii:
            raise UsageError(f'{path} states no radii; add bits = [8] or radii = ["FILE.toml"].')
        if not plan.bits and ("schemes" in stated or "roundings" in stated):
            raise UsageError(f"schemes and roundings in {path} say what bits means; give bits too.")
        more = [key for key in RANGED_ONLY if getattr(plan, key) is not None]
        if more and not (plan.bits and set(plan.schemes) & set(RANGED)):
            key = more[0].replace("_", "-")
            raise UsageError(f"{key} in {path} says more of schemes tensor and channel; name one of these.")
        return plan._beside(folder)

    def _beside(self, folder: Path) -> Plan:
        """The plan with its paths taken from `folder`."""

        def moved(paths: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(str(folder / path) for path in paths)

        values = {field.name: getattr(self, field.name) for field in fields(Plan)}
        values |= {"models": moved(self.models), "radii": moved(self.radii)}
        values["data"] = tuple(name if name in datasets.NAMES else str(folder / name) for name in self.data)
        values["out"] = None if self.out is None else str(folder / self.out)
        return Plan(**values)

    def entries(self) -> list[Entry]:
        """The product, models outermost."""
        families: list[dict[str, Any]] = [
            {"bits": bits, "scheme": scheme, "rounding": rounding}
            for bits, scheme, rounding in itertools.product(self.bits, self.schemes, self.roundings)
        ]
        families += [{"radii": path} for path in self.radii]
        product = itertools.product(self.models, self.data, families, self.methods)
        return [Entry(model=model, data=data, method=method, **family) for model, data, family, method in product]


# -- reading values -------------------------------------------------------------------------------

Reader = Callable[[str, Any], Any]


def _many(one: Reader) -> Reader:
    """A list of distinct values, not empty; a single value stands for a list of it."""

    def read(where: str, value: Any) -> tuple[Any, ...]:
        values = tuple(one(where, each) for each in (value if isinstance(value, list) else [value]))
        if not values:
            raise UsageError(f"{where} is empty, so there is nothing to verify; name at least one, or leave it out.")
        for each in values:
            if values.count(each) > 1:
                raise UsageError(f"{where} has {shown(each)} more than once; give each once.")
        return values

    return read


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{where} is {shown(value)}; write text in quotes.")
    return value


def _word(allowed: tuple[str, ...]) -> Reader:
    def read(where: str, value: Any) -> str:
        if value not in allowed:
            raise UsageError(f"{where} has {shown(value)}; choose from: {', '.join(allowed)}.")
        return str(value)

    return read


def _bits(where: str, value: Any) -> int | str:
    if isinstance(value, str):
        widths(value)
        return value
    return _whole(where, value)


def _whole(where: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{where} has {shown(value)}; write whole numbers.")
    return value


def _number(where: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise UsageError(f"{where} is {shown(value)}; write a number.")
    return float(value)


def _samples(where: str, value: Any) -> str:
    """`A:B` as text, or the number of the first samples."""
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        raise UsageError(f'{where} is {value!r}; write "A:B" in quotes, or the number of the first samples.')
    return str(value)


def _factor(where: str, value: Any) -> float:
    factor = _number(where, value)
    if not 0 < factor < math.inf:
        raise UsageError(f"{where} is {shown(value)}; write a number above 0.")
    return factor


def _interval(where: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise UsageError(f"{where} is {shown(value)}; write two numbers, for pixels [0, 1].")
    return _number(where, value[0]), _number(where, value[1])


_READERS: dict[str, Reader] = {
    "models": _many(_text),
    "data": _many(_text),
    "bits": _many(_bits),
    "radii": _many(_text),
    "schemes": _many(_word(get_args(Scheme))),
    "roundings": _many(_word(get_args(Rounding))),
    "methods": _many(_word(VERIFY_METHODS)),
    "samples": _samples,
    "input-scale": _factor,
    "timeout": _number,
    "clip-input": _interval,
    "formulation": _word(FORMULATIONS),
    "solver": _word(SOLVER_CHOICES),
    "kernel": _word(KERNELS),
    "batchnorm": _word(BATCHNORMS),
    **dict.fromkeys(("weight-bits", "activation-bits", "input-bits", "bias-bits"), _whole),
    "points": _word(POINTS),
    "input": _word(INPUTS),
    "activations": _word(ACTIVATIONS),
    "ranges": _word(RANGES),
    "calibration": _text,
    "out": _text,
}
