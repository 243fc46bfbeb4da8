"""What the tests of the two programs share: bounds, optima, more networks, and an oracle that enumerates corners."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from qverify.bounds.interval import interval_bounds
from qverify.bounds.refinement import tightened_bounds
from qverify.bounds.sample import SampleBounds
from qverify.bounds.tensors import BoundModel
from qverify.exact import solvers
from qverify.exact.bilinear import Bilinear
from qverify.exact.maps import Maps
from qverify.exact.overstated import GRID, SIGN, ZERO, Exactly
from qverify.exact.program import Program
from qverify.exact.relational import Relational
from qverify.exact.solvers.base import Ending, Limits
from qverify.family.family import Family
from qverify.layers import Add, Dense, Input, Relu
from qverify.network import Network
from tests.support.bounds import box_ends
from tests.support.networks import NETWORKS, dense, inputs, mlp, random_radii, relu, scale

Array = np.ndarray
Rng = np.random.Generator


def sample_bounds(family: Family, x: Array, tight: bool = False) -> SampleBounds:
    """IBP bounds of the sample x (n_in,), or those refined by BP."""
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(x[None])))
    if tight:
        bounds = tightened_bounds(model, bounds)
    return bounds.sample(0)


def everything(bounds: SampleBounds) -> Exactly:
    """Binaries for all coordinates of every layer that can have some."""
    found = Exactly()
    for index, low in enumerate(bounds.lower):
        for kind in (SIGN, ZERO, GRID):
            found.add(kind, index, np.ones(len(low), dtype=bool))
    return found


def relational(family: Family, x: Array, tight: bool = False, chord: bool = False) -> Relational:
    bounds = sample_bounds(family, x, tight)
    return Relational(Maps(family), bounds, None if chord else everything(bounds))


def bilinear(family: Family, x: Array, tight: bool = False, cuts: bool = True) -> Bilinear:
    return Bilinear(Maps(family), sample_bounds(family, x, tight), cuts)


def difference(network: Network, first: int = 0, second: int = 1) -> Array:
    """The row of `y_first - y_second`."""
    row = np.zeros(network.output_size)
    row[first], row[second] = 1.0, -1.0
    return row


def optimum(program: Relational | Bilinear, row: Array, solver: str = "highs", relax: bool = False) -> float:
    """The minimum of `row . output`, solved to optimality: dual bound and incumbent agree."""
    session = solvers.adapter(solver).open(program.program)
    try:
        outcome = session.minimise(program.combination(row), Limits(seconds=60.0), relax)
    finally:
        session.close()
    assert outcome.status is Ending.OPTIMAL, outcome.message
    assert outcome.incumbent is not None and outcome.incumbent - outcome.dual_bound < 1e-6
    return outcome.dual_bound


def with_binaries(program: Program, cost: np.ndarray, values: np.ndarray, rows: Any = None, lower: Any = None) -> Any:
    """scipy's optimum of the linear program with the binaries at these values; None if there is no point."""
    low, high = program.lower.copy(), program.upper.copy()
    low[program.integer] = high[program.integer] = values
    below, above = np.isfinite(program.row_lower), np.isfinite(program.row_upper)
    matrix = sparse.vstack([-program.rows[below], program.rows[above]])
    limits = np.concatenate([-program.row_lower[below], program.row_upper[above]])
    found = linprog(cost, matrix, limits, bounds=list(zip(low, high, strict=True)), method="highs")
    return found.fun if found.status == 0 else None


