"""Ranges of activations as an integer file has them: what `--calibration FILE` takes instead of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qverify.errors import RadiiError
from qverify.family.ranges import Range, Ranges
from qverify.layers import Conv, Dense, Relu, Rounding
from qverify.replication.matching import match
from qverify.text.shortened import quoted

if TYPE_CHECKING:
    from qverify.family.steps import Quantiser
    from qverify.network import Network


def ranges_of_file(trained: Network, file: Network, quantiser: Quantiser) -> Ranges:
    """The ranges of all layers of a float network, each as wide as the grid of its rounding point in the file.

    Raises ModelError for a file of another network, and RadiiError where it rounds to another number of steps than the
    quantiser, or does not round what a weighted layer reads.
    """
    found = match(trained, file)
    if found.trained is not trained:
        raise RadiiError(
            f"{file.source} keeps a BatchNormalization apart that the network has folded; give samples for"
            " --calibration."
        )
    ranges: dict[int, Range] = {}
    for j, i in enumerate(found.layers):
        layer = found.file.layers[j]
        if isinstance(layer, Rounding):
            own = quantiser.at_input() if i in trained.entries else quantiser
            low, high, step = float(layer.low.min()), float(layer.high.max()), float(layer.step.max())
            if abs((high - low) / step - own.levels) > 1.0:
                raise RadiiError(
                    f"{file.source} has {(high - low) / step + 1:.0f} values at {quoted(layer.name)}, the quantiser"
                    f" {own.levels + 1:.0f}; state the bits of the file."
                )
            symmetric = quantiser.activations == "symmetric"  # whose lower end is one step further, or not there
            ranges[i] = (-high, high) if symmetric else (low, high)
    for i in trained.weighted:
        layer = trained.layers[i]
        assert isinstance(layer, (Dense, Conv))
        if (source := trained.grid_of(layer.inputs[0])) not in ranges:
            name = quoted(trained.layers[source].name)
            raise RadiiError(f"{file.source} does not round what {name} gives; give samples for --calibration.")
    # What only a Relu reads is rounded behind it.
    outputs = [
        ranges.get(i, ranges.get(trained.grid_of(i), _behind(trained, i, ranges))) for i in range(len(trained.layers))
    ]
    return Ranges(outputs, {})


def _behind(trained: Network, index: int, ranges: dict[int, Range]) -> Range:
    relus = [i for i in trained.consumers[index] if isinstance(trained.layers[i], Relu)]
    return ranges.get(relus[0], (0.0, 0.0)) if relus else (0.0, 0.0)
