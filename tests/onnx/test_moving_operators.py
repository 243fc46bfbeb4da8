"""Operators that move, repeat, leave out or pad numbers, in all their forms, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from qverify.errors import UnsupportedModel
from qverify.gather import Gather
from qverify.onnx.reader import load
from tests.support.networks import known_layers
from tests.support.onnx_models import agree, kinds, model, node, run, weights

IMAGE = (4, 3, 2)


def whole(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


# Name: (nodes from x to y, constants, opset, shape without the batch)
MOVES: dict[str, tuple[Any, ...]] = {
    "transpose": ([node("Transpose", "x", "y", perm=[0, 2, 3, 1])], {}, 17, IMAGE),
    "transpose, batch second": ([node("Transpose", "x", "y", perm=[2, 0, 1, 3])], {}, 17, IMAGE),
    "transpose of matrices": ([node("Transpose", "x", "y", perm=[0, 2, 1])], {}, 8, (3, 5)),
    "concat of itself": ([node("Concat", "x x", "y", axis=1)], {}, 17, IMAGE),
    "concat, negative axis": ([node("Concat", "x x x", "y", axis=-1)], {}, 11, IMAGE),
    "concat with constants": (
        [node("Concat", "c x d", "y", axis=2)],
        {"c": np.full((1, 4, 1, 2), 0.75), "d": np.linspace(-1, 1, 16).reshape(1, 4, 2, 2)},
        17,
        IMAGE,
    ),
    "slice of opset 8": ([node("Slice", "x", "y", starts=[1, -2], ends=[9, 3], axes=[1, 2])], {}, 8, IMAGE),
    "slice of opset 8 without axes": ([node("Slice", "x", "y", starts=[0, 1], ends=[9, 3])], {}, 9, IMAGE),
    "slice with a step": (
        [node("Slice", "x s e a t", "y")],
        {"s": whole(0, 1), "e": whole(2**31, 3), "a": whole(1, -2), "t": whole(2, 1)},
        17,
        IMAGE,
    ),
    "slice backwards": (
        [node("Slice", "x s e a t", "y")],
        {"s": whole(-1), "e": whole(-(2**31)), "a": whole(1), "t": whole(-1)},
        13,
        IMAGE,
    ),
    "slice backwards by two, cut": (
        [node("Slice", "x s e a t", "y")],
        {"s": whole(7), "e": whole(0), "a": whole(1), "t": whole(-2)},
        13,
        (6, 2),
    ),
    "slice of int32": (
        [node("Slice", "x s e a", "y")],
        {name: np.array([value], dtype=np.int32) for name, value in (("s", -2), ("e", -1), ("a", 1))},
        10,
        IMAGE,
    ),
    "gather one": ([node("Gather", "x i", "y", axis=1)], {"i": np.array(2)}, 17, IMAGE),
    "gather some": ([node("Gather", "x i", "y", axis=-2)], {"i": np.array([[2, -3], [2, 1]])}, 17, IMAGE),
    "pad": ([node("Pad", "x p", "y")], {"p": whole(0, 1, 0, 2, 0, 0, 3, 1)}, 17, IMAGE),
    "pad by a number": ([node("Pad", "x p c", "y")], {"p": whole(0, 0, 1, 0, 0, 0), "c": np.array(-1.5)}, 13, (3, 2)),
    "pad, cut": ([node("Pad", "x p", "y")], {"p": whole(0, -1, 1, 0, 0, -1, -1, 2)}, 17, IMAGE),
    "pad by attributes": ([node("Pad", "x", "y", pads=[0, 0, 1, 0, 2, 0], value=0.5)], {}, 8, (3, 2)),
    "pad, reflected": ([node("Pad", "x p", "y", mode="reflect")], {"p": whole(0, 0, 2, 1, 0, 0, 1, 0)}, 17, IMAGE),
    "pad, edge": ([node("Pad", "x p", "y", mode="edge")], {"p": whole(0, 0, 2, 0, 0, 0, 1, 3)}, 17, IMAGE),
    "pad with axes": ([node("Pad", "x p - a", "y")], {"p": whole(1, 0, 2, 1), "a": whole(-1, 2)}, 18, IMAGE),
    "pad around": ([node("Pad", "x p", "y", mode="wrap")], {"p": whole(0, 0, 2, 1, 0, 0, 1, 0)}, 19, IMAGE),
    "expand": ([node("Expand", "x s", "y")], {"s": whole(1, 3, 2, 4)}, 17, (3, 1, 4)),
    "expand with fewer axes": ([node("Expand", "x s", "y")], {"s": whole(5, 1)}, 17, (2, 1, 3)),
    "tile": ([node("Tile", "x r", "y")], {"r": whole(1, 2, 1, 3)}, 17, IMAGE),
    "depth to space": ([node("DepthToSpace", "x", "y", blocksize=2)], {}, 17, (8, 3, 2)),
    "depth to space, columns": ([node("DepthToSpace", "x", "y", blocksize=2, mode="CRD")], {}, 17, (8, 3, 2)),
    "depth to space of opset 8": ([node("DepthToSpace", "x", "y", blocksize=2)], {}, 8, (4, 1, 3)),
    "space to depth": ([node("SpaceToDepth", "x", "y", blocksize=2)], {}, 17, (2, 4, 6)),
    "upsample of opset 8": ([node("Upsample", "x", "y", scales=[1.0, 1.0, 2.0, 3.0])], {}, 8, IMAGE),
    "upsample of opset 9": ([node("Upsample", "x s", "y")], {"s": np.array([1.0, 1.0, 3.0, 2.0])}, 9, IMAGE),
    "resize of opset 10": ([node("Resize", "x s", "y")], {"s": np.array([1.0, 1.0, 2.0, 2.0])}, 10, IMAGE),
    "resize by sizes": ([node("Resize", "x - - s", "y")], {"s": whole(1, 4, 6, 6)}, 13, IMAGE),
    "resize with axes": ([node("Resize", "x - s", "y", axes=[3, 2])], {"s": np.array([2.0, 3.0])}, 18, IMAGE),
}


ONE = ("transpose, batch second", "concat with constants", "resize by sizes")
"""Of which the numbers are for one sample."""


def moved(name: str) -> Any:
    nodes, constants, opset, shape = MOVES[name]
    return model(nodes, constants, [1 if name in ONE else "N", *shape], opset)


@pytest.mark.parametrize("name", MOVES)
def test_numbers_that_are_moved_are_one_layer(name: str, rng: np.random.Generator) -> None:
    built = moved(name)
    network = load(built)
    assert kinds(network) == "Gather"
    agree(network, built, rng)
    found = run(built, rng.normal(size=(1, *network.input_shape)))
    batched = found.shape[0] == 1
    assert network.layers[-1].shape == (found.shape[1:] if batched else found.shape)


MODES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners")


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("mode", [*MODES, "tf_half_pixel_for_nn"])
def test_every_mode_of_resizing(mode: str, nearest: str, rng: np.random.Generator) -> None:
    opset = 19 if mode == "half_pixel_symmetric" else 11 if mode == "tf_half_pixel_for_nn" else 13
    how: Any = {"coordinate_transformation_mode": mode, "nearest_mode": nearest, "mode": "nearest"}
    for shape, scales in (((1, 3, 5), (1, 2, 3)), ((2, 1, 4), (1, 4, 5)), ((1, 7, 1), (3, 7, 6))):
        inputs = "x r s" if opset < 13 else "x - s"
        constants = {"r": np.zeros(0), "s": np.array([1.0, *scales])} if opset < 13 else {"s": np.array([1.0, *scales])}
        built = model([node("Resize", inputs, "y", **how)], constants, ["N", *shape], opset)
        network = load(built)
        assert kinds(network) == "Gather"
        agree(network, built, rng)


SPLITS: dict[str, tuple[Any, ...]] = {
    "equal": ({"axis": 1}, {}, 11, 3),
    "of given lengths": ({"axis": -1, "split": [1, 3]}, {}, 11, 2),
    "by an input": ({"axis": 1}, {"s": whole(1, 5)}, 13, 2),
    "by their number": ({"axis": 1, "num_outputs": 4}, {}, 18, 4),
}


@pytest.mark.parametrize("name", SPLITS)
def test_parts_that_are_split_off(name: str, rng: np.random.Generator) -> None:
    """Each part is scaled by a number of its own, and they are joined the other way round."""
    attributes, constants, opset, count = SPLITS[name]
    parts = [f"p{k}" for k in range(count)]
    axis = attributes["axis"]
    first = helper.make_node("Split", ["x", *constants], parts, name="split", **attributes)
    scaled = [node("Mul", f"{part} c{k}", f"m{k}") for k, part in enumerate(parts)]
    constants = constants | {f"c{k}": np.array(k - 1.5) for k in range(count)}
    last = node("Concat", " ".join(f"m{k}" for k in reversed(range(count))), "y", axis=axis)
    built = model([first, *scaled, last], constants, ["N", 7 if "number" in name else 6, 4], opset)
    network = load(built)
    assert kinds(network) == f"{' '.join(['Gather'] * count)} {' '.join(['Scale'] * count)} Gather"
    agree(network, built, rng)


def test_a_part_that_nothing_reads_is_no_layer(rng: np.random.Generator) -> None:
    nodes = [helper.make_node("Split", ["x"], ["a", "b"], name="s", axis=1), node("Relu", "b", "y")]
    network = load(built := model(nodes, {}, ["N", 6, 2], 11))
    assert kinds(network) == "Gather Relu" and network.layers[1].name == "b"
    agree(network, built, rng)


# --- gathers of gathers -------------------------------------------------------------------------------------


def test_channels_last_around_a_convolution_vanish(rng: np.random.Generator) -> None:
    """Transposes that cancel leave nothing, and a bias behind them is the layer's."""
    nodes = [
        node("Transpose", "x", "a", perm=[0, 2, 3, 1]),
        node("Transpose", "a", "b", perm=[0, 3, 1, 2]),
        node("Conv", "b w", "c"),
        node("Transpose", "c", "d", perm=[0, 2, 3, 1]),
        node("Transpose", "d", "e", perm=[0, 3, 1, 2]),
        node("Add", "e bias", "y"),
    ]
    constants = {"w": weights(rng, 3, 2, 2, 2), "bias": weights(rng, 3, 1, 1)}
    network = load(built := model(nodes, constants, ["N", 2, 4, 3]))
    assert kinds(network) == "Conv" and known_layers(network)[1].has_bias
    agree(network, built, rng)


