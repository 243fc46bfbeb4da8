"""Layer by layer: the largest radius at which an accuracy is guaranteed while every other layer is exact.

A *layer* here is what one radius of a radii file is about: the input, the weights of an affine layer with its biases,
or the activations of a Relu. The factors are those of `grid.Grid`, and as there nothing is interpolated: the factor
of a row is one at which all samples were verified afresh, and enough of them were.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qverify.analysis.grid import Grid
from qverify.choices import FACTOR_METHODS
from qverify.errors import DataError, UsageError
from qverify.family.family import Family
from qverify.family.placing import BEHIND
from qverify.family.radii import Radii
from qverify.kinds import OPTIONS, described, expected, is_number
from qverify.network import Network, margins
from qverify.text.brief import Brief
from qverify.verification import hints
from qverify.verification.arguments import checked
from qverify.verification.cascade import verdicts
from qverify.verification.verdict import Options, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qverify.family.points import Point


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer, in the order of the columns of layers.csv.

    `kind`: input, weight (with the biases) or activation. `factor`: the largest on the grid at which at least the
    share `accuracy` of the samples was proved by `method`; None if not even 0 was. `reached`: that share. `radius`,
    `bias_radius`: the layer's own radii at that factor, in units of the tensor, the largest entry where they are not
    uniform; None where there is none. `at_end`: the factor is the largest of the grid, so more may hold.
    """

    layer: str
    kind: str
    accuracy: float
    method: str
    factor: float | None
    radius: float | None
    bias_radius: float | None
    reached: float | None
    at_end: bool
    samples: int
    seconds: float

    @property
    def key(self) -> tuple[str, str, float, str]:
        """The identity of a row among those of one directory."""
        return (self.layer, self.kind, self.accuracy, self.method)

    def as_dict(self) -> dict[str, Any]:
        """The columns by name."""
        return asdict(self)

    def faults(self) -> list[str]:
        """The columns whose values cannot be, or contradict the others."""
        found = self.factor is not None
        holds = {
            "layer": bool(self.layer),
            "kind": self.kind in ("input", "weight", "activation"),
            "accuracy": 0 < self.accuracy <= 1,
            "method": self.method in FACTOR_METHODS,
            "factor": self.factor is None or self.factor >= 0,
            "radius": self.radius >= 0 and found if self.radius is not None else not found,
            "bias_radius": self.bias_radius is None or (found and self.kind == "weight" and self.bias_radius >= 0),
            "reached": self.accuracy <= self.reached <= 1 if self.reached is not None else not found,
            "at_end": found or not self.at_end,
            "samples": self.samples > 0,
            "seconds": self.seconds >= 0,
        }
        return [name for name, held in holds.items() if not held]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LayerRadii(Brief):
    """The radii of one layer, all others 0. `largest`: those of the layer, and of its biases if it has any."""

    layer: str
    kind: str
    radii: Radii
    largest: float
    bias_largest: float | None


def single_layers(network: Network, radii: Radii) -> list[LayerRadii]:
    """`radii` taken apart, in the order of the network; layers whose radii are 0 are left out.

    Where the scheme clips, the range stays with the layer it belongs to. Raises RadiiError.
    """
    family = Family.of(network, radii)
    given = network.layers[0].name
    entry = Radii(family.input.reshape(network.input_shape), points=_only(radii, given))
    found = [
        LayerRadii(
            layer=given,
            kind="input",
            radii=entry,
            largest=float(family.input_radius.max()),
            bias_largest=None,
        )
    ]
    for i, layer in enumerate(family.network.layers):
        if i in family.weight:
            weight, bias = family.weight[i], family.bias[i]
            own = Radii(layers={layer.name: {"weight": weight, "bias": bias}})
            has_bias = bool(getattr(layer, "has_bias", False))
            found.append(
                LayerRadii(
                    layer=layer.name,
                    kind="weight",
                    radii=own,
                    largest=float(weight.max()),
                    bias_largest=float(bias.max()) if has_bias else None,
                )
            )
        elif i in family.activation:
            radius = family.activation[i]
            name = layer.name
            cuts = {name: radii.saturations[name]} if name in radii.saturations else {}
            if i in family.points:
                own = Radii(points=_only(radii, name.removesuffix(BEHIND)), saturations=cuts)
            else:
                own = Radii(layers={name: {"activation": radius.reshape(layer.shape)}}, saturations=cuts)
            found.append(
                LayerRadii(
                    layer=layer.name, kind="activation", radii=own, largest=float(radius.max()), bias_largest=None
                )
            )
    return [one for one in found if one.largest > 0 or (one.bias_largest or 0) > 0]


