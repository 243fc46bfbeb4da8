"""Convolutions as matrices and index maps against loops; the builder and `Program` as data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from qverify.exact.builder import ProgramBuilder, as_matrix, index_map, per_output
from qverify.layers import Conv
from tests.support.networks import conv, conv_taps, convolve, dense

CONVOLUTIONS: dict[str, tuple[Any, ...]] = {
    "plain": ((1, 3, 4), (2, 1, 2, 3), {}),
    "one_position": ((2, 2, 3), (3, 2, 2, 3), {}),
    "padded": ((2, 3, 2), (3, 2, 3, 2), {"pads": (2, 0, 1, 1)}),
    "strided": ((1, 5, 6), (2, 1, 2, 2), {"strides": (2, 3)}),
    "dilated": ((2, 5, 4), (1, 2, 2, 2), {"dilations": (3, 1), "pads": (0, 1, 1, 0)}),
    "grouped": ((4, 3, 2), (6, 2, 2, 1), {"groups": 2}),
    "depthwise": ((3, 4, 3), (3, 1, 2, 2), {"groups": 3, "strides": (1, 2), "pads": (1, 0, 0, 1)}),
    "row": ((2, 1, 6), (3, 2, 1, 3), {"pads": (0, 1, 0, 2), "dilations": (1, 2)}),
    "padding_only": ((1, 1, 2), (1, 1, 1, 1), {"pads": (1, 0, 0, 0)}),
}


@pytest.fixture(params=CONVOLUTIONS)
def layer(request: pytest.FixtureRequest, rng: np.random.Generator) -> Conv:
    shape, kernel, more = CONVOLUTIONS[request.param]
    return conv(rng, "conv", 0, shape, kernel, **more)


def test_index_map_names_every_use_of_a_kernel_entry(layer: Conv) -> None:
    """Against the definition of ONNX Conv, tap by tap; each use exactly once, no padding."""
    wanted = {
        (output, source, int(np.ravel_multi_index(kernel, layer.weight.shape)))
        for output, taps in enumerate(conv_taps(layer))
        for source, kernel in taps
    }
    uses = list(zip(*(a.tolist() for a in index_map(layer)), strict=True))
    assert len(uses) == len(wanted) and set(uses) == wanted


def test_matrix_and_bias_are_the_layer(layer: Conv, rng: np.random.Generator) -> None:
    x: Any = rng.normal(size=(7, int(np.prod(layer.in_shape))))
    kernel: Any = rng.normal(size=layer.weight.shape)
    matrix, bias = as_matrix(layer, kernel), per_output(layer, layer.bias)
    assert matrix.shape == (layer.size, x.shape[1]) and bias.shape == (layer.size,)
    expected = layer.apply(kernel, x) + np.repeat(layer.bias, layer.positions)
    np.testing.assert_allclose((matrix @ x.T).T + bias, expected, atol=1e-12)
    weight, biases = (np.broadcast_to(a, (7, *a.shape)) for a in (kernel, layer.bias))
    by_loops = convolve(layer, weight, biases, x)
    np.testing.assert_allclose((matrix @ x.T).T + bias, by_loops, atol=1e-12)


def test_per_output_keeps_indices(layer: Conv, rng: np.random.Generator) -> None:
    channels = np.arange(len(layer.bias))
    spread = per_output(layer, channels)
    assert spread.dtype == channels.dtype and (spread == np.arange(layer.size) // layer.positions).all()
    full = dense(rng, "fc", 0, 3, 4)
    assert per_output(full, channels) is channels
    assert (as_matrix(full, full.weight).toarray() == full.weight).all()


def test_builder_puts_blocks_together() -> None:
    builder = ProgramBuilder()
    x = builder.add_variables("x", np.array([-1.0, 0.0]), np.array([1.0, 2.0]))
    s = builder.add_binaries("s", 1)
    y = builder.add_variables("y", np.zeros(2), np.full(2, 5.0))
    first = builder.add_rows(
        [(np.array([[1.0, 2.0], [0.0, 3.0]]), x), (np.array([-1.0, -2.0]), y)], 0.0, np.array([1.0, 2.0])
    )
    second = builder.add_rows(
        [(np.array([4.0]), s), (sparse.csr_matrix([[5.0, 6.0]]), y[::-1]), (np.array([0.5]), s)], -np.inf, 7.0
    )
    builder.add_products(second, x[:1], y[:1], np.array([2.0]))
    builder.add_products(first, x, y, np.array([1.0, -1.0]))
    program = builder.build()
    assert (first.tolist(), second.tolist()) == ([0, 1], [2])
    expected = [[1.0, 2.0, 0.0, -1.0, 0.0], [0.0, 3.0, 0.0, 0.0, -2.0], [0.0, 0.0, 4.5, 6.0, 5.0]]
    assert (program.rows.toarray() == expected).all()
    assert program.row_lower.tolist() == [0.0, 0.0, -np.inf] and program.row_upper.tolist() == [1.0, 2.0, 7.0]
    assert program.lower.tolist() == [-1.0, 0.0, 0.0, 0.0, 0.0] and program.upper.tolist() == [1.0, 2.0, 1.0, 5.0, 5.0]
    assert program.integer.tolist() == [False, False, True, False, False]
    triples = zip(program.products.row, program.products.first, program.products.second, strict=True)
    assert [tuple(t) for t in triples] == [(2, 0, 3), (0, 0, 3), (1, 1, 4)]
    assert program.products.coefficient.tolist() == [2.0, 1.0, -1.0]
    assert {name: block.tolist() for name, block in builder.blocks.items()} == {"x": [0, 1], "s": [2], "y": [3, 4]}


def test_a_program_without_rows() -> None:
    builder = ProgramBuilder()
    builder.add_variables("x", np.zeros(3), np.ones(3))
    program = builder.build()
    assert program.rows.shape == (0, 3) and program.row_count == 0 and len(program.products) == 0
