"""What engineers look at first: tensor by tensor how far an integer file, rounded to the nearest, is from the network.

Sums over samples, gathered chunk by chunk; float64, no bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.layers import Input, Rounding
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.datasets.samples import Labels
    from qverify.replication.matching import Match


@dataclass(eq=False, repr=False, kw_only=True)
class TensorError(Brief):
    """The error of one tensor of the file as the next layer reads it, `name`, against that of layer `trained`.

    `largest` |difference|, sums of squares of the float values and of the differences; of a rounding point also how
    many of `values` sit at the ends of its range. At an end that is 0 nothing is lost behind a Relu, so it does not
    count.
    """

    name: str
    trained: str
    largest: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    values: int = 0
    at_low: int | None = None
    at_high: int | None = None

    @property
    def snr_db(self) -> float | None:
        """The ratio of signal to noise in dB; None where one of them is 0."""
        return 10.0 * float(np.log10(self.signal / self.noise)) if self.signal > 0 and self.noise > 0 else None

    def add(self, trained: Array, found: Array, point: Rounding | None) -> None:
        """Count the values (N, size) of some samples."""
        error = found - trained
        self.largest = max(self.largest, float(abs(error).max(initial=0.0)))
        self.signal += float((trained**2).sum())
        self.noise += float((error**2).sum())
        self.values += found.size
        if point is not None:
            if point.low.any():
                self.at_low = (self.at_low or 0) + int(((found <= point.low) & (point.low < 0)).sum())
            self.at_high = (self.at_high or 0) + int(((found >= point.high) & (point.high > 0)).sum())

    def to_json(self) -> dict[str, Any]:
        """The object of a tensor (formats.md, section 12.9)."""
        found: dict[str, Any] = {"name": self.name, "float": self.trained, "snr_db": self.snr_db}
        found |= {"largest": self.largest, "values": self.values}
        return found | {"at_low": self.at_low, "at_high": self.at_high}


@dataclass(eq=False, repr=False, kw_only=True)
class Errors(Brief):
    """The errors of all matched tensors over some samples, and what both networks say of these.

    `classes`: whether outputs are classes, so that counts mean something.
    """

    tensors: list[TensorError]
    samples: int = 0
    agree: int = 0
    right: int = 0
    right_file: int = 0
    classes: bool = True

    def to_json(self) -> dict[str, Any]:
        """Counts of the comparison (formats.md, section 12.9); None where outputs are no classes."""
        counts = {"float_right": self.right, "file_right": self.right_file, "same_class": self.agree}
        return {name: count if self.classes else None for name, count in counts.items()}


def errors(match: Match, x: Array, labels: Labels, classes: bool) -> Errors:
    """The errors on samples x (N, n_in) with labels (N,), which count only where outputs are `classes`."""
    trained, file = match.trained, match.file
    read = [
        j
        for j, layer in enumerate(file.layers)
        if not isinstance(layer, Input)
        and (not file.consumers[j] or any(not isinstance(file.layers[k], Rounding) for k in file.consumers[j]))
    ]
    found = Errors(
        tensors=[TensorError(name=file.layers[j].name, trained=trained.layers[match.layers[j]].name) for j in read],
        classes=classes,
    )
    step = min(trained.samples_at_once, file.samples_at_once)
    for start in range(0, len(x), step):
        some = slice(start, start + step)
        first, second = trained.evaluate_all(x[some]), file.evaluate_all(x[some])
        for tensor, j in zip(found.tensors, read, strict=True):
            layer = file.layers[j]
            tensor.add(first[match.layers[j]], second[j], layer if isinstance(layer, Rounding) else None)
        one, other = first[-1].argmax(axis=1), second[-1].argmax(axis=1)
        found.samples += len(one)
        found.agree += int((one == other).sum())
        found.right += int((one == labels[some]).sum())
        found.right_file += int((other == labels[some]).sum())
    return found