def test_a_layer_that_others_read_keeps_its_numbers(rng: np.random.Generator) -> None:
    """The Add behind Transposes that cancel is no bias of a layer that is read elsewhere."""
    nodes = [
        node("MatMul", "x w", "m"),
        node("Reshape", "m s", "r"),
        node("Transpose", "r", "a", perm=[0, 2, 1]),
        node("Transpose", "a", "b", perm=[0, 2, 1]),
        node("Reshape", "b t", "c"),
        node("Add", "c bias", "d"),
        node("Relu", "a", "e"),
        node("Reshape", "e t", "f"),
        node("Add", "d f", "y"),
    ]
    constants = {"w": weights(rng, 4, 6), "bias": weights(rng, 6), "s": whole(-1, 2, 3), "t": whole(-1, 6)}
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Dense Gather Scale Relu Add" and not known_layers(network)[1].has_bias
    agree(network, built, rng)


def test_what_is_moved_twice_is_moved_once(rng: np.random.Generator) -> None:
    nodes = [
        node("Pad", "x p", "a"),
        node("Transpose", "a", "b", perm=[0, 2, 1]),
        node("Tile", "b r", "c"),
        node("Slice", "c one four one", "y"),
    ]
    constants = {"p": whole(0, 1, 0, 0, 0, 1), "r": whole(1, 1, 2), "one": whole(1), "four": whole(4)}
    network = load(built := model(nodes, constants, ["N", 3, 4]))
    assert kinds(network) == "Gather"
    agree(network, built, rng)


