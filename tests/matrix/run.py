"""One cell of the matrix: a network, a form, and what qverify states about the file and around the float network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

import qverify
from qverify.errors import RadiiError
from qverify.family.radii import Radii
from qverify.layers import Relu
from qverify.network import Network
from tests.matrix.dynamic import DYNAMIC, dynamic_cell
from tests.matrix.forms import all_forms, quantiser_of
from tests.matrix.judge import Clock, Statement, Tally, stated
from tests.matrix.lite import run_file
from tests.matrix.networks import NETWORKS, Source, present, source, tiny_folder
from tests.matrix.runtimes import places, sessions
from tests.support.dynamic import FORMS as DYNAMIC_FORMS
from tests.support.toolchain import Form, prepared, quantised

Array = np.ndarray
SAMPLES = {"mlp": 90, "matmul": 80, "added": 60, "conv": 50, "residual": 50, "kws": 16, "resnet": 6}
"""Samples of a file by network, at a share of 1."""
SOME = {"kws": (0, 2), "resnet": (1, 3)}
"""Of five forms in turn those in which the large networks are quantised."""
LITE = "litert"
LITE_SAMPLES = {"kws_ref_model.tflite": 400, "pretrainedResnet_quant.tflite": 100, "ad01_int8.tflite": 196}


def cell(tally: Tally, name: str, form: Form, count: int, first: int = 0) -> None:
    """A file on `count` samples: its own family under the rule float32, and the scheme's around the float network."""
    what, given = f"{name} {form}", source(name)
    x = np.take(given.x, np.arange(first, first + count), axis=0, mode="wrap")
    file = quantised(given.model, given.calibration, form)
    tally.files[name] += 1
    with Clock(tally, name):
        runs = {how: session.run(x) for how, session in sessions(file).items()}
        tally.inferences[name] += len(x) * len(runs)
        network = qverify.load(file)
        own = stated(network, Radii.of_file(network, "float32"), x)
        _judge_file(tally, name, what, own, file, runs)
    with Clock(tally, f"{name} around float"):
        _around_float(tally, f"{name} around float", what, given, form, x, file, runs)


Runs = dict[str, tuple[Array, dict[str, Array]]]


def _judge_file(tally: Tally, key: str, what: str, own: Statement, file: onnx.ModelProto, runs: Runs) -> None:
    layers = own.setup.family.network.layers
    index = {layer.name: i for i, layer in enumerate(layers)}
    tally.asked[key] += len(own.sure)
    tally.verified[key] += int(own.sure.sum())
    for how, (answers, at_places) in runs.items():
        tally.judge_verdicts(key, f"{what}, {how}", own.sure, own.labels, answers)
        for place in places(file):
            if place.node in index and place.node in at_places:
                for method, ends in own.ends(index[place.node]).items():
                    at = f"{what}, {how}, {method} at {place.node}"
                    tally.judge_bounds(key, at, ends, at_places[place.node])
        if not at_places:
            for method, ends in own.ends(len(layers) - 1).items():
                tally.judge_bounds(key, f"{what}, {how}, {method}, outputs", _loosened(ends), answers)


def _loosened(ends: tuple[Array, Array]) -> tuple[Array, Array]:
    """Outputs come out as float32: a product of an integer and a scale, rounded once."""
    lower, upper = ends
    return lower - 2.0**-23 * abs(lower), upper + 2.0**-23 * abs(upper)


