"""Ranges of activations on calibration data: smallest and largest values, or what calibrators of onnxruntime make.

`minmax` takes every value in; `percentile` leaves out the largest (0.001 % of the absolute values), `entropy` takes the
range that keeps most of the distribution (Kullback-Leibler): the calibrators themselves, with their defaults, run on
the network as ONNX, so that ranges are those of files that they quantise. All are widened to contain 0.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qverify.errors import DataError, RadiiError
from qverify.forward_pass import forward
from qverify.onnx import save

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qverify.arrays import Array
    from qverify.layers import BatchNorm, Layer
    from qverify.network import Network

_CHUNK = 1024
_AT_ONCE = 256
"""Samples whose activations a calibrator holds at once."""
_CALIBRATORS = {"percentile": "Percentile", "entropy": "Entropy"}
Range = tuple[float, float]


class Ranges(NamedTuple):
    """Smallest and largest values on calibration data, widened to contain 0: of the output of each layer, and, by name,
    of the layers that a BatchNormalization was folded into, as they were before."""

    outputs: list[Range]
    before: dict[str, Range]


def calibrate(network: Network, x: Any, norms: Iterable[BatchNorm] = (), method: str = "minmax") -> Ranges:
    """The ranges of all layers on the samples `x` (N, ...) by a method of `choices.RANGES`, and of the layers that
    `norms` were folded into, as they were before.

    Raises RadiiError for data that do not fit, or whose activations are not finite.
    """
    ranges: list[Range] = [(0.0, 0.0)] * len(network.layers)
    before: dict[str, Range] = {}
    unfolded: dict[str, Any] = {norm.layer: norm.before for norm in norms if norm.before is not None}
    for values in _batches(network, x):
        for i, value in enumerate(values):
            ranges[i] = _widened(ranges[i], value)
            if (own := unfolded.get(network.layers[i].name)) is not None:
                value = forward(own, [values[j] for j in own.inputs])
                before[own.name] = _widened(before.get(own.name, (0.0, 0.0)), value)
    if method in _CALIBRATORS:
        flat, kind = network.flat(x), _CALIBRATORS[method]
        ranges = _by_calibrator(network, flat, kind)
        before = {name: _by_calibrator(_until(network, own), flat, kind)[-1] for name, own in unfolded.items()}
    return Ranges(ranges, before)


def _until(network: Network, last: Layer) -> Network:
    """The part of a network that a layer reads, with the layer behind it as the output."""
    needed, waiting = {0}, [*last.inputs]
    while waiting:
        index = waiting.pop()
        needed.add(index)
        waiting += network.layers[index].inputs
    kept = sorted(needed)
    place = {index: at for at, index in enumerate(kept)}

    def moved(layer: Layer) -> Layer:
        return replace(layer, inputs=tuple(place[i] for i in layer.inputs))

    layers = (*(moved(network.layers[i]) for i in kept), moved(last))
    return replace(network, layers=layers, batchnorms=(), added_biases=(), oddities=())


def _widened(ends: Range, values: Array) -> Range:
    if not np.isfinite(values).all():  # here, because min and max of Python pass over NaN
        raise RadiiError("The calibration data give NaN or infinite activations; check model and data.")
    return min(ends[0], float(values.min())), max(ends[1], float(values.max()))


def _batches(network: Network, x: Any) -> Iterator[list[Array]]:
    try:
        flat = network.flat(x)
    except DataError:
        wanted = ", ".join(map(str, network.input_shape))
        raise RadiiError(
            f"The calibration data do not fit the network; give an array of shape (N, {wanted})."
        ) from None
    if not len(flat):
        raise RadiiError("The calibration data are empty; give at least one sample.")
    step = min(_CHUNK, network.samples_at_once)
    for start in range(0, len(flat), step):
        yield network.evaluate_all(flat[start : start + step])


def _by_calibrator(network: Network, x: Array, kind: str) -> list[Range]:
    """The ranges that a calibrator of onnxruntime takes."""
    from onnxruntime.quantization import calibrate as calibrators  # takes a second to import

    named = [replace(layer, name=f"t{i}") for i, layer in enumerate(network.layers)]
    names = ["input", *(layer.name for layer in named[1:-1]), "output"]
    plain = replace(network, layers=tuple(named), batchnorms=(), added_biases=(), oddities=())
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = str(Path(folder) / "model.onnx")
        save(plain.with_one_input(), path)
        calibrator = calibrators.create_calibrator(
            path,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=getattr(calibrators.CalibrationMethod, kind),
        )
        for start in range(0, len(x), _AT_ONCE):
            some = x[start : start + _AT_ONCE].astype(np.float32).reshape(-1, *(network.input_shape or (1,)))
            calibrator.collect_data(_Fed(iter([{"input": one[None]} for one in some])))
        found = calibrator.compute_data()
    ends = [found[name].range_value for name in names]
    return [(min(0.0, float(low)), max(0.0, float(high))) for low, high in ends]


class _Fed:
    """Samples as calibrators take them."""

    def __init__(self, batches: Iterator[dict[str, Any]]):
        self._batches = batches

    def get_next(self) -> dict[str, Any] | None:
        """The next one; None at the end."""
        return next(self._batches, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what calibrators log and print on stdout, which is for results."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