def violation(asked: Relational, values: list[Array]) -> float:
    """By how much the rows and bounds are broken at these layer values, with |x| and its sign where they have
    variables, and each binary of a ReLU at its better end."""
    program, blocks = asked.program, asked.builder.blocks
    point = np.zeros(program.variable_count)
    for i, columns in asked.columns.items():
        point[columns] = values[i]
        if f"sign {i}" in blocks:
            x = values[i][(asked.bounds.lower[i] < 0) & (asked.bounds.upper[i] > 0)]
            point[blocks[f"magnitude {i}"]], point[blocks[f"sign {i}"]] = np.abs(x), x >= 0
    _choose_largest(asked, point)
    _fill_parts(asked, point)
    worst = float(np.maximum(program.lower - point, point - program.upper).max())
    rows, activity = program.rows.toarray(), program.rows @ point
    free = np.zeros(program.row_count, dtype=bool)
    for name, block in blocks.items():
        for s in block if name.startswith("active") else ():
            mine = rows[:, s] != 0
            free |= mine
            worst = max(worst, min(_broken(program, mine, activity + end * rows[:, s]) for end in (0.0, 1.0)))
    return max(worst, _broken(program, ~free, activity))


def _choose_largest(asked: Relational, point: Array) -> None:
    """Set, for each output of a MaxPool, the binary of the largest number that it reads; in place."""
    rows = asked.program.rows.toarray()
    for name, block in asked.builder.blocks.items():
        found: dict[int, tuple[float, int]] = {}
        for s in block if name.startswith("largest") else ():
            (row,) = (r for r in rows[rows[:, s] != 0] if np.count_nonzero(r) == 3 and (r == -1.0).sum() == 1 and r[s])
            y = next(int(j) for j in np.flatnonzero(row == 1.0) if j in asked.columns[int(name.split()[1])])
            found[y] = max(found.get(y, (-np.inf, -1)), (float(point[row == -1.0][0]), int(s)))
        point[[s for _, s in found.values()]] = 1.0


def _fill_parts(asked: Relational, point: Array) -> None:
    """Set the parts of what each activation reads, one full before the next, and which are begun; in place."""
    rows, program = asked.program.rows.toarray(), asked.program
    for name, block in asked.builder.blocks.items():
        if not name.endswith(" part 0"):
            continue
        stem = name.removesuffix(" part 0")
        parts = [
            asked.builder.blocks[f"{stem} part {k}"] for k in range(9) if f"{stem} part {k}" in asked.builder.blocks
        ]
        for j, first in enumerate(block):
            ((number, row),) = (
                (r, rows[r])
                for r in np.flatnonzero(rows[:, first] == -1.0)
                if 1.0 in rows[r]
                and all(rows[r][p[j]] == -1.0 for p in parts)
                and program.row_lower[r] == program.row_upper[r]
            )
            left = point[np.flatnonzero(row == 1.0)[0]] - program.row_lower[number]
            for k, part in enumerate(parts):
                point[part[j]] = min(left, program.upper[part[j]])
                left -= point[part[j]]
                if k:
                    point[asked.builder.blocks[f"{stem} begun {k}"][j]] = float(point[part[j]] > 0)


def _broken(program: Program, chosen: Array, activity: Array) -> float:
    excess = np.maximum(program.row_lower - activity, activity - program.row_upper)
    return float(excess[chosen].max(initial=0.0))


# --- networks -------------------------------------------------------------------------------------------


def _relu_on_input(rng: Rng) -> Network:
    x = Input("x", (), (4,))
    first = dense(rng, "fc0", 1, 5, 4)
    return Network((x, relu("relu0", 0, x), first, relu("relu1", 2, first), dense(rng, "out", 3, 3, 5)))


def _dense_read_twice(rng: Rng) -> Network:
    """A Dense that a ReLU and an Add read, two ReLUs in a row, Dense after Dense after ReLU."""
    first = dense(rng, "fc0", 0, 4, 3)
    layers = (Input("x", (), (3,)), first, relu("relu0", 1, first), relu("relu1", 2, first), Add("add", (1, 3), (4,)))
    return Network((*layers, dense(rng, "fc1", 4, 5, 4), dense(rng, "out", 5, 3, 5)))


def _relu_last(rng: Rng) -> Network:
    first, last = dense(rng, "fc0", 0, 5, 3), dense(rng, "fc1", 2, 3, 5)
    return Network((Input("x", (), (3,)), first, relu("relu0", 1, first), last, relu("relu1", 3, last)))