def _around_float(
    tally: Tally, key: str, what: str, given: Source, form: Form, x: Array, file: onnx.ModelProto, runs: Runs
) -> None:
    model = prepared(given.model) if form.prepared else given.model
    network = qverify.load(model)
    try:
        radii = Radii.of(quantiser_of(form), network, given.calibration.astype(np.float64))
    except RadiiError as error:
        tally.refused[f"{key}: {error}"] += 1
        return
    own = stated(network, radii, x)
    tally.asked[key] += len(own.sure)
    tally.verified[key] += int(own.sure.sum())
    if radii.kernel is not None and radii.kernel.refused:  # nothing is verified, and nothing said of such files
        tally.refused[f"{key}: {radii.kernel.refused[0]}"] += 1
        for how, (answers, _) in runs.items():
            tally.judge_verdicts(key, f"{what}, {how}, around float", own.sure, own.labels, answers)
        return
    where = rounded_tensors(model, network, own)
    before = {node.input[0] for node in model.graph.node if node.op_type == "BatchNormalization"}  # no point, but radii
    for how, (answers, at_places) in runs.items():
        tally.judge_verdicts(key, f"{what}, {how}, around float", own.sure, own.labels, answers)
        for place in places(file):
            if place.node not in at_places:
                continue
            if place.stands_for not in where:
                if place.stands_for not in before:
                    tally.broken.append(f"{what}, {how}: the family lacks a rounding point at {place.stands_for}")
                continue
            at, behind_relu = where[place.stands_for]
            values = np.maximum(at_places[place.node], 0.0) if behind_relu else at_places[place.node]
            for method, ends in own.ends(at).items():
                tally.judge_bounds(key, f"{what}, {how}, {method} around float at {place.node}", ends, values)
        if not at_places:
            last = len(own.setup.family.network.layers) - 1
            for method, ends in own.ends(last).items():
                tally.judge_bounds(key, f"{what}, {how}, {method} around float, outputs", _loosened(ends), answers)


def rounded_tensors(model: onnx.ModelProto, network: Network, own: Statement) -> dict[str, tuple[int, bool]]:
    """By the name of each tensor of the float model: the layer of the family's network that bounds it where it is
    rounded, and whether a Relu comes between: what only a Relu reads is rounded before it or behind it."""
    family, made = own.setup.family, {node.name: node.output[0] for node in model.graph.node}
    norms = {norm.layer: norm.name for norm in network.batchnorms}
    found: dict[str, tuple[int, bool]] = {}
    if family.entry is not None:
        found[model.graph.input[0].name] = (0, False)
    for k, layer in enumerate(network.layers[1:], start=1):
        users = network.consumers[k]
        behind = len(users) == 1 and isinstance(network.layers[users[0]], Relu)
        at = family.own(users[0] if behind else k)[-1]
        if at in family.points:
            name = norms.get(layer.name, layer.name)
            found[made.get(name, name)] = (at, behind)
    for node in model.graph.node:
        if node.op_type in ("Flatten", "Reshape") and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _dynamic_round(tally: Tally, share: float, first: int, every: int, tell: Callable[[str], None]) -> None:
    """All networks in all dynamic forms, once."""
    for number, form in enumerate(DYNAMIC_FORMS[::every]):
        for name in NETWORKS:
            if present(name) and number % 5 in SOME.get(name, range(5)):
                dynamic_cell(tally, name, form, max(1, round(SAMPLES[name] * share)), first + 7 * number)
        tell(f"{sum(tally.inferences.values())} inferences, {len(tally.broken)} broken, after {form}")


def matrix(
    inferences: int,
    share: float = 1.0,
    tell: Callable[[str], None] = print,
    only: str | None = None,
    every: int = 1,
) -> Tally:
    """Whole rounds of all networks and forms, each with other samples, until there are so many inferences.

    `only`: names of networks, `litert` for the files of MLPerf Tiny, `dynamic` for dynamically quantised files of all;
    `every`: of the forms one in so many.
    """
    tally, first = Tally(), 0
    chosen = [*NETWORKS, LITE, DYNAMIC] if only is None else only.split(",")
    if LITE in chosen and tiny_folder().exists():
        for name, count in LITE_SAMPLES.items():
            run_file(tally, name, max(1, round(count * share)))
            tell(f"{sum(tally.inferences.values())} inferences, {len(tally.broken)} broken, after {name}")
    while True:
        if DYNAMIC in chosen:
            _dynamic_round(tally, share, first, every, tell)
        for number, form in enumerate(all_forms()[::every] if {*NETWORKS} & {*chosen} else []):
            for name in NETWORKS:
                if name in chosen and present(name) and number % 5 in SOME.get(name, range(5)):
                    cell(tally, name, form, max(1, round(SAMPLES[name] * share)), first + 7 * number)
            tell(f"{sum(tally.inferences.values())} inferences, {len(tally.broken)} broken, after {form}")
        first += 500
        if sum(tally.inferences.values()) >= inferences:
            return tally
