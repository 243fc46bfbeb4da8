"""Activations of torch, as modules and as functions, as those of `qverify.activations`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

_LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Form:
    """The arguments of one activation behind its input, with their defaults; what they make: the name of a function and
    its parameters, "relu", or None if it is not supported so."""

    make: Callable[..., tuple[str, tuple[float, ...]] | None]
    arguments: tuple[tuple[str, Any], ...] = ()

    def of_module(self, module: nn.Module) -> tuple[str, tuple[float, ...]] | None:
        """That of a module, which has the arguments as attributes."""
        return self.make(*(getattr(module, name) for name, _ in self.arguments))

    def of_call(self, node: fx.Node) -> tuple[str, tuple[float, ...]] | None:
        """That of a call in a trace; None where an argument is computed."""
        given = dict(zip((name for name, _ in self.arguments), node.args[1:], strict=False)) | node.kwargs
        values = [given.get(name, usual) for name, usual in self.arguments]
        known = {name for name, _ in self.arguments} | {"inplace", "input"}
        if any(isinstance(value, fx.Node) for value in values) or set(given) - known:
            return None
        return self.make(*values)


def _named(name: str) -> Form:
    return Form(lambda: (name, ()))


def _clamped(low: float | None, high: float | None) -> tuple[str, tuple[float, ...]] | None:
    if low == 0 and high is None:
        return "relu", ()
    ends = (-_LARGEST if low is None else float(low), _LARGEST if high is None else float(high))
    return ("clip", ends) if ends[0] <= ends[1] else None


_FORMS: dict[str, Form] = {
    "leaky_relu": Form(lambda slope: ("leaky_relu", (slope,)), (("negative_slope", 0.01),)),
    "relu6": Form(lambda: ("clip", (0.0, 6.0))),
    "hardtanh": Form(_clamped, (("min_val", -1.0), ("max_val", 1.0))),
    "clamp": Form(_clamped, (("min", None), ("max", None))),
    "hardsigmoid": Form(lambda: ("hard_sigmoid", (1.0 / 6.0, 0.5))),
    "softplus": Form(
        lambda beta, threshold: ("softplus", ()) if beta == 1 and threshold >= 20 else None,
        (("beta", 1.0), ("threshold", 20.0)),
    ),
    "elu": Form(lambda alpha: ("elu", (alpha,)) if alpha > 0 else None, (("alpha", 1.0),)),
    "celu": Form(lambda alpha: ("celu", (alpha,)) if alpha > 0 else None, (("alpha", 1.0),)),
    "selu": Form(lambda: ("selu", (1.6732632423543772848170429916717, 1.0507009873554804934193349852946))),
    "gelu": Form(lambda form: {"none": ("gelu", ()), "tanh": ("gelu_tanh", ())}.get(form), (("approximate", "none"),)),
    "hardswish": _named("hard_swish"),
    **{name: _named(name) for name in ("sigmoid", "tanh", "silu", "softsign", "exp", "erf", "abs")},
}

MODULES: dict[type[nn.Module], Form] = {
    nn.LeakyReLU: _FORMS["leaky_relu"],
    nn.ReLU6: _FORMS["relu6"],
    nn.Hardtanh: _FORMS["hardtanh"],
    nn.Hardsigmoid: _FORMS["hardsigmoid"],
    nn.Softplus: _FORMS["softplus"],
    nn.ELU: _FORMS["elu"],
    nn.CELU: _FORMS["celu"],
    nn.SELU: _FORMS["selu"],
    nn.GELU: _FORMS["gelu"],
    nn.Hardswish: _FORMS["hardswish"],
    nn.Sigmoid: _FORMS["sigmoid"],
    nn.Tanh: _FORMS["tanh"],
    nn.SiLU: _FORMS["silu"],
    nn.Softsign: _FORMS["softsign"],
}
"""Modules that are an activation; nn.PReLU has a live slope and is none of these."""

CALLS: dict[Any, Form] = {
    **{name: _FORMS[name] for name in ("sigmoid", "tanh", "exp", "erf", "abs", "clamp")},
    **{getattr(F, name): form for name, form in _FORMS.items() if hasattr(F, name)},
    **{getattr(torch, name): form for name, form in _FORMS.items() if hasattr(torch, name)},
    "clip": _FORMS["clamp"],
    torch.clip: _FORMS["clamp"],
}
"""The same as functions, and as methods by their names."""