def test_grids_that_toolchains_may_put_between_stay_two_layers(rng: np.random.Generator) -> None:
    """A cut of a cut, a cut of a join, and a join of a cut: the numbers between have a range of their own."""
    cut = node("Slice", "x one three one", "a")
    for nodes, found in (
        ([cut, node("Gather", "a i", "y", axis=1)], "Gather Gather"),
        ([node("Mul", "x half", "m"), node("Concat", "x m", "a", axis=1), node("Gather", "a i", "y", axis=1)], None),
        ([cut, node("Mul", "x half", "m"), node("Concat", "a m", "y", axis=1)], "Gather Scale Gather"),
    ):
        constants = {"one": whole(1), "three": whole(3), "i": np.array([1]), "half": np.array(0.5)}
        network = load(built := model(nodes, constants, ["N", 4, 2]))
        assert kinds(network) == (found or "Scale Gather Gather")
        agree(network, built, rng)


def test_a_join_of_moved_numbers_reads_what_they_were(rng: np.random.Generator) -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("Transpose", "r", "a", perm=[0, 2, 1]),
        node("Transpose", "x", "b", perm=[0, 2, 1]),
        node("Concat", "a b a", "y", axis=2),
    ]
    network = load(built := model(nodes, {}, ["N", 3, 4]))
    assert kinds(network) == "Relu Gather" and network.layers[2].inputs == (1, 0)
    agree(network, built, rng)


