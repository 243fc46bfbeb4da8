"""Witnesses on the page: evaluated whatever their layers, and believed only if they are whole and of this sample."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qverify import datasets
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Add, Input, Relu
from qverify.network import Network
from qverify.onnx.reader import save
from qverify.report.page import page
from qverify.report.pictures import Gallery, data_uri, galleries
from qverify.report.sources import Sources
from qverify.report.table import lines_of
from qverify.runs.reading import read_runs
from tests.support.networks import NETWORKS, conv, dense, known_layers, mlp, pool, relu, sample_member
from tests.support.runs_on_disk import question, row, write_batch, write_run


def _residual_image(rng: np.random.Generator) -> Network:
    """Two convolutions of one Relu, added; colour images."""
    stem = conv(rng, "stem", 0, (3, 5, 4), (4, 3, 2, 2))
    left, right = (conv(rng, name, 2, stem.out_shape, (4, 4, 1, 1)) for name in ("left", "right"))
    add = Add("add", (3, 4), left.shape)
    layers = (Input("x", (), (3, 5, 4)), stem, relu("relu0", 1, stem), left, right, add, relu("relu1", 5, add))
    return Network((*layers, dense(rng, "out", 6, 3, add.size)))


def _one_axis(rng: np.random.Generator) -> Any:
    """Convolution and pooling over one axis."""
    first = conv(rng, "conv", 0, (2, 1, 9), (3, 2, 1, 3), strides=(1, 2), pads=(0, 1, 0, 2))
    average = pool("pool", 2, first.out_shape, (1, 2))
    layers = (Input("x", (), (2, 9)), first, Relu("relu", (1,), first.shape), average)
    return Network((*layers, dense(rng, "out", 3, 3, average.size)))


def _grouped(rng: np.random.Generator) -> Any:
    first = conv(rng, "conv", 0, (3, 4, 5), (6, 1, 2, 2), groups=3, pads=(1, 0, 2, 1), strides=(2, 1))
    layers = (Input("x", (), (3, 4, 5)), first, relu("relu", 1, first))
    return Network((*layers, dense(rng, "out", 2, 4, first.size)))


SHOWN: dict[str, Callable[[np.random.Generator], Network]] = {
    "residual": _residual_image,
    "1-d": _one_axis,
    "grouped": _grouped,
    "dense": lambda rng: mlp(rng, 6, 5, 3),
}
SHOWN |= {name: NETWORKS[name] for name in ("conv_conv", "conv_pool", "conv_input_twice")}


def outputs(network: Network, x: np.ndarray) -> np.ndarray:
    """What a network without offsets answers, by the forward pass of the tests."""
    return sample_member(Family.of(network, Radii()), x.reshape(-1), np.random.default_rng(0), False)[-1]


def write_witness(folder: Path, network: Network, index: int, **arrays: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save(network, folder / f"{index}.onnx", dtype="float64")
    np.savez(folder / f"{index}.npz", **arrays)


class Made:
    """A run of one falsified sample, 2, whose witness is `network`; its label is whatever `network` does not answer."""

    def __init__(self, folder: Path, network: Network, rng: np.random.Generator) -> None:
        self.folder, self.network = folder, network
        shape = network.input_shape if len(network.input_shape) > 1 else (2, network.input_size // 2)
        self.x = rng.random((4, *shape))
        self.input = np.clip(self.x[2] + rng.uniform(-0.01, 0.01, shape), 0, 1)
        self.outputs = outputs(network, self.input)
        self.answer = int(self.outputs.argmax())
        self.label = (self.answer + 1) % len(self.outputs)
        self.margin = float(self.outputs[self.label] - self.outputs.max())
        folder.mkdir()
        np.savez(folder / "data.npz", x=self.x, y=np.full(4, self.label))
        self.run()
        self.keep()

    def run(self, **more: Any) -> None:
        """Writes the row and what was asked."""
        margins = {"margin_lower": None, "margin_upper": self.margin}
        stated = {"label": self.label, "predicted": self.label} | margins | more
        sha256 = datasets.load(self.folder / "data.npz").sha256
        asked = {"data": str(self.folder / "data.npz"), "data_sha256": sha256}
        write_run(self.folder / "run", [row(2, "falsified", "attack", **stated)], **asked)

    def keep(self, network: Network | None = None, **changes: Any) -> None:
        """Writes the witness."""
        shape = self.network.input_shape
        arrays = {"input": self.input.reshape(shape), "x": self.x[2].reshape(shape), "label": self.label}
        arrays |= {"rival": self.answer, "margin": self.margin} | changes
        write_witness(self.folder / "run" / "witnesses", network or self.network, 2, **arrays)

    def gallery(self) -> Gallery:
        (gallery,) = galleries(read_runs([str(self.folder / "run")]), Sources())
        return gallery

    def text(self) -> str:
        return unescape(page(lines_of(read_runs([str(self.folder / "run")]))))


@pytest.mark.parametrize("name", SHOWN)
def test_witnesses_of_every_kind_of_network_are_evaluated(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    made = Made(tmp_path / "made", SHOWN[name](rng), rng)
    gallery = made.gallery()
    assert gallery.missing == ""
    (picture,) = gallery.pictures
    assert picture.answer is not None and not picture.answer.again and picture.answer.recorded is None
    assert picture.answer.predicted == made.answer != made.label
    assert picture.answer.margin == pytest.approx(made.margin, rel=1e-9, abs=1e-12)
    assert picture.answer.picture == data_uri(made.input) != picture.picture
    text = made.text()
    assert "is damaged" not in text and f"the witness answers <b>{made.answer}</b> (margin" in text


def test_a_margin_that_was_recorded_otherwise_is_said(tmp_path: Path, rng: np.random.Generator) -> None:
    made = Made(tmp_path / "made", NETWORKS["conv_conv"](rng), rng)
    made.run(margin_upper=made.margin - 0.5)
    (picture,) = made.gallery().pictures
    assert picture.answer is not None and picture.answer.recorded == made.margin - 0.5
    assert picture.answer.margin == pytest.approx(made.margin, rel=1e-9)
    assert f"; the run recorded {made.margin - 0.5:.4g}".replace("-", "\u2212") in made.text()
    made.run()
    made.keep(margin=made.margin + 1e-3)
    (picture,) = made.gallery().pictures
    assert picture.answer is not None and picture.answer.recorded == made.margin + 1e-3
    made.keep()
    assert "the run recorded" not in made.text()


def test_a_tie_fails_and_is_said(tmp_path: Path, rng: np.random.Generator) -> None:
    made = Made(tmp_path / "made", mlp(rng, 6, 3), rng)
    level = replace(known_layers(made.network)[1], weight=np.zeros((3, 6)), bias=np.full(3, 0.25))
    made.run(margin_upper=0.0)
    made.keep(Network((made.network.layers[0], level)), margin=0.0)
    (picture,) = made.gallery().pictures
    assert picture.answer is not None and picture.answer.margin == 0 and picture.answer.predicted != made.label
    assert "</b> as much as the label (margin 0)" in made.text()


DAMAGE: dict[str, Any] = {
    "another input": lambda made: made.keep(input=made.input.reshape(-1)[:-1]),
    "not finite": lambda made: made.keep(input=np.full(made.input.shape, np.nan)),
    "another sample": lambda made: made.keep(x=made.x[1]),
    "another label": lambda made: made.keep(label=made.answer),
    "text": lambda made: made.keep(input=np.array(["a", "b"])),
    "objects": lambda made: made.keep(input=np.array([None, 1], dtype=object)),
    "no input": lambda made: np.savez(witness(made, "npz"), other=made.input),
    "no archive": lambda made: witness(made, "npz").write_bytes(b"PK\x03\x04 what is this"),
    "a lone array": lambda made: witness(made, "npz").write_bytes(lone(made.input)),
    "empty": lambda made: witness(made, "onnx").write_bytes(b""),
    "torn": lambda made: witness(made, "onnx").write_bytes(witness(made, "onnx").read_bytes()[:-40]),
    "fewer classes": lambda made: made.keep(mlp(np.random.default_rng(1), made.x[0].size, 1)),
    "another size": lambda made: made.keep(mlp(np.random.default_rng(1), made.x[0].size + 1, 4)),
    "infinite": lambda made: made.keep(infinite(made)),
    "a loop": lambda made: onnx.save(other(made, "Loop"), witness(made, "onnx")),
    "another operator": lambda made: onnx.save(other(made, "Softmax"), witness(made, "onnx")),
    "another domain": lambda made: onnx.save(other(made, "Relu", domain="mine"), witness(made, "onnx")),
    "weights elsewhere": lambda made: onnx.save(elsewhere(made), witness(made, "onnx")),
}


def witness(made: Made, kind: str) -> Path:
    return made.folder / "run" / "witnesses" / f"2.{kind}"


def lone(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def infinite(made: Made) -> Network:
    huge = np.finfo(float).max
    x, last = known_layers(mlp(np.random.default_rng(1), made.x[0].size, 4))
    return Network((x, replace(last, weight=np.full(last.weight.shape, huge), bias=np.full(4, huge))))


def other(made: Made, kind: str, **more: Any) -> onnx.ModelProto:
    """One node over the input."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N", made.x[0].size]) for name in ("input", "output")
    ]
    node = helper.make_node(kind, ["input"], ["output"], **more)
    return helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]), ir_version=8)


