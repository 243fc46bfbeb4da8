"""Remarks on a network, samples and radii that a person should see before believing a result: a sentence each.

None of them changes a verdict. The command line prints them as notes, the library warns with `QVerifyWarning`.
"""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING

import numpy as np

from qverify.choices import POINTS, RANGED
from qverify.datasets import Samples
from qverify.datasets.units import doubts
from qverify.errors import RadiiError
from qverify.family.kernels import SEVEN_BITS, dropped
from qverify.family.radii import Radii
from qverify.family.schemes import rounded_places
from qverify.kinds import RADII, expected
from qverify.layers import Conv, Dense
from qverify.moved import former_names
from qverify.remarks import remark
from qverify.text.shortened import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.arrays import Array
    from qverify.datasets.samples import Labels
    from qverify.family.steps import Quantiser
    from qverify.network import Network

__getattr__ = former_names(__name__, {"names": "qverify.verification.hints:listed_names"})

_ROUNDS_THERE = " --points onnxruntime or tflite rounds there too."
_SHOWN = 6
"""Names listed at most."""


def of_family(network: Network, radii: Radii, x: Array | None) -> list[str]:
    """Remarks on features of this network, or of samples x (N, ...), beyond the quantisers that the radii stand for."""
    quantiser, said = radii.quantiser, _smooth(network)
    if quantiser is None:
        return said
    if quantiser.scheme in RANGED:
        return [*said, *_not_rounded(network, quantiser), *_on_grid(radii, x), *_kernels(radii)]
    return said + _beyond_unit(network, x)


def remark_on(network: Network, radii: Radii | None, x: Array, y: Labels | None = None) -> None:
    """Warn with the remarks on samples x (N, n_in), their labels y and, unless None, the radii. Raises RadiiError."""
    expected(radii, (Radii, NoneType), "radii", RADII, RadiiError)
    said = [] if radii is None else of_family(network, radii, x)
    if y is not None:
        said += doubts(network, Samples("the data", x.reshape(-1, *network.input_shape), y, "", "memory"))
    remark(said)


def listed_names(found: Sequence[str]) -> str:
    """Names in quotes, joined by commas; the first few of many."""
    return listed([repr(name) for name in found], _SHOWN)


def _beyond_unit(network: Network, x: Array | None) -> list[str]:
    layers = [network.layers[i] for i in network.weighted]
    reach = max((float(np.abs(la.weight).max()) for la in layers if isinstance(la, (Dense, Conv))), default=0.0)
    beyond = []
    if reach > 1.0:
        beyond.append(f"weights reach {reach:.3g}")
    if x is not None and (x.min() < 0.0 or x.max() > 1.0):
        beyond.append(f"inputs go from {x.min():.3g} to {x.max():.3g}")
    if not beyond:
        return []
    return [
        f"{' and '.join(beyond)}, but scheme paper takes the step of quantisers for weights in [-1, 1]"
        " and inputs in [0, 1]; --scheme tensor or channel takes it from the ranges themselves."
    ]


def _smooth(network: Network) -> list[str]:
    """Activations that exact programs cannot have."""
    found = [network.layers[i].name for i in network.smooth]
    return (
        [f"{listed_names(found)} are smooth: bounds and attack alone decide samples, no exact step."] if found else []
    )


def _not_rounded(network: Network, quantiser: Quantiser) -> list[str]:
    """Places of this network where toolchains round and the family does not."""
    said, scheme = [], quantiser.scheme
    if network.added_biases:
        said.append(
            f"a node of its own adds the bias of {listed_names(network.added_biases)}; scheme {scheme} takes biases"
            " as int32, but toolchains may round these to the bits of an activation. As a Gemm a layer has its bias"
            " inside."
        )
    covered = set(rounded_places(network, quantiser.points))
    places = [network.layers[i].name for i in rounded_places(network, POINTS[-1]) if i not in covered]
    if places:
        said.append(
            f"scheme {scheme} does not round what {listed_names(places)} give, where integer toolchains do;"
            + _ROUNDS_THERE
        )
    return said


def _on_grid(radii: Radii, x: Array | None) -> list[str]:
    """Whether samples lie on the grid of the input already, so that rounding moves nothing."""
    entries = [point for point in radii.points.values() if point.entry]
    entry = entries[0] if len(entries) == 1 else None  # one step for all samples
    if entry is None or x is None or radii.quantiser is None:
        return []
    step = (entry.high[1] - entry.low[0]) / radii.quantiser.at_input().levels
    whole = x / step
    if step > 0 and (np.abs(whole - np.rint(whole)) < 1e-3).all() and len(np.unique(x[:1])) > 2:
        return ["the samples lie on the grid of the input already, which rounding leaves alone; --input exact says so."]
    return []


def _kernels(radii: Radii) -> list[str]:
    if radii.kernel is None:
        return []
    said = [f"no sample can be verified for integer kernels: {reason}." for reason in radii.kernel.refused]
    said += [f"few samples can be verified: {reason}." for reason in dropped(list(radii.kernel.dead))]
    if radii.kernel.mode != "any" and (found := radii.kernel.saturating()):
        said.append(
            f"pairs of products of {listed_names(found)} may leave int16, so kernels that add pairs in saturating int16"
            " (uint8 x int8 on processors without dot-product instructions) are not covered; --kernel any asks for"
            f" them too, and {SEVEN_BITS}."
        )
    return said