def _only(radii: Radii, name: str) -> dict[str, Point]:
    """The rounding point at one layer, if there is one."""
    return {name: radii.points[name]} if name in radii.points else {}


class LayerSearch:
    """Bisection of the accuracy, one layer at a time. `accuracy`: the share of the samples that must be proved.

    `options`: those of `verify`, method `ibp`, `bp` or `auto`. x (N, *input_shape) or (N, n_in), y (N,) integers.
    `where` says how far the work is, for people. Raises UsageError for a share that the network itself does not
    reach, and whatever `verify` raises.
    """

    def __init__(self, network: Network, data: tuple[Any, Any], accuracy: float, options: Options):
        expected(options, Options, "options", OPTIONS)
        if not is_number(accuracy):
            raise UsageError(f"The accuracy is {described(accuracy)}; give a share above 0 and up to 1, such as 0.9.")
        if not isinstance(data, tuple) or len(data) != 2:
            raise DataError(f"The samples are {described(data)}; give a tuple (x, y).")
        if not 0 < accuracy <= 1:
            raise UsageError(f"The accuracy is {accuracy:g}; give a share above 0 and up to 1, for example 0.9.")
        if options.method not in FACTOR_METHODS:
            offered = ", ".join(FACTOR_METHODS)
            raise UsageError(f"Factors are not searched by method {options.method!r}; choose {offered}.")
        self.network, self.accuracy, self.options, self.where = network, accuracy, options, ""
        self.x, self.y = checked(network, *data)
        clean = float((margins(network.evaluate(self.x), self.y) > 0).mean())
        if clean < accuracy:
            raise UsageError(
                f"The network itself is right on {100 * clean:.4g} % of the samples, so no radius guarantees"
                f" {100 * accuracy:.4g} %; give a lower --accuracy."
            )

    def rows(
        self,
        layers: Iterable[LayerRadii],
        grid: Grid,
        stop: threading.Event | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[LayerRow]:
        """A row for each layer as soon as it is known; `tick` is called now and then.

        Setting `stop` ends it soon, without the layer under way.
        """
        stop = stop or threading.Event()
        for one in layers:
            began, reached, low, high = time.perf_counter(), None, 0, grid.beyond
            while high - low > 1:
                middle = (low + high) // 2
                factor = grid.factors[middle - 1]
                self.where = f"{one.layer}, {one.kind}: factor {factor:.4g}"
                share = self._share(one.radii.scaled(factor), stop)
                tick()
                if stop.is_set():
                    return
                if share >= self.accuracy:
                    low, reached = middle, share
                else:
                    high = middle
            yield self._row(one, grid, low, reached, time.perf_counter() - began)

    def _share(self, radii: Radii, stop: threading.Event) -> float:
        """The share of the samples that is proved."""
        found = verdicts(self.network, self.x, self.y, radii, self.options, None, stop)
        return Counter(verdict.status for verdict in found)[Status.VERIFIED] / len(self.x)

    def _row(self, one: LayerRadii, grid: Grid, place: int, reached: float | None, seconds: float) -> LayerRow:
        factor = grid.at(place)

        def times(radius: float | None) -> float | None:
            return None if factor is None or radius is None else factor * radius

        return LayerRow(
            layer=one.layer,
            kind=one.kind,
            accuracy=self.accuracy,
            method=self.options.method,
            factor=factor,
            radius=times(one.largest),
            bias_radius=times(one.bias_largest),
            reached=reached,
            at_end=place == grid.beyond - 1,
            samples=len(self.x),
            seconds=round(seconds, 3),
        )


def layer_radii(
    network: Network, data: tuple[Any, Any], radii: Radii, accuracy: float, grid: Grid, options: Options | None = None
) -> list[LayerRow]:
    """A row for each layer with a radius, by BP unless `options` say otherwise; see `LayerSearch`."""
    options = Options.given(options, Options(method="bp", attack=False))
    expected(grid, Grid, "The grid", "qverify.analysis.grid.Grid()")
    search = LayerSearch(network, data, accuracy, options)
    hints.remark_on(network, radii, search.x, search.y)
    return list(search.rows(single_layers(network, radii), grid))
