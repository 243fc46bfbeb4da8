"""Rounding points of a quantised file as layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from qverify.gather import Gather
from qverify.layers import Layer, MaxPool, Rounding
from qverify.onnx.graph import NetworkBuilder, Point, Refusal, Tensor
from qverify.onnx.grid import Grid


def _fields(x: Tensor, grid: Grid) -> dict[str, Any]:
    """The fields of the rounding point that brings x, clipped perhaps, to this grid."""
    low, high = grid.ends
    if x.clip is not None:
        low, high = np.maximum(low, np.rint(x.clip[0] / grid.step)), np.minimum(high, np.rint(x.clip[1] / grid.step))
    made = Rounding.on_grid("", 0, (x.size,), grid.step, (low, high))
    return {"step": made.step, "low": made.low, "high": made.high, "dead": made.dead}


def rounded(builder: NetworkBuilder, x: Tensor, grid: Grid, name: str, point: Point) -> Tensor:
    """x rounded to this grid: no layer where it lies on it already, as after a view, or a MaxPool or Gather that was
    quantised again."""
    fields, layer = _fields(x, grid), builder.layers[x.layer]
    if _on_grid(builder, layer, fields, isinstance(layer, (MaxPool, Gather))):
        return replace(x, integers=grid, clip=None)
    out = builder.new(Rounding, name, (x,), x.shape, kernel=point.kernel, **fields)
    builder.points[out.layer] = point
    return replace(out, integers=grid, double=False)


def _on_grid(builder: NetworkBuilder, layer: Layer, fields: dict[str, Any], passed: bool) -> bool:
    """Whether a layer gives numbers of the grid with these fields; `passed`: some of them, in other places."""
    if isinstance(layer, Rounding):
        return _holds(layer, fields, passed)
    if not isinstance(layer, (MaxPool, Gather)):
        return False
    if isinstance(layer, Gather) and layer.constant.any() and not _constants_on(layer, fields):
        return False
    return all(_on_grid(builder, builder.layers[i], fields, True) for i in layer.inputs)


def _constants_on(layer: Gather, fields: dict[str, Any]) -> bool:
    """Whether the constants of a Gather are numbers of the grid."""
    step, low, high = (fields[name][0] for name in ("step", "low", "high"))
    values = layer.fill[layer.constant]
    return bool(((np.rint(values / step) * step == values) & (values >= low) & (values <= high)).all())


def _holds(layer: Rounding, fields: dict[str, Any], pooled: bool) -> bool:
    """Whether every number that the point gives is one of the grid with these fields, element by element;
    `pooled`: some of the numbers are passed on, in other places, so that the grid has to be one for all."""
    if pooled:
        if any(np.ptp(fields[name]) for name in ("step", "low", "high")):
            return False
        fields = {name: values[:1] for name, values in fields.items()}
    inside = (layer.low >= fields["low"]).all() and (layer.high <= fields["high"]).all()
    return bool((layer.step == fields["step"]).all() and inside)


def entered(builder: NetworkBuilder, x: Tensor, grid: Grid) -> Tensor:
    """An input of the network, integers, as a rounding point behind the numbers that they stand for."""
    which = builder.input_at(x.layer)
    if which not in builder.entries:
        name = builder.layers[x.layer].name
        out = builder.new(Rounding, f"{name}/rounded", (x,), x.shape, **_fields(x, grid))
        builder.entries[which] = replace(out, integers=grid, exclusive=False)
        ends = grid.numbers(grid.integers(np.array([-np.inf, np.inf])[:, None]))
        builder.notes.append(
            f"{name}: integers ({grid.kind}) in the file; samples are the numbers that they stand for, "
            f"from {ends.min():g} to {ends.max():g}."
        )
    entry = builder.entries[which]
    assert entry.integers is not None
    if not grid.same(entry.integers):
        raise Refusal("it reads the network's input with another scale or zero point than another node does")
    return replace(entry, shape=x.shape, integers=None)


def entered_as_floats(builder: NetworkBuilder, x: Tensor) -> Tensor:
    """A Cast of the network's input, integers, to floating point."""
    return entered(builder, x, Grid(step=np.ones(1), zero=np.zeros(1), kind=str(x.entry)))