def elsewhere(made: Made) -> onnx.ModelProto:
    model = onnx.load(witness(made, "onnx"))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="data.npz")
    return model


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_called_so(kind: str, tmp_path: Path, rng: np.random.Generator) -> None:
    made = Made(tmp_path / "made", NETWORKS["conv_conv"](rng), rng)
    DAMAGE[kind](made)
    gallery = made.gallery()
    assert gallery.missing == "The witness of sample 2 is damaged, so its answer is missing."
    assert [picture.answer for picture in gallery.pictures] == [None]
    assert "it was not kept" not in made.text()


def test_all_damaged_witnesses_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    made = Made(tmp_path / "made", NETWORKS["conv_conv"](rng), rng)
    rows = [row(k, "falsified", "attack", label=made.label, predicted=made.label) for k in range(4)]
    asked = {"data": str(made.folder / "data.npz"), "data_sha256": datasets.load(made.folder / "data.npz").sha256}
    write_run(made.folder / "run", [*rows, row(7, "falsified", "attack")], **asked)
    for index in (1, 3):
        write_witness(made.folder / "run" / "witnesses", made.network, index, input=np.zeros(3))
    missing = made.gallery().missing
    assert "The witnesses of samples 1, 3 are damaged, so their answers are missing." in missing
    assert "Some rows do not fit the data set and have no picture." in missing