def _scale_last(rng: Rng) -> Network:
    """A Scale on the input, read by a ReLU; another one as the last layer."""
    x = Input("x", (), (4,))
    first = dense(rng, "fc", 2, 3, 4)
    return Network((x, scale(rng, "in", 0, 4), Relu("relu", (1,), (4,)), first, scale(rng, "out", 3, 3)))


def _doubled(rng: Rng) -> Network:
    """An Add whose two branches are the same layer, and a Dense that is not quantised."""
    first = dense(rng, "fc0", 0, 4, 3)
    layers = (Input("x", (), (3,)), first, relu("relu", 1, first), Add("twice", (2, 2), (4,)))
    return Network((*layers, dense(rng, "fixed", 3, 4, 4, quantised=False), dense(rng, "out", 4, 3, 4)))


MORE = {
    "relu_on_input": _relu_on_input,
    "dense_read_twice": _dense_read_twice,
    "relu_last": _relu_last,
    "scale_last": _scale_last,
    "doubled": _doubled,
    "narrow": lambda rng: mlp(rng, 2, 3, 2, 4, 2),
}
ALL = NETWORKS | MORE
CONVOLUTIONS = [name for name in NETWORKS if name.startswith("conv")]
GATED = ["gated"]
"""Those with products of branches, which the relational program relaxes."""
DENSE = [name for name in ALL if name not in (*CONVOLUTIONS, *GATED)]


def tiny(seed: int, most: int = 4) -> tuple[Family, np.ndarray]:
    """A dense network of 1 to 3 hidden layers of 2 to `most` neurons with unequal radii, and a sample."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, most + 1, 3 + seed % 3)
    network = mlp(rng, *sizes)
    family = Family.of(network, random_radii(network, rng, (0.03, 0.1, 0.3)[seed // 3 % 3]))
    return family, inputs(network, rng)[seed % 6]


# --- corners: an oracle that shares no code with qverify ---------------------------------------------------


def corner_minimum(network: Network, family: Family, points: Array, row: Array) -> float:
    """The least `row . output` over all members with every weight, bias and offset at an end, at the given inputs
    (P, n_in). Dense layers with ReLU between them; all corners are enumerated, neuron by neuron."""
    values = points[:, None, :]  # (P, corners so far, width)
    layers = network.layers[1:]
    for index, layer in enumerate(layers, start=1):
        last = index == len(layers)
        if isinstance(layer, Dense):
            radius = np.column_stack([family.weight[index], family.bias[index]])
            centre = np.column_stack([layer.weight, layer.bias])
            signs = np.array(list(product([-1.0, 1.0], repeat=centre.shape[1])))
            ends = centre[:, None, :] + signs * radius[:, None, :]  # (neurons, corners, n_in + 1)
            wide = np.concatenate([values, np.ones((*values.shape[:2], 1))], axis=2)
            outputs = [wide @ ends[k].T for k in range(len(ends))]  # each (P, corners so far, corners)
            if last:  # the objective is a sum over neurons, each at its own corner
                return float(sum((outputs[k] * row[k]).min(axis=2) for k in range(len(ends))).min())
            values = _combined(outputs)
        else:
            assert isinstance(layer, Relu)
            radius = family.activation[index]
            ends = np.array([-1.0, 1.0])
            shifts = [np.maximum(values[..., k, None], 0.0) + radius[k] * ends for k in range(len(radius))]
            values = np.maximum(_combined(shifts), 0.0)
    raise AssertionError("the last layer is not Dense")


def _combined(neurons: list[Array]) -> Array:
    """Every choice of one corner a neuron: K arrays (P, C, c_k) -> (P, C * c_1 * ... * c_K, K)."""
    points, before = neurons[0].shape[:2]
    grids = []
    for k, array in enumerate(neurons):
        shape = [points, before] + [1] * len(neurons)
        shape[2 + k] = array.shape[2]
        grids.append(array.reshape(shape))
    full = np.broadcast_arrays(*grids)
    return np.stack([g.reshape(points, -1) for g in full], axis=2)
