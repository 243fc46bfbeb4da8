"""Architectures by name: the grammar, what it builds, how that is initialised, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qverify.errors import UsageError
from qverify.training.architectures import build
from qverify.training.live_network import LiveNetwork


def built(text: str, shape: tuple[int, ...] = (1, 9, 8), classes: int = 4, seed: int = 0) -> nn.Sequential:
    return build(text, shape, classes, torch.Generator().manual_seed(seed))


def sizes(module: nn.Sequential) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight tensor, names of the rest with ()."""
    return {n: tuple(getattr(layer, "weight", torch.zeros(())).shape) for n, layer in module.named_children()}


def test_mlp() -> None:
    assert sizes(built("mlp:7,5")) == {
        "flatten": (),
        "dense1": (7, 72),
        "relu1": (),
        "dense2": (5, 7),
        "relu2": (),
        "dense3": (4, 5),
    }
    assert sizes(built(" mlp: 7 , 5 ", (72,))) == sizes(built("mlp:7,5"))


def test_conv() -> None:
    module = built("conv:6k4s2p1,5k2s1p0/11,7", (3, 9, 8))
    assert sizes(module) == {
        "conv1": (6, 3, 4, 4),
        "relu1": (),
        "conv2": (5, 6, 2, 2),
        "relu2": (),
        "flatten": (),
        "dense1": (11, 5 * 3 * 3),
        "relu3": (),
        "dense2": (7, 11),
        "relu4": (),
        "dense3": (4, 7),
    }
    assert (module.conv1.stride, module.conv1.padding) == ((2, 2), (1, 1))  # type: ignore[comparison-overlap, union-attr]
    assert (module.conv2.stride, module.conv2.padding) == ((1, 1), (0, 0))  # type: ignore[comparison-overlap, union-attr]
    assert module(torch.rand(5, 3, 9, 8)).shape == (5, 4)


@pytest.mark.parametrize(
    ("word", "kernel", "stride", "pad"),
    [("6", 3, 1, 1), ("6k4", 4, 1, 2), ("6k1", 1, 1, 0), ("6s2", 3, 2, 1), ("6p0", 3, 1, 0), ("6k5p3", 5, 1, 3)],
)
def test_defaults_of_a_convolution(word: str, kernel: int, stride: int, pad: int) -> None:
    conv = built(f"conv:{word}").conv1
    assert (conv.out_channels, conv.kernel_size[0], conv.stride[0], conv.padding[0]) == (6, kernel, stride, pad)  # type: ignore[index, union-attr]


def test_dense_widths_may_be_left_out() -> None:
    assert list(sizes(built("conv:6"))) == ["conv1", "relu1", "flatten", "dense1"]
    assert sizes(built("conv:6"))["dense1"] == (4, 6 * 9 * 8)


def test_images_without_channels_get_one() -> None:
    module = built("conv:6k2p0", (9, 8))
    assert module.conv1.in_channels == 1 and module(torch.rand(5, 9, 8)).shape == (5, 4)  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["mlp:7,5", "conv:6k4s2p1,5/11"])
def test_what_is_built_can_be_verified(text: str) -> None:
    """Layer names survive, as `qverify inspect` shows them."""
    module = built(text)
    layers = LiveNetwork.trace(module, (1, 9, 8)).network.layers
    assert [la.name for la in layers[1:]] == [name for name, _ in module.named_children() if name != "flatten"]


# --- initialisation ---


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    first = built("conv:6/11", seed=3).state_dict()
    torch.manual_seed(99)
    second, other = built("conv:6/11", seed=3).state_dict(), built("conv:6/11", seed=4).state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name]) and torch.equal(value, other[name]) is name.endswith("bias")


@pytest.mark.parametrize(("text", "fan_in"), [("mlp:400", 72), ("conv:400k5", 25)])
def test_weights_have_variance_two_over_fan_in(text: str, fan_in: int) -> None:
    """10,000 draws and more: their variance is known to 3 %, their mean to a hundredth of the deviation."""
    first = next(layer for layer in built(text) if isinstance(layer, (nn.Linear, nn.Conv2d)))
    weight = first.weight.detach()
    assert float(weight.var()) == pytest.approx(2 / fan_in, rel=0.06)
    assert abs(float(weight.mean())) < 0.04 * (2 / fan_in) ** 0.5
    assert float(weight.abs().max()) > 3 * (2 / fan_in) ** 0.5  # normal, not uniform
    assert not first.bias.any()  # type: ignore[union-attr]


# --- refusals ---


@pytest.mark.parametrize("text", ["", "mlp", "256,256", "MLP:256", "cnn:8", "resnet18", "mlp:", "conv:", "conv:/10"])
def test_no_architecture(text: str) -> None:
    with pytest.raises(UsageError, match=r"^(There is no a|The a)rchitecture .*; write for example mlp:256.*\.$"):
        built(text)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("mlp:8,,9", "8,,9"),
        ("mlp:8,0", "8,0"),
        ("mlp:-8", "-8"),
        ("mlp:8.5", "8.5"),
        ("mlp:08", "08"),
        ("mlp:8;9", "8;9"),
        ("mlp:٣", "٣"),
        ("conv:8,", ""),
        ("conv:0", "0"),
        ("conv:00", "00"),
        ("conv:8k0", "8k0"),
        ("conv:8k00", "8k00"),
        ("conv:8s0", "8s0"),
        ("conv:8s00", "8s00"),
        ("conv:8s2k4", "8s2k4"),
        ("conv:8k", "8k"),
        ("conv:8x4", "8x4"),
        ("conv:8/", ""),
        ("conv:8/0", "0"),
        ("conv:8/10/10", "10/10"),
        *(("conv:" + word, word) for word in ("9" * 400, "8k" + "9" * 400, "8s" + "1" * 5000, "8k4p" + "1" * 5000)),
    ],
)
def test_slips_are_pointed_out(text: str, at: str) -> None:
    with pytest.raises(UsageError) as caught:
        built(text)
    assert str(caught.value) == (
        f"The architecture {text!r} is not understood at {at!r};"
        " write for example mlp:256,256,256 or conv:8k4s2p1,16k4s2p1/100."
    )


def test_kernels_larger_than_the_image() -> None:
    with pytest.raises(UsageError, match=r"no pixels left after '6k9p0'; use smaller kernels\.$"):
        built("conv:6k9p0", (1, 9, 8))
    assert built("conv:6k8p0", (1, 9, 8)).conv1(torch.rand(1, 1, 9, 8)).shape == (1, 6, 2, 1)  # type: ignore[operator]
    with pytest.raises(UsageError, match="no pixels left after '6k3s1p0'"):
        built("conv:6k4s4p0,6k3s1p0", (1, 9, 8))


@pytest.mark.parametrize("shape", [(72,), (2, 3, 4, 3)])
def test_convolutions_need_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"^The samples have shape \(.*\), no image; use an mlp: architecture\.$"):
        built("conv:8", shape)


@pytest.mark.parametrize("text", ["mlp:9999999", "mlp:10,9999999,99999", "conv:999999999k9", "conv:8k99999p99999"])
def test_layers_too_large_for_any_memory(text: str) -> None:
    with pytest.raises(UsageError, match=r"has a layer of \d\.\de\+\d+ weights; make it smaller\.$"):
        built(text)
