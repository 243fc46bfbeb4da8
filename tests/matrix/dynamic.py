"""Dynamically quantised files in the matrix: every form in which `quantize_dynamic` writes one, one sample a batch."""

from __future__ import annotations

import numpy as np

import qverify
from qverify.errors import UnsupportedModel
from qverify.family.radii import Radii
from tests.matrix.judge import Clock, Statement, Tally, stated
from tests.matrix.networks import source
from tests.support.dynamic import DynamicForm, DynamicRuntime, dynamic_file

DYNAMIC = "dynamic"
_RUNS = (("optimised", False), ("optimised", True), ("node by node", True))


def dynamic_cell(tally: Tally, name: str, form: DynamicForm, count: int, first: int = 0) -> None:
    """A file on `count` samples: what its own family states under the rule float32, held against onnxruntime."""
    what, given, key = f"{name} {form}", source(name), f"{name} {DYNAMIC}"
    x = np.take(given.x, np.arange(first, first + count), axis=0, mode="wrap")
    file = dynamic_file(given.model, form)
    tally.files[key] += 1
    with Clock(tally, key):
        try:
            network = qverify.load(file)
        except UnsupportedModel as error:  # a BatchNormalization that nobody has folded
            tally.refused[f"{key}: {error}"] += 1
            return
        own = stated(network, Radii.of_file(network, "float32"), x)
        tally.asked[key] += len(own.sure)
        tally.verified[key] += int(own.sure.sum())
        for level, shown in _RUNS:
            how = f"{what}, {level}{', tensors shown' * shown}"
            answers, points = DynamicRuntime(file, level, shown).run(x)
            tally.inferences[key] += len(x)
            tally.judge_verdicts(key, how, own.sure, own.labels, answers)
            _judge(tally, key, how, own, len(network.layers) - 1, answers)
            for node, (read, made) in points.items():
                index = network.index(node)
                _judge(tally, key, f"{how}, before {node}", own, network.layers[index].inputs[0], read)
                _judge(tally, key, f"{how}, {node}", own, index, made)


def _judge(tally: Tally, key: str, what: str, own: Statement, index: int, values: np.ndarray) -> None:
    for method, ends in own.ends(index).items():
        tally.judge_bounds(key, f"{what}, {method}", ends, values)
