"""What a property is asked about: samples, or boxes of inputs, with labels, targets, or neither."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.datasets.formats import read_arrays
from qverify.datasets.samples import NAMES, Samples, class_numbers, load, real_numbers, scaled
from qverify.errors import DataError
from qverify.files.user import shown_path
from qverify.kinds import path_like
from qverify.text.shortened import shortened

if TYPE_CHECKING:
    from qverify.arrays import Array

_GROUPS = (("low", "high"), ("x_test",), ("x",))
_ABOUT = {"x_test": "y_test"}
"""The array of labels or targets, where that is not y."""


@dataclass(frozen=True, eq=False, repr=False)
class Regions(Samples):
    """N samples, or boxes `lower <= x <= upper` (N, *shape) whose middles are x; of samples both are None.

    `labelled`: y are labels; else y is 0 throughout and means nothing. `targets` (N, count) are what the data have for
    outputs, None where they have nothing; labels are targets too.
    """

    lower: Array | None = None
    upper: Array | None = None
    labelled: bool = True
    targets: Array | None = None

    @property
    def ends(self) -> tuple[Array, Array]:
        """The ends (N, *shape) of every box; of samples, the samples themselves."""
        return (self.x, self.x) if self.lower is None or self.upper is None else (self.lower, self.upper)


def load_regions(name_or_path: str | os.PathLike[str], factor: float | None = None) -> Regions:
    """The samples or boxes of a data set of `NAMES` or an .npz, inputs times `factor`.

    The .npz holds x_test or x, samples as `datasets.load` reads them, or low and high, the ends of boxes; and if there
    are labels (N,) whole numbers, or targets (N,) or (N, count), y_test or y. Raises DataError, UsageError.
    """
    path_like(name_or_path, "The data set", "a name, or the path of an .npz file", DataError)
    if os.fspath(name_or_path) in NAMES or not Path(name_or_path).exists():
        found = scaled(load(name_or_path), factor)
        return Regions(
            found.name, found.x, found.y, found.sha256, found.source, targets=found.y[:, None].astype(np.float64)
        )
    path = Path(name_or_path)
    arrays, sha256 = read_arrays(path, _GROUPS, ("y", "y_test"))
    first, shown = next(iter(arrays)), shown_path(path)
    about = _ABOUT.get(first, "y")
    given = {key: arrays[key] for key in arrays if key not in ("y", "y_test")}
    ends = [real_numbers(f"{key} of {shown}", array, 255) for key, array in given.items()]
    y = arrays.get(about)
    return _regions((shortened(path.stem), sha256, str(path)), ends, (f"{about} of {shown}", y), factor)


def regions_of(name: str, ends: list[Array], y: Any, sha256: str = "", source: str = "memory") -> Regions:
    """Regions of arrays: samples [x], or boxes [lower, upper], each (N, *shape); y as in `load_regions`, or None.

    Raises DataError.
    """
    arrays = [real_numbers(f"{name}, the inputs,", np.asarray(end, dtype=np.float64), 1) for end in ends]
    return _regions((name, sha256, source), arrays, (f"{name}, y,", y if y is None else np.asarray(y)), None)


def _regions(named: tuple[str, str, str], ends: list[Array], about: tuple[str, Any], factor: float | None) -> Regions:
    name, sha256, source = named
    x, y = ends[0], np.zeros(len(ends[0]), dtype=np.int64)
    lower = upper = None
    if len(ends) == 2:
        lower, upper = ends
        if lower.shape != upper.shape:
            raise DataError(f"{name}: the ends of boxes have shapes {lower.shape} and {upper.shape}; give equal ones.")
        if (lower > upper).any():
            at = int(np.argwhere(lower > upper)[0][0])
            raise DataError(f"{name}: box {at} has a lower end above its upper one; swap them.")
        x = lower + (upper - lower) / 2.0
    targets, labelled = _about(*about, len(x))
    if labelled:
        y = class_numbers(about[0], about[1])
    found = scaled(Samples(name, x, y, sha256, source), factor)
    if lower is not None and upper is not None and factor is not None:
        lower, upper = lower * factor, upper * factor
    return Regions(name, found.x, y, sha256, source, lower, upper, labelled, targets)


def _about(what: str, y: Any, count: int) -> tuple[Array | None, bool]:
    """The targets (N, k), None if there are none, and whether they are labels: whole numbers from 0, one a sample."""
    if y is None:
        return None, False
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "uif" or y.ndim not in (1, 2) or not y.size:
        raise DataError(f"{what} is no array of labels (N,) or of numbers (N, outputs); store one of these.")
    if len(y) != count:
        raise DataError(f"{what} has {len(y)} entries for {count} inputs; store one for each.")
    targets = y.reshape(count, -1).astype(np.float64)
    if not np.isfinite(targets).all():
        raise DataError(f"{what} holds NaN or infinite values; repair the data.")
    return targets, bool(y.dtype.kind in "ui" and targets.shape[1] == 1 and (targets >= 0).all())


def selected(regions: Regions, indices: range) -> Regions:
    """Those at some indices."""
    some = slice(indices.start, indices.stop)
    parts = {
        key: None if (array := getattr(regions, key)) is None else array[some]
        for key in ("x", "y", "lower", "upper", "targets")
    }
    return replace(regions, **parts)  # type: ignore[arg-type]
