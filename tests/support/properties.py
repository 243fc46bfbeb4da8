"""Properties decided on samples, for tests of several kinds of them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from qverify import Options, Radii
from qverify.layers import Dense, Input
from qverify.network import Network
from qverify.properties.kinds import Property, Subject
from qverify.properties.samples import PropertyRow, decide_subjects


def subjects_of(x: Any, labels: Any = None, targets: Any = None, upper: Any = None) -> list[Subject]:
    """Samples, or the boxes from x to `upper`, each (N, n_in)."""
    return [
        Subject(
            lower=low,
            upper=low if upper is None else upper[place],
            label=None if labels is None else int(labels[place]),
            target=None if targets is None else np.asarray(targets[place], dtype=np.float64),
        )
        for place, low in enumerate(np.asarray(x, dtype=np.float64))
    ]


def decided_of(network: Network, subjects: list[Subject], radii: Radii, wanted: Property) -> list[PropertyRow]:
    rows: list[PropertyRow] = []
    options = Options(seconds=30.0, isolated=False)
    decide_subjects(network, subjects, radii, wanted, options, rows.append, threading.Event())
    assert [row.index for row in rows] == list(range(len(subjects)))
    return rows


def decided(network: Network, x: Any, labels: Any, radii: Radii, wanted: Property) -> list[PropertyRow]:
    return decided_of(network, subjects_of(x, labels), radii, wanted)


def linear(weight: Any, bias: Any) -> Network:
    """A network of one layer."""
    weight = np.asarray(weight, dtype=np.float64)
    layer = Dense("dense", (0,), (len(weight),), weight=weight, bias=np.asarray(bias, dtype=np.float64))
    return Network((Input("x", (), (weight.shape[1],)), layer))
