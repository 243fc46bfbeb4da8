"""Files of onnxruntime whose tensors are moved, cut and joined: what `--points onnxruntime` says of them holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import qverify
from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.schemes import rounded_places
from qverify.family.steps import Quantiser
from qverify.gather import Gather
from qverify.layers import Rounding
from qverify.replication.coverage import coverage
from tests.support.dynamic import DynamicForm, dynamic_file
from tests.support.networks import NETWORKS
from tests.support.toolchain import Form, model, outputs, quantised

Array = np.ndarray
FORMS = [Form(), Form(channel=False), Form("QOperator", channel=False), Form("QOperator", weight="QUInt8")]
CONSTANTS = {
    "lo": [1],
    "hi": [4],
    "rows": [2],
    "pads": [0, 0, 1, 0, 0, 0, 0, 1],
    "scales": [1.0, 1.0, 2.0, 2.0],
    "order": [2, 0, 1],
}


def conv(source: str, name: str, weight: str) -> list[Any]:
    return [
        helper.make_node("Conv", [source, weight, f"{weight}b"], [f"{name}z"], name=f"{name}z"),
        helper.make_node("Relu", [f"{name}z"], [name], name=name),
    ]


def tail(source: str) -> list[Any]:
    return [
        helper.make_node("Flatten", [source], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "V", "Vb"], ["y"], name="y", transB=1),
    ]


def only(kind: str, inputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, ["m"], name="m", **attributes)


MIDDLES: dict[str, list[Any]] = {
    "transpose": [only("Transpose", ["r"], perm=[0, 2, 3, 1])],
    "slice": [only("Slice", ["r", "lo", "hi", "rows"])],
    "pad": [only("Pad", ["r", "pads"])],
    "reflect": [only("Pad", ["r", "pads"], mode="reflect")],
    "resize": [only("Resize", ["r", "", "scales"])],
    "gather": [only("Gather", ["r", "order"], axis=1)],
    "pick": [only("Gather", ["r", "lo"], axis=1)],
    "concat": [*conv("r", "s", "U"), only("Concat", ["r", "s"], axis=1)],
    "skip": [only("Concat", ["r", "x"], axis=1)],
    "split": [
        helper.make_node("Split", ["r"], ["left", "right"], name="split", axis=2),
        *conv("left", "s", "U"),
        only("Concat", ["s", "right"], axis=3),
    ],
    "cut and joined": [
        helper.make_node("Slice", ["r", "lo", "hi", "rows"], ["cut"], name="cut"),
        *conv("cut", "s", "U"),
        only("Concat", ["cut", "s"], axis=1),
    ],
}


def built(name: str, rng: np.random.Generator, size: int) -> Any:
    shape = {"W": (3, 2, 1, 1), "Wb": (3,), "U": (3, 3, 1, 1), "Ub": (3,), "V": (4, size), "Vb": (4,)}
    constants: dict[str, Any] = {key: rng.normal(size=dims) for key, dims in shape.items()}
    made = model([*conv("x", "r", "W"), *MIDDLES[name], *tail("m")], constants, (2, 4, 4), 4)
    read = {key for node in made.graph.node for key in node.input}
    for key, value in CONSTANTS.items():
        array = np.array(value, dtype=np.float32 if key == "scales" else np.int64)
        made.graph.initializer.append(numpy_helper.from_array(array, key))
    for tensor in [tensor for tensor in made.graph.initializer if tensor.name not in read]:
        made.graph.initializer.remove(tensor)
    return made


SIZES = {
    "transpose": 48,
    "slice": 36,
    "pad": 75,
    "reflect": 75,
    "resize": 192,
    "gather": 48,
    "pick": 16,
    "concat": 96,
    "skip": 80,
    "split": 48,
    "cut and joined": 72,
}


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("name", MIDDLES)
def test_files_are_read_and_covered(name: str, form: Form, rng: np.random.Generator) -> None:
    source = built(name, rng, SIZES[name])
    x = rng.normal(size=(12, 2, 4, 4)).astype(np.float32)
    written = quantised(source, x, form)
    file, network = qverify.load(written), qverify.load(source)
    assert any(isinstance(layer, Gather) for layer in file.layers)
    scheme = "channel" if form.channel else "tensor"
    radii = Radii.of(Quantiser(8, scheme, "nearest", points="onnxruntime"), network, x.astype(np.float64))
    family = Family.of(network, radii)
    parts = coverage(network, file, family, "nearest")
    assert [str(vars(part)) for part in parts if not part.covered] == []
    bounds_model, found = BoundModel.of(family), outputs(written, x[:4], optimised=False)
    lower, upper = family.box(x[:4].reshape(4, -1).astype(np.float64))
    bounds = interval_bounds(bounds_model, bounds_model.tensor(lower), bounds_model.tensor(upper))
    assert (found >= bounds.lower[-1].numpy() - 1e-5).all() and (found <= bounds.upper[-1].numpy() + 1e-5).all()


def test_where_toolchains_round_what_is_moved(rng: np.random.Generator) -> None:
    """Joins are rounded again, and cuts may be; what only moves is not."""
    places = {}
    for name in ("transpose", "slice", "concat"):
        network = qverify.load(built(name, rng, SIZES[name]))
        at = network.index("m")
        for points in ("activations", "onnxruntime", "tflite"):
            places[name, points] = at in rounded_places(network, points)
    assert {key for key, rounded in places.items() if rounded} == {
        ("slice", "onnxruntime"), ("concat", "onnxruntime"), ("concat", "tflite")
    }  # fmt: skip


def test_what_toolchains_do_in_ways_of_their_own_is_refused(rng: np.random.Generator) -> None:
    network = NETWORKS["joined"](rng)
    x = rng.normal(size=(9, 3))
    with pytest.raises(RadiiError, match=r"'joined' puts constants other than 0 beside numbers"):
        Radii.of(Quantiser(8, "tensor", points="onnxruntime"), network, x)
    heads = NETWORKS["gather_last"](rng)
    with pytest.raises(RadiiError, match=r"'heads' joins several layers, which TensorFlow Lite all rounds to one grid"):
        Radii.of(Quantiser(8, "tensor", points="tflite"), heads, rng.normal(size=(9, 4)))
    with pytest.raises(RadiiError, match=r"Relu 'relu' comes behind the Gather 'cut'"):
        Radii.of(Quantiser(8, "tensor", points="onnxruntime"), NETWORKS["conv_moved"](rng), rng.normal(size=(9, 12)))
    for other in (network, heads):
        Radii.of(Quantiser(8, "tensor"), other, rng.normal(size=(9, other.input_size)))


@pytest.mark.parametrize("form", [Form(), Form("QOperator", channel=False)], ids=str)
def test_numbers_that_stay_on_a_grid_have_no_second_point(form: Form, rng: np.random.Generator) -> None:
    x = rng.normal(size=(12, 2, 4, 4)).astype(np.float32)
    for name, points in (("transpose", 3), ("gather", 3), ("pad", 3), ("resize", 3), ("concat", 5)):
        file = qverify.load(quantised(built(name, rng, SIZES[name]), x, form))
        assert sum(isinstance(layer, Rounding) for layer in file.layers) == points, name


@pytest.mark.parametrize("name", ["pad", "resize", "cut and joined"])
def test_runs_of_dynamic_files_lie_in_the_bounds(name: str, rng: np.random.Generator) -> None:
    """With all that float32 can get wrong, and constants of a Gather exact."""
    written = dynamic_file(built(name, rng, SIZES[name]), DynamicForm())
    network = qverify.load(written)
    assert network.dynamic and any(isinstance(layer, Gather) for layer in network.layers)
    family = Family.of(network, Radii.of_file(network, "float32"))
    x = rng.normal(size=(5, 2, 4, 4)).astype(np.float32)
    lower, upper = family.box(x.reshape(5, -1).astype(np.float64))
    bounds_model = BoundModel.of(family)
    bounds = interval_bounds(bounds_model, bounds_model.tensor(lower), bounds_model.tensor(upper))
    found = outputs(written, x, optimised=False)
    assert (found >= bounds.lower[-1].numpy()).all() and (found <= bounds.upper[-1].numpy()).all()
