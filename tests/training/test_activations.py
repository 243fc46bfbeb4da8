"""Activations of torch: what is traced computes what torch does, bounds hold for it, and training moves its slopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qverify.activations.layer import Activation
from qverify.bounds.interval import interval_bounds, interval_margins
from qverify.bounds.tensors import BoundModel
from qverify.errors import UnsupportedModel
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.steps import Quantiser
from qverify.training.live_family import live_bounds, live_family
from qverify.training.live_network import LiveNetwork

MODULES: dict[str, nn.Module] = {
    "LeakyReLU": nn.LeakyReLU(0.2, inplace=True),
    "ReLU6": nn.ReLU6(),
    "Hardtanh": nn.Hardtanh(-0.3, 0.8),
    "Sigmoid": nn.Sigmoid(),
    "Tanh": nn.Tanh(),
    "Softplus": nn.Softplus(),
    "ELU": nn.ELU(1.7),
    "CELU": nn.CELU(0.6),
    "SELU": nn.SELU(),
    "GELU": nn.GELU(),
    "GELU by tanh": nn.GELU("tanh"),
    "SiLU": nn.SiLU(),
    "Hardsigmoid": nn.Hardsigmoid(),
    "Hardswish": nn.Hardswish(),
    "Softsign": nn.Softsign(),
    "PReLU": nn.PReLU(),
    "PReLU of channels": nn.PReLU(3, 0.7),
}
CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky_relu": lambda x: F.leaky_relu(x, 0.3),
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, max_val=0.5),
    "clamp": lambda x: x.clamp(-0.2, 0.4),
    "clamp from above": lambda x: torch.clamp(x, max=0.4),
    "clip": lambda x: torch.clip(x, -0.1, 0.6),
    "sigmoid": torch.sigmoid,
    "sigmoid of x": lambda x: x.sigmoid(),
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "elu": lambda x: F.elu(x, alpha=0.5),
    "celu": lambda x: F.celu(x, 0.5),
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "softsign": F.softsign,
    "abs": torch.abs,
    "exp": lambda x: x.exp(),
    "erf": torch.erf,
}


class _Calling(nn.Module):
    def __init__(self, call: Callable[[Tensor], Tensor]):
        super().__init__()
        self.first, self.last, self.call = nn.Conv2d(1, 3, 2), nn.Linear(12, 3), call

    def forward(self, x: Tensor) -> Any:
        return self.last(torch.flatten(self.call(self.first(x)), 1))


def _modules() -> dict[str, nn.Module]:
    torch.manual_seed(3)
    found = {name: nn.Sequential(nn.Conv2d(1, 3, 2), m, nn.Flatten(), nn.Linear(12, 3)) for name, m in MODULES.items()}
    return {**found, **{f"call of {name}": _Calling(call) for name, call in CALLS.items()}}


CASES = _modules()


@pytest.mark.parametrize("name", CASES)
def test_what_is_traced_is_what_torch_computes(name: str, rng: np.random.Generator) -> None:
    module = CASES[name].double()
    live = LiveNetwork.trace(module, (1, 3, 3))
    assert [type(layer).__name__ for layer in live.network.layers] == ["Input", "Conv", "Activation", "Dense"]
    x = 6.0 * rng.normal(size=(200, 1, 3, 3))
    wanted = module(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(live.frozen().evaluate(x), wanted, rtol=1e-9, atol=3e-9)


@pytest.mark.parametrize("name", CASES)
def test_bounds_in_training_are_those_that_verify(name: str, rng: np.random.Generator) -> None:
    """By schemes paper and channel: the margins of the live family are near those of the family of the frozen network,
    which hold; and there is a gradient."""
    module = CASES[name].double()
    live = LiveNetwork.trace(module, (1, 3, 3))
    x = torch.tensor(rng.normal(size=(5, 9)))
    labels = torch.tensor([0, 1, 2, 0, 1])
    for quantiser in (Quantiser(6, "paper"), Quantiser(8, "channel")):
        family = live_family(live, quantiser)
        family.observe(live.values(x.reshape(5, 1, 3, 3)))
        model, bounds = live_bounds(family, 1.0, x)
        margins = interval_margins(model, bounds, labels)
        weight = next(iter(live.parameters.values()))[0]
        (gradient,) = torch.autograd.grad(margins[torch.isfinite(margins)].sum(), [weight])
        assert bool(torch.isfinite(gradient).all()) and bool((gradient != 0).any())
        proved = Family.of(live.frozen(), family.radii(x.numpy()))
        frozen = BoundModel.of(proved)
        ends = [torch.tensor(end) for end in proved.box(x.numpy())]
        again = interval_margins(frozen, interval_bounds(frozen, ends[0], ends[1]), labels)
        torch.testing.assert_close(margins, again, rtol=2e-2, atol=2e-2)


def test_slopes_of_a_prelu_are_trained() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(4, 3), nn.PReLU(3), nn.Linear(3, 2))
    live = LiveNetwork.trace(module, (4,))
    family = live_family(live, Radii(0.05, 0.05, 0.05, 0.05))
    model, bounds = live_bounds(family, 1.0, torch.randn(6, 4))
    loss = -interval_margins(model, bounds, torch.zeros(6, dtype=torch.int64))[:, 1].sum()
    prelu: Any = module[1]
    (gradient,) = torch.autograd.grad(loss, [prelu.weight])
    assert bool((gradient != 0).any())
    with torch.no_grad():
        prelu.weight.copy_(torch.tensor([0.5, -0.25, 2.0]))
    layer = live.frozen().layers[2]
    assert isinstance(layer, Activation) and layer.parameters[0].tolist() == [0.5, -0.25, 2.0]


@pytest.mark.parametrize(
    "module", [nn.ELU(-0.5), nn.Softplus(beta=2), nn.Softplus(threshold=2), nn.Threshold(0.1, 20), nn.Mish()]
)
def test_what_is_no_such_activation_is_refused(module: nn.Module) -> None:
    with pytest.raises(UnsupportedModel):
        LiveNetwork.trace(nn.Sequential(nn.Linear(4, 3), module), (4,))
