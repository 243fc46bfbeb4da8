"""Subproblems of branch and bound: the part of a family on which some neurons lie on one side of a number. Sound.

A split is `side (value - at) >= 0`, where `value` is what an activation reads: of fused layers the upper end `hi` of
(1), else the output itself. It narrows the interval that lines at the activation are made from, and by duality, with
any multiplier `m >= 0`, the bound may have `m side (value - at)` taken off:

    min over the subproblem of f  >=  min ( f - m side (value - at) ).

Shapes: B subproblems in a chunk, D splits of each, T neurons that may be split, numbered through their layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from qverify.bounds.backward_pass import BackwardPass
from qverify.bounds.curves import bends, lines_around
from qverify.bounds.interval import interval_step
from qverify.bounds.lines import point_lines
from qverify.bounds.tensors import Bounds
from qverify.family.points import upper_end
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.bounds.tensors import BoundModel


def targets(model: BoundModel) -> dict[int, int]:
    """The layers that activations read, by activation; without the input, whose box is given."""
    layers = model.network.layers
    found = {i: layers[i].inputs[0] for i in (*model.network.relus, *model.curves, *model.points)}
    return {i: source for i, source in sorted(found.items()) if source != 0}


def read_layers(model: BoundModel) -> dict[int, slice]:
    """Where the neurons of each layer that may be split are among all T, by layer."""
    found, first = {}, 0
    for source in sorted(set(targets(model).values())):
        size = model.network.layers[source].size
        found[source] = slice(first, first + size)
        first += size
    return found


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Splits(Brief):
    """`side (value of neuron place - at) >= 0`: place (B, D) of T neurons, side (B, D) of 1, -1, and 0 for no split;
    at (B, D). `unit` (B, D): multipliers are counted in it."""

    place: Tensor
    side: Tensor
    at: Tensor
    unit: Tensor

    @staticmethod
    def none(count: int, like: Tensor) -> Splits:
        """No splits of so many subproblems."""
        empty = torch.zeros(count, 0, dtype=like.dtype, device=like.device)
        return Splits(place=empty.to(torch.int64), side=empty, at=empty, unit=empty)

    def __len__(self) -> int:
        return len(self.place)

    @property
    def depth(self) -> int:
        """D."""
        return self.place.shape[1]

    def take(self, chosen: Tensor) -> Splits:
        """Those of some subproblems."""
        return Splits(place=self.place[chosen], side=self.side[chosen], at=self.at[chosen], unit=self.unit[chosen])

    @staticmethod
    def join(parts: list[Splits]) -> Splits:
        """Those of several chunks, as deep as one another."""
        return Splits(
            place=torch.cat([one.place for one in parts]),
            side=torch.cat([one.side for one in parts]),
            at=torch.cat([one.at for one in parts]),
            unit=torch.cat([one.unit for one in parts]),
        )

    def deepened(self, more: int) -> Splits:
        """So many more places, without splits."""
        place, side, at, unit = (F.pad(t, (0, more)) for t in (self.place, self.side, self.at, self.unit))
        return Splits(place=place, side=side, at=at, unit=unit)

    def to(self, dtype: torch.dtype) -> Splits:
        """The same in another type."""
        return Splits(place=self.place, side=self.side.to(dtype), at=self.at.to(dtype), unit=self.unit.to(dtype))

    def with_one(self, place: Tensor, side: Tensor, at: Tensor, unit: Tensor) -> Splits:
        """One split (B,) more of each."""

        def longer(one: Tensor, last: Tensor) -> Tensor:
            return torch.cat([one, last.unsqueeze(1).to(one.dtype)], 1)

        return Splits(
            place=longer(self.place, place),
            side=longer(self.side, side),
            at=longer(self.at, at),
            unit=longer(self.unit, unit),
        )


def narrowed(model: BoundModel, bounds: Bounds, splits: Splits) -> Bounds:
    """The bounds (B) on the subproblems: those of `bounds` (B), narrowed by the splits, through the activations that
    read what was split too. Nested in `bounds`, sound; an empty interval says that a subproblem is empty."""
    where = read_layers(model)
    if not where or not splits.depth:
        return bounds
    least = torch.cat([bounds.least(i) for i in where], 1)
    upper = torch.cat([bounds.upper[i] for i in where], 1)
    at = splits.at.to(least.dtype)
    low = least.scatter_reduce(1, splits.place, at.masked_fill(splits.side <= 0, -torch.inf), "amax")
    high = upper.scatter_reduce(1, splits.place, at.masked_fill(splits.side >= 0, torch.inf), "amin")
    new = Bounds(
        lower=list(bounds.lower),
        upper=list(bounds.upper),
        activation=dict(bounds.activation),
        least_high=dict(bounds.least_high),
    )
    for source, some in where.items():
        new.upper[source] = high[:, some]
        if source in model.fused:
            new.least_high[source] = low[:, some]
        else:
            new.lower[source] = low[:, some]
    for index in targets(model):
        first, last = interval_step(model, new, index)
        new.lower[index] = torch.maximum(bounds.lower[index], first)
        new.upper[index] = torch.minimum(bounds.upper[index], last)
    return new


def multiplied(
    model: BoundModel, bounds: Bounds, splits: Splits, multipliers: Tensor
) -> tuple[dict[int, Tensor], dict[int, Tensor], Tensor]:
    """What `- m side (value - at)` adds to a row, with multipliers (B, S, D) >= 0 in units: the rows on layers, those
    on upper ends, and constants (B, S), from which what is rounded in any of them was taken off."""
    where = read_layers(model)
    weight = multipliers * splits.unit.unsqueeze(1)
    signed = -weight * splits.side.unsqueeze(1)
    count = sum(some.stop - some.start for some in where.values())
    place = splits.place.unsqueeze(1).expand_as(signed)
    flat = torch.zeros(*signed.shape[:2], count, dtype=signed.dtype, device=signed.device).scatter_add(2, place, signed)
    constant = -(signed * splits.at.unsqueeze(1)).sum(2)
    if model.rounding.enabled:
        reach = torch.cat([torch.maximum(bounds.lower[i].abs(), bounds.upper[i].abs()) for i in where], 1)
        mass = splits.at.abs() + reach.gather(1, splits.place)
        lost = (weight * mass.unsqueeze(1)).sum(2)
        constant = constant - lost * model.rounding.gamma(4 * splits.depth + 4) - model.rounding.tiny
    parts = {i: flat[:, :, some] for i, some in where.items()}
    rows = {i: part for i, part in parts.items() if i not in model.fused}
    return rows, {i: part for i, part in parts.items() if i in model.fused}, constant


# -- where to split ---------------------------------------------------------------------------------


def split_places(model: BoundModel, bounds: Bounds, index: int) -> tuple[Tensor, Tensor]:
    """Where (N, n) to split what activation `index` reads, and whether (N, n) that makes its lines better: inside of
    its interval, at a kink of an end that is not convex or concave as its lines would have it, or in the middle."""
    source = model.network.layers[index].inputs[0]
    least, upper = bounds.least(source), bounds.upper[source]
    if index in model.curves:
        at = 0.5 * (least + upper)
        for edge in model.curves[index].breaks():
            one = torch.zeros_like(at) + edge
            at = torch.where((least < one) & (one < upper), one, at)
        return at, bends(model, bounds, index)
    if index not in model.points:
        return torch.zeros_like(least), (least < 0) & (upper > 0)
    point, radius = model.points[index], bounds.activation[index]
    first = torch.zeros_like(least) + point.low[1] - radius
    first = torch.where(point.low[1] == 0, torch.maximum(first, 0.0 * first + point.dead), first)
    last = torch.zeros_like(least) + point.high[0] + radius
    lower_kink, upper_kink = (least < first) & (first < upper), (least < last) & (last < upper)
    if source in model.fused:  # the lower end is not what is split there
        upper_kink = torch.zeros_like(upper_kink)
    return torch.where(lower_kink, first, last), lower_kink | upper_kink


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Candidates(Brief):
    """What a split of each of T neurons promises: `gain` (B, T), -1 where none helps; `at` (B, T); `unit` (B, T), the
    size of a multiplier."""

    gain: Tensor
    at: Tensor
    unit: Tensor


def candidates(model: BoundModel, bounds: Bounds, rows: dict[int, Tensor], shares: dict[int, Tensor]) -> Candidates:
    """By how much the lines at each neuron miss what it gives, at the place of the split, times the row (B, 1, n) on it
    in a pass with these shares: an estimate of what a split gains. Heuristic."""
    where = read_layers(model)
    count = sum(some.stop - some.start for some in where.values())
    shape = (len(bounds), count)
    gain = torch.full(shape, -1.0, dtype=model.dtype, device=model.device)
    at, unit = torch.zeros_like(gain), torch.zeros_like(gain)
    for index, source in targets(model).items():
        if index not in rows:
            continue
        some = where[source]
        place, helps = split_places(model, bounds, index)
        row = rows[index].squeeze(1)
        lost = _lost(model, bounds, index, row, shares, place)
        better = helps & (lost > gain[:, some])
        gain[:, some] = torch.where(better, lost, gain[:, some])
        at[:, some] = torch.where(better, place, at[:, some])
        unit[:, some] = torch.where(better, row.abs(), unit[:, some])
    return Candidates(gain=gain, at=at, unit=unit)


def _lost(
    model: BoundModel, bounds: Bounds, index: int, row: Tensor, shares: dict[int, Tensor], place: Tensor
) -> Tensor:
    """What the lines at activation `index` lose at `place` (B, n), times the row (B, n)."""
    source = model.network.layers[index].inputs[0]
    least, upper = bounds.least(source), bounds.upper[source]
    positive, negative = row.clamp(min=0), -row.clamp(max=0)
    if index not in model.curves and index not in model.points:
        width = torch.where(upper > least, upper - least, torch.ones_like(upper))
        return negative * (-upper * least / width).clamp(min=0)
    share = shares[index].squeeze(1).clamp(0.0, 1.0)
    if index in model.curves:
        state = BackwardPass(model, bounds, row[:, :1], row[:, :1])
        below, above = lines_around(state, index)
        value = model.curves[index].value(place)

        def height(line: object) -> Tensor:
            slope, intercept, other_slope, other = (
                getattr(line, name).squeeze(1) for name in ("slope", "intercept", "other_slope", "other")
            )
            mixed: Tensor = share * (slope * place + intercept) + (1.0 - share) * (other_slope * place + other)
            return mixed

        under, over = (value - height(below)).clamp(min=0), (height(above) - value).clamp(min=0)
        curved: Tensor = positive * under + negative * over
        return curved
    point, radius = model.points[index], bounds.activation[index]
    _, line = point_lines(point, radius, (least, upper), least, (bounds.lower[index], bounds.upper[index]))
    height_above = share * (line.slope * place + line.intercept) + (1.0 - share) * line.level
    missed: Tensor = (height_above - upper_end(torch, point, radius, place)).clamp(min=0)
    return row.abs() * missed
