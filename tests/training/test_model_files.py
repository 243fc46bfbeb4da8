"""Files of a training: written whole or not at all, and read back only if they are what was written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qverify
from qverify.errors import DataError, InternalError, OutputError, UsageError
from qverify.onnx.writer import save
from qverify.training import model_files
from qverify.training.model_files import (
    checkpoint_path,
    read_checkpoint,
    refuse_taken,
    remove_checkpoint,
    write_checkpoint,
    write_model,
)
from tests.support.networks import known_layers, mlp

QUESTION = {"data": "digits", "settings": {"epochs": 3, "lr": 0.1}, "bits": None}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "m.onnx"


def kept(model: Path) -> dict[str, Any]:
    state = {"weight": torch.arange(6.0).reshape(2, 3), "seconds": 1.5, "history": [{"number": 1}]}
    write_checkpoint(model, QUESTION, state)
    return state


def test_a_checkpoint_comes_back(model: Path) -> None:
    state = kept(model)
    found = read_checkpoint(model, QUESTION)
    assert torch.equal(found.pop("weight"), state.pop("weight")) and found == state
    assert [path.name for path in model.parent.iterdir()] == ["m.onnx.checkpoint"]
    remove_checkpoint(model)
    remove_checkpoint(model)  # is gone already
    with pytest.raises(UsageError, match="There is no checkpoint"):
        read_checkpoint(model, QUESTION)


@pytest.mark.parametrize("place", [0, 0.3, 0.6, 0.999])
def test_a_bit_that_flipped_is_noticed(place: float, model: Path) -> None:
    kept(model)
    content = bytearray(checkpoint_path(model).read_bytes())
    content[int(place * len(content))] ^= 1
    checkpoint_path(model).write_bytes(content)
    with pytest.raises(DataError, match="is damaged or of another version"):
        read_checkpoint(model, QUESTION)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_checkpoint(content: bytes, model: Path) -> None:
    checkpoint_path(model).write_bytes(content + hashlib.sha256(content).digest())
    with pytest.raises(DataError, match="is damaged or of another version"):
        read_checkpoint(model, QUESTION)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (QUESTION | {"data": "mnist"}, "data was 'digits' and is 'mnist' now"),
        (QUESTION | {"settings": {"epochs": 4, "lr": 0.1}}, "settings.epochs was 3 and is 4 now"),
        (QUESTION | {"more": 1}, "more was None and is 1 now"),
    ],
)
def test_another_question_is_named(other: dict[str, Any], said: str, model: Path) -> None:
    kept(model)
    with pytest.raises(UsageError) as caught:
        read_checkpoint(model, other)
    assert said in str(caught.value)


def test_a_model_is_written_with_its_description_and_read_back(model: Path, rng: np.random.Generator) -> None:
    network = qverify.Network(mlp(rng, 4, 5, 3).layers, "trained")
    single = network.with_layers(
        {
            i: type(la)(la.name, la.inputs, la.shape, np.float32(la.weight), np.float32(la.bias))
            for i, la in ((i, known_layers(network)[i]) for i in network.weighted)
        }
    )
    facts = write_model(model, single, lambda again: {"outputs": again.output_size})
    assert facts == json.loads(model.with_suffix(".json").read_text())
    assert facts["outputs"] == 3 and facts["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    x = rng.random((5, 4))
    np.testing.assert_array_equal(qverify.load(model).evaluate(x), single.evaluate(x))
    assert sorted(path.name for path in model.parent.iterdir()) == ["m.json", "m.onnx"]


def test_a_file_that_does_not_hold_the_network_is_an_internal_error(
    model: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = mlp(rng, 4, 5, 3), mlp(rng, 4, 5, 3)
    before = save
    monkeypatch.setattr(model_files, "save", lambda network, path: before(other, path))
    with pytest.raises(InternalError, match="does not hold the network that was trained"):
        write_model(model, one, lambda again: {})
    assert not model.with_suffix(".json").exists()


def test_nothing_is_overwritten(model: Path) -> None:
    refuse_taken(model, resume=False)
    assert list(model.parent.iterdir()) == []
    with pytest.raises(UsageError, match=r"must end in \.onnx"):
        refuse_taken(model.with_suffix(".txt"), resume=False)
    kept(model)
    with pytest.raises(UsageError, match="holds a training; add --resume"):
        refuse_taken(model, resume=False)
    refuse_taken(model, resume=True)
    remove_checkpoint(model)
    model.write_bytes(b"")
    with pytest.raises(UsageError, match="exists already"):
        refuse_taken(model, resume=False)


def test_a_folder_that_cannot_be(model: Path) -> None:
    model.parent.joinpath("file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        refuse_taken(model.parent / "file" / "m.onnx", resume=False)