@pytest.mark.parametrize(
    "name",
    ["../../outside", "..", "{here}/outside", "a/../../../outside", "nul\0", pytest.param("x" * 5000, id="long")],
)
def test_no_case_leads_out_of_its_run(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """A witness lies where the case's name leads to; it is whole, and is not read."""
    made = Made(tmp_path / "made", SHOWN["dense"](rng), rng)
    arrays = {"input": made.input, "x": made.x[2], "label": made.label, "margin": made.margin}
    for folder in (tmp_path / "outside", made.folder / "outside", made.folder / "batch"):
        write_witness(folder, made.network, 2, **arrays)
    (made.folder / "batch" / "witnesses" / "a").mkdir(parents=True)
    name = name.format(here=tmp_path)
    asked = question(data=str(made.folder / "data.npz"), data_sha256=datasets.load(made.folder / "data.npz").sha256)
    rows = [row(2, "falsified", "attack", label=made.label, case=name)]
    (case,) = read_runs([str(write_batch(made.folder / "batch", {name: asked}, rows))])
    (gallery,) = galleries([case], Sources())
    assert [picture.answer for picture in gallery.pictures] == [None]


def test_witnesses_do_not_lie_behind_a_link(tmp_path: Path, rng: np.random.Generator) -> None:
    made = Made(tmp_path / "made", SHOWN["dense"](rng), rng)
    (made.folder / "run" / "witnesses").rename(tmp_path / "moved")
    (made.folder / "run" / "witnesses").symlink_to(tmp_path / "moved")
    assert [picture.answer for picture in made.gallery().pictures] == [None]