def test_the_output_may_be_what_a_cancelled_transpose_read(rng: np.random.Generator) -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("Transpose", "r", "a", perm=[0, 2, 1]),
        node("Transpose", "a", "y", perm=[0, 2, 1]),
    ]
    network = load(built := model(nodes, {}, ["N", 3, 4]))
    assert kinds(network) == "Relu"
    agree(network, built, rng)


# --- shapes that exporters compute ------------------------------------------------------------------------


def test_shapes_computed_by_nodes_are_constants(rng: np.random.Generator) -> None:
    """Shape, Size, Gather, Concat, Slice, Range, Cast, Mul, Div, ConstantOfShape, Split and Where of integers."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "batch", axis=0),
        node("Size", "x", "size"),
        node("Div", "size batch", "each"),
        node("Div", "each two", "half"),
        node("Cast", "half", "float", to=TensorProto.FLOAT),
        node("Floor", "float", "floor"),
        node("Cast", "floor", "back", to=TensorProto.INT64),
        node("Unsqueeze", "back axis", "b"),
        node("Unsqueeze", "batch axis", "a"),
        node("Unsqueeze", "two axis", "t"),
        node("Concat", "a t b", "wanted", axis=0),
        node("Equal", "wanted wanted", "same"),
        node("ConstantOfShape", "three", "zeros", value=helper.make_tensor("v", TensorProto.INT64, [1], [0])),
        node("Where", "same wanted zeros", "shape"),
        helper.make_node("Split", ["shape"], ["front", "end"], name="parts", axis=0),
        node("Concat", "front end", "joined", axis=0),
        node("Reshape", "x joined", "r"),
        node("Range", "zero two one", "order"),
        node("Sub", "one order", "turned"),
        node("Gather", "r turned", "y", axis=1),
    ]
    constants = {"zero": np.array(0), "one": np.array(1), "two": np.array(2), "axis": whole(0)}
    nodes[15].attribute.append(helper.make_attribute("num_outputs", 2))
    network = load(built := model(nodes, constants | {"three": whole(3)}, ["N", 3, 4], 18))
    assert kinds(network) == "Gather" and network.layers[1].shape == (2, 6)
    agree(network, built, rng)


# --- what is refused ----------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, ...]] = {
    "concat of batches": (node("Concat", "x x", "y", axis=0), {}, "it joins along the batch axis of a tensor of shape"),
    "concat of other shapes": (node("Concat", "x c", "y", axis=1), {"c": np.ones((1, 2, 3))}, "which do not fit"),
    "concat of fewer axes": (node("Concat", "x c", "y", axis=1), {"c": np.ones(2)}, "another number of axes"),
    "split of batches": (
        node("Slice", "x s e a", "y"),
        {"s": whole(1), "e": whole(2), "a": whole(0)},
        "cuts along the",
    ),
    "nothing left": (
        node("Slice", "x s e a", "y"),
        {"s": whole(2), "e": whole(2), "a": whole(1)},
        "its result is empty",
    ),
    "step 0": (
        node("Slice", "x s e a t", "y"),
        {"s": whole(0), "e": whole(2), "a": whole(1), "t": whole(0)},
        "do not fit",
    ),
    "one sample": (node("Gather", "x i", "y", axis=0), {"i": np.array(0)}, "it picks along the batch axis"),
    "beyond": (node("Gather", "x i", "y", axis=1), {"i": np.array(7)}, "its indices leave axis 1 of shape"),
    "padded batch": (node("Pad", "x p", "y"), {"p": whole(1, 0, 0, 0, 0, 0)}, "it pads along the batch axis"),
    "pad mode": (node("Pad", "x p", "y", mode="odd"), {"p": whole(0, 0, 1, 0, 0, 0)}, "its mode is odd"),
    "reflected too far": (
        node("Pad", "x p", "y", mode="reflect"),
        {"p": whole(0, 0, 4, 0, 0, 0)},
        "which mode reflect does not",
    ),
    "expanded batch": (node("Expand", "x s", "y"), {"s": whole(2, 3, 4)}, "it expands along the batch axis"),
    "other expansion": (node("Expand", "x s", "y"), {"s": whole(5, 1)}, "does not expand to (5, 1)"),
    "tiled batch": (node("Tile", "x r", "y"), {"r": whole(2, 1, 1)}, "it repeats along the batch axis"),
    "no blocks": (node("DepthToSpace", "x", "y", blocksize=2), {}, "supported is (1, channels, height, width)"),
    "linear": (
        node("Resize", "x - s", "y", mode="linear"),
        {"s": np.array([1.0, 2.0, 2.0])},
        "its mode is linear; supported is nearest",
    ),
    "half as large": (
        node("Resize", "x - s", "y"),
        {"s": np.array([1.0, 1.0, 0.5])},
        "supported are whole numbers from 1",
    ),
    "too many": (node("Tile", "x r", "y"), {"r": whole(1, 2**40, 2**40)}, "has more than 67108864 numbers"),
    "too wide": (node("Pad", "x p", "y"), {"p": whole(0, 0, 2**62, 0, 0, 0)}, "has more than 67108864 numbers"),
    "too far": (node("Expand", "x s", "y"), {"s": whole(2**40, 1, 1, 1)}, "has more than 67108864 numbers"),
    "no number": (
        node("Resize", "x - s", "y"),
        {"s": np.array([1.0, np.inf, np.nan])},
        "supported are whole numbers from 1",
    ),
    "much larger": (node("Resize", "x - s", "y"), {"s": np.array([1.0, 1e18, 1.0])}, "has more than 67108864 numbers"),
    "cropped": (
        node("Resize", "x r s", "y", coordinate_transformation_mode="tf_crop_and_resize"),
        {"r": np.array([0, 0, 0, 1, 1, 1.0]), "s": np.array([1.0, 1.0, 2.0])},
        "its coordinate_transformation_mode is tf_crop_and_resize",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_move_of_numbers_is_refused(name: str) -> None:
    only, constants, says = REFUSED[name]
    with pytest.raises(UnsupportedModel) as caught:
        load(model([only], constants, ["N", 3, 4]))
    assert says in str(caught.value) and len(caught.value.problems) == 1


def test_after_a_softmax_only_shapes_may_change() -> None:
    nodes = [node("Softmax", "x", "p", axis=1), node("Slice", "p s e a", "y")]
    with pytest.raises(UnsupportedModel, match="it follows a Softmax"):
        load(model(nodes, {"s": whole(0), "e": whole(2), "a": whole(1)}, ["N", 4]))


def test_a_gather_checks_its_numbers() -> None:
    good = Gather("g", (0,), (2,), index=np.array([1, -1]), fill=np.array([0.0, 2.0]))
    assert good.repeats == 1 and good.drops([2]) and not good.drops([0])
    for index, fill in (([1], [0.0, 0.0]), ([1, -2], [0.0, 0.0]), ([1, 0], [1.0, 0.0]), ([0.5, 1.0], [0.0, 0.0])):
        with pytest.raises(Exception, match="Layer 'g'"):
            Gather("g", (0,), (2,), index=np.array(index), fill=np.array(fill))
    with pytest.raises(Exception, match="different layers"):
        Gather("g", (0, 0), (1,), index=np.array([0]), fill=np.zeros(1))
