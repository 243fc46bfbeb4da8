"""Samples, labels, callbacks and devices as functions of the library take them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from qverify.errors import DataError, RadiiError, UsageError
from qverify.family.radii import Radii
from qverify.verification.arguments import callbacks, checked, checked_inputs, checked_question, usable_device
from qverify.verification.verdict import Options
from tests.support.networks import NETWORKS, mlp


@pytest.mark.parametrize("given", [np.float32, np.int8, np.float64])
def test_samples_become_flat_rows_of_float64(given: type[Any], rng: np.random.Generator) -> None:
    network = NETWORKS["conv_conv"](rng)
    images = (10 * rng.random((3, *network.input_shape))).astype(given)
    for x in (images, images.reshape(3, -1), torch.as_tensor(images), images.tolist()):
        found = checked_inputs(network, x)
        assert found.shape == (3, network.input_size) and found.dtype == np.float64
        np.testing.assert_array_equal(found, images.reshape(3, -1).astype(np.float64))


@pytest.mark.parametrize("labels", [[0, 2, 1], np.array([[0], [2], [1]]), np.array([0, 2, 1], np.uint8)])
def test_labels_become_whole_numbers(labels: np.ndarray | list[int], rng: np.random.Generator) -> None:
    x, y = checked(mlp(rng, 4, 3), np.zeros((3, 4)), labels)
    assert y.tolist() == [0, 2, 1] and np.issubdtype(y.dtype, np.integer) and len(x) == 3


@pytest.mark.parametrize(
    "labels", [[0, 1], [0, 1, -1], [0.0, 1.0, 2.0], [[0], [1, 2]], "abc", [0, 1, 2**31], [0, 1, 3]]
)
def test_labels_that_do_not_fit(labels: list[float | list[int]] | str, rng: np.random.Generator) -> None:
    with pytest.raises(DataError, match="label"):
        checked(mlp(rng, 4, 3), np.zeros((3, 4)), labels)


@pytest.mark.parametrize(
    "x", [np.zeros(4), np.zeros((0, 4)), np.zeros((2, 5)), [[np.inf] * 4], "digits", [[1], [1, 2]]]
)
def test_samples_that_do_not_fit(x: Any, rng: np.random.Generator) -> None:
    with pytest.raises(DataError, match=r"\.$"):
        checked_inputs(mlp(rng, 4, 3), x)


def test_what_is_no_network() -> None:
    with pytest.raises(UsageError, match="The network"):
        checked_inputs("model.onnx", np.zeros((1, 4)))  # type: ignore[arg-type]


def test_callbacks_can_be_called_or_are_none() -> None:
    callbacks(None, on_verdict=None)
    callbacks(threading.Event(), on_verdict=print)
    with pytest.raises(UsageError, match=r"stop is True; give a threading\.Event"):
        callbacks(True)
    with pytest.raises(UsageError, match="on_verdict is the int 3; give a function"):
        callbacks(None, on_verdict=3)


def test_a_question_is_what_its_parts_are_called(rng: np.random.Generator) -> None:
    network, stop = mlp(rng, 4, 3), threading.Event()
    checked_question(network, Radii(), Options(), stop)
    for place, error in enumerate((UsageError, RadiiError, UsageError, UsageError)):
        given = [network, Radii(), Options(), stop]
        given[place] = object()
        with pytest.raises(error, match=r"\.$"):
            checked_question(*given)


def test_devices_that_torch_has() -> None:
    assert usable_device("cpu") == "cpu"
    for wrong in ("nowhere", "meta", 3):
        with pytest.raises(UsageError, match=r"[Dd]evice"):
            usable_device(wrong)  # type: ignore[arg-type]
