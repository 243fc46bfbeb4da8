"""`qverify inspect`: the layers of a model, their radii, and how many neurons the exact step would branch on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from qverify import datasets
from qverify.activations.layer import Activation
from qverify.analysis.unstable import Counted, spread_out, unstable_neurons
from qverify.budget import Deadline
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import Pace, Progress
from qverify.console.signals import stoppable
from qverify.family.family import Family
from qverify.layers import Conv, Dense
from qverify.runs.problem import doubted, read_network, read_samples, say_hints, stated_radii
from qverify.text.brief import Brief
from qverify.verification import hints

if TYPE_CHECKING:
    from qverify.datasets import Samples
    from qverify.family.points import Point
    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.runs.given import Given
    from qverify.verification.verdict import Options


def run(given: Given, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    began, counted = time.perf_counter(), Counted(0, {})
    with stdout_kept_clean():
        given.check()
        found = Inspected.read(given)
        options = given.options()  # refused if they make no sense, used or not
        network, family = found.network, found.family
        layers = [_described(network, i) for i in range(len(network.layers))]
        if family is not None:
            for i, layer in enumerate(layers):
                layer |= _radii(family, i)
        if found.radii is not None and found.samples is not None:
            counted = _unstable(found, found.radii, found.samples, options)
            for i, counts in counted.relus.items():
                layers[i] |= {"unstable_ibp": counts.ibp} | ({} if counts.bp is None else {"unstable_bp": counts.bp})
    result = {
        "model": given.model,
        "notes": [*network.notes, *found.doubts],
        "not_covered": found.not_covered(),
        "shares_weights": network.shares_weights if family is None else family.shares_weights,
        "parameters": sum(layer["parameters"] for layer in layers),
        "samples": counted.samples,
        "convention": None if found.radii is None else found.radii.convention,
        "layers": layers,
    }
    if as_json:
        show_json(result | {"seconds": round(time.perf_counter() - began, 3)})
    else:
        _show(network, result)
    return 0


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Inspected(Brief):
    """A network; its family, if radii were given; and the samples selected, if data were."""

    given: Given
    network: Network
    radii: Radii | None
    family: Family | None
    samples: Samples | None
    doubts: tuple[str, ...]

    @staticmethod
    def read(given: Given) -> Inspected:
        """Read what is given; notes and hints go to stderr. Raises what is wrong with it."""
        network = read_network(given)
        everything = read_samples(given, network)
        samples = None if everything is None else datasets.select(everything, given.samples)[0]
        radii, _ = stated_radii(given, network, everything)
        family = None if radii is None else Family.of(network, radii, given.clip_input)
        if radii is not None:
            say_hints(network, radii, samples)
        if samples is not None:
            datasets.flatten(samples, network)
        doubts = () if everything is None else doubted(network, everything)
        return Inspected(given=given, network=network, radii=radii, family=family, samples=samples, doubts=doubts)

    def not_covered(self) -> list[str]:
        """What of this network goes beyond the quantisers that the radii stand for, a sentence each."""
        if self.radii is None:
            return []
        return hints.of_family(self.network, self.radii, None if self.samples is None else self.samples.x)


def _described(network: Network, index: int) -> dict[str, Any]:
    """The description of one layer, under the name a radii file uses."""
    layer = network.layers[index]
    found: dict[str, Any] = {
        "name": layer.name,
        "kind": type(layer).__name__,
        "inputs": [network.layers[i].name for i in layer.inputs],
        "shape": list(layer.shape),
        "parameters": 0,
    }
    if isinstance(layer, Activation):
        found["function"] = layer.function
    if isinstance(layer, (Dense, Conv)):
        if layer.quantised:  # average pooling is a convolution with constants
            found["parameters"] = layer.weight.size + (layer.bias.size if layer.has_bias else 0)
        found["weight_range"] = [float(layer.weight.min()), float(layer.weight.max())]
        found["quantised"] = layer.quantised
    return found


def _radii(family: Family, index: int) -> dict[str, Any]:
    """The largest radius of each kind that the layer has."""
    if index == 0:
        found: dict[str, Any] = {"input_radius": float(family.input_radius.max())}
        return found | ({} if family.entry is None else {"point": _rounding(family.entry)})
    kinds = {"weight": family.weight, "bias": family.bias, "activation": family.activation}
    own = family.own(index)
    found = {f"{kind}_radius": float(of[i].max()) for i in own for kind, of in kinds.items() if i in of}
    points = [_rounding(family.points[i]) for i in own if i in family.points]
    return found | ({"point": points[0]} if points else {})


def _rounding(point: Point) -> dict[str, Any]:
    """A rounding point: the ends of its range, and its step, where that is known."""
    known = bool((point.step > 0).all())
    return {
        "low": float(point.low[0].min()),
        "high": float(point.high[1].max()),
        "step": float(point.step.max()) if known else None,
    }


def _unstable(found: Inspected, radii: Radii, samples: Samples, options: Options) -> Counted:
    """The unstable neurons, on the samples chosen by --samples, else on some of all; says how far it is."""
    x = samples.x.reshape(len(samples), -1)
    if found.given.samples is None:
        x = x[spread_out(len(x))]
    pace, done = Pace(len(x), False), 0
    with stoppable("ending") as stop, Progress(pace, lambda: ["unstable neurons"]) as progress:

        def tell(count: int) -> None:
            nonlocal done
            for position in range(done, count):
                progress.add(position, False)
            done = count

        deadline = Deadline.after(found.given.seconds, stop)
        counted = unstable_neurons(found.network, radii, x, options, deadline, tell)
    if not counted.samples:
        say(
            "no sample was through in time: unstable neurons are not counted; a longer --timeout or --method ibp helps."
        )
    elif counted.samples < len(x):
        say(f"unstable neurons are counted on {counted.samples} of {len(x)} samples; a longer --timeout gives more.")
    return counted


def _show(network: Network, result: dict[str, Any]) -> None:
    layers = result["layers"]
    table = Table("layer", "kind", "shape", box=None, padding=(0, 2, 0, 0))
    table.add_column("parameters", justify="right")
    table.add_column("weights", justify="right")
    if result["convention"]:
        table.add_column("largest radius")
    measured = any("unstable_ibp" in layer for layer in layers)
    if measured:
        table.add_column("unstable, IBP", justify="right")
    refined = any("unstable_bp" in layer for layer in layers)
    if refined:
        table.add_column("after BP", justify="right")
    for layer in layers:
        kind = layer.get("function", layer["kind"])
        cells = [layer["name"], kind, " x ".join(map(str, layer["shape"])), str(layer["parameters"] or "")]
        cells.append("{:.4g} to {:.4g}".format(*layer["weight_range"]) if "weight_range" in layer else "")
        if result["convention"]:
            kinds = ("input", "weight", "bias", "activation")
            said = [f"{k} {layer[f'{k}_radius']:.4g}" for k in kinds if f"{k}_radius" in layer]
            said += ["rounded to [{low:.4g}, {high:.4g}]".format(**layer["point"])] if "point" in layer else []
            cells.append(", ".join(said))
        if measured:
            keys = ("unstable_ibp", "unstable_bp") if refined else ("unstable_ibp",)
            cells += [f"{layer[key]:.2f}" if key in layer else "" for key in keys]
        table.add_row(*cells)
    show(network.source, table, "")
    show(f"{result['parameters']} parameters, {network.output_size} outputs.")
    if result["convention"]:
        show(f"Family: {result['convention']}.")
    if measured:
        show(f"Unstable neurons of each activation: the mean over {result['samples']} samples.")
    if result["shares_weights"]:
        show("Convolutions share their weights: bounds are sound, and exact only with --formulation bilinear.")
