"""Members of a family: forward passes of many at once in float64, of one in rationals, and the search for the worst.

A member is a dictionary of positions in [-1, 1], one for every number that the family lets move: ("w", layer), ("b",
layer), ("r", layer). The worst lie in corners, so the search goes from corner to corner: each number to the side to
which the margin falls, then some at random.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from .plans import Layer, Plan

if TYPE_CHECKING:
    from .families import Family

Array = np.ndarray
Member = dict[tuple[str, int], Array]
_ZERO = Fraction(0)


def forward(plan: Plan, x: Array) -> list[Array]:
    """The network itself on one sample x (n,) in float64: the values of all layers."""
    values: list[Array] = []
    for layer in plan.layers:
        read = [values[j] for j in layer.inputs]
        values.append(_plain(layer, read, x))
    return values


def _plain(layer: Layer, read: list[Array], x: Array) -> Array:
    if layer.kind == "sum":
        weight, bias, shift = layer.floats
        entries = np.append(read[0], 0.0)[layer.entry] - shift[:, None, None]
        return np.asarray(((weight[:, None] * entries).sum(2) + bias[:, None]).ravel())
    if layer.kind == "relu":
        return np.asarray(np.maximum(read[0], 0.0))
    if layer.kind == "add":
        return np.asarray(read[0] + layer.sign * read[1])
    if layer.kind == "max":
        return np.asarray(np.append(read[0], -np.inf)[layer.entry].max(1))
    return x if layer.kind == "input" else read[0]


class Search:
    """The worst member for one sample and label, found in float64."""

    def __init__(self, family: Family, rng: np.random.Generator) -> None:
        self.family, self.plan, self.rng = family, family.plan, rng
        self.weight, self.bias, self.rounding = (
            {i: r.astype(float) for i, r in radii.items()} for radii in (family.weight, family.bias, family.rounding)
        )
        self.ends = {i: (float(a), float(b)) for i, (a, b) in family.ends.items()}
        self.kept = {i: float(end) for i, end in family.kept.items()}

    def shapes(self) -> dict[tuple[str, int], tuple[int, ...]]:
        kinds = (("w", self.weight), ("b", self.bias), ("r", self.rounding))
        return {(kind, i): r.shape for kind, radii in kinds for i, r in radii.items()}

    def worst(self, x: Array, label: int, starts: int = 6, rounds: int = 6) -> tuple[float, Member]:
        """The least margin found, and its member."""
        rng, shapes = self.rng, self.shapes()
        signs = {key: rng.choice([-1.0, 1.0], (starts, *shape)) for key, shape in shapes.items()}
        for sign in signs.values():
            sign[0] = 0.0
        best, kept = np.inf, {key: sign[0] for key, sign in signs.items()}
        for step in range(rounds):
            margins, slopes = self.run(x, label, signs)
            least = int(margins.argmin())
            if margins[least] < best:
                best, kept = float(margins[least]), {key: sign[least].copy() for key, sign in signs.items()}
            for key, slope in slopes.items():
                signs[key] = np.where(slope == 0, signs[key], -np.sign(slope))
                if step >= rounds // 2:  # look around the best one, too
                    signs[key][1::2] = np.where(rng.random(signs[key][1::2].shape) < 0.15, -kept[key], kept[key])
        return best, kept

    def run(self, x: Array, label: int, signs: Member) -> tuple[Array, Member]:
        """Margins (K,) of K members, and the slope of each margin in every number of its member."""
        values = self._values(x, signs)
        out = values[-1]
        others = np.where(np.arange(out.shape[1]) == label, -np.inf, out)
        rival = others.argmax(1)
        count = np.arange(len(out))
        back = [np.zeros_like(v) for v in values]
        back[-1][:, label] += 1.0
        back[-1][count, rival] -= 1.0
        slopes: Member = {}
        for i in range(len(values) - 1, -1, -1):
            self._back(i, values, back, signs, slopes)
        return out[:, label] - others.max(1), slopes

    def outputs(self, x: Array, signs: Member) -> Array:
        """(K, classes) of K members."""
        return self._values(x, signs)[-1]

    def _values(self, x: Array, signs: Member) -> list[Array]:
        values: list[Array] = []
        for i, layer in enumerate(self.plan.layers):
            values.append(self._value(i, layer, [values[j] for j in layer.inputs], x, signs))
        return values

    def _value(self, i: int, layer: Layer, read: list[Array], x: Array, signs: Member) -> Array:
        if layer.kind == "add":
            return np.asarray(read[0] + layer.sign * read[1])
        if layer.kind == "sum":
            weight, bias, shift = layer.floats
            weight = weight + self.weight[i] * signs["w", i]
            bias = bias + self.bias[i] * signs["b", i]
            entries = self._entries(layer, read[0]) - shift[:, None, None]
            z = np.einsum("bck,bcpk->bcp", weight, entries) + bias[:, :, None]
            return np.asarray(z.reshape(len(z), -1))
        if layer.kind == "max":
            return np.asarray(self._under(layer, read[0]).max(2))
        base = np.maximum(read[0], 0.0) if layer.kind == "relu" else (x[None] if layer.kind == "input" else read[0])
        moved = base + self.rounding[i] * signs["r", i]
        if i in self.kept:
            moved = np.where(base > 0, np.maximum(moved, 0.0), np.minimum(moved, 0.0))
            moved = np.where(abs(base) <= self.kept[i], 0.0, moved)
        if i in self.ends:
            moved = np.clip(moved, *self.ends[i])
        if layer.kind == "relu":
            moved = np.maximum(moved, 0.0)
        if layer.kind == "input" and self.family.clip is not None:
            moved = np.clip(moved, *(float(end) for end in self.family.clip))  # type: ignore[call-overload]
        return np.asarray(moved)

    @staticmethod
    def _under(layer: Layer, read: Array) -> Array:
        return np.concatenate([read, np.full((len(read), 1), -np.inf)], 1)[:, layer.entry]

    @staticmethod
    def _entries(layer: Layer, read: Array) -> Array:
        return np.concatenate([read, np.zeros((len(read), 1))], 1)[:, layer.entry]

    def _back(self, i: int, values: list[Array], back: list[Array], signs: Member, slopes: Member) -> None:
        layer, slope = self.plan.layers[i], back[i]
        if layer.kind == "add":
            back[layer.inputs[0]] += slope
            back[layer.inputs[1]] += layer.sign * slope
        elif layer.kind == "max":
            first = self._under(layer, values[layer.inputs[0]]).argmax(2)
            where = np.arange(len(slope))[:, None], layer.entry[np.arange(layer.size), first]
            np.add.at(back[layer.inputs[0]], where, slope)
        elif layer.kind == "sum":
            weight, _, shift = layer.floats
            channels, positions, _ = layer.entry.shape
            dz = slope.reshape(-1, channels, positions)
            entries = self._entries(layer, values[layer.inputs[0]]) - shift[:, None, None]
            slopes["w", i] = np.einsum("bcp,bcpk->bck", dz, entries)
            slopes["b", i] = dz.sum(2)
            weight = weight + self.weight[i] * signs["w", i]
            products = (dz[..., None] * weight[:, :, None]).reshape(len(dz), -1)
            if layer.dense:
                back[layer.inputs[0]] += products.reshape(len(dz), channels, -1).sum(1)
            else:
                back[layer.inputs[0]] += (products @ layer.back)[:, : layer.width]
        else:
            slopes["r", i] = slope
            if layer.kind != "input":
                passes = values[layer.inputs[0]] > 0 if layer.kind == "relu" else True
                back[layer.inputs[0]] += slope * passes


def outputs(family: Family, x: Array, member: Member) -> Array:
    """The member's outputs for the sample x (n,) of rationals, exactly."""
    values: list[list[Fraction]] = []
    for i, layer in enumerate(family.plan.layers):
        read = [values[j] for j in layer.inputs]
        if layer.kind == "add":
            values.append([a + layer.sign * b for a, b in zip(*read, strict=True)])
        elif layer.kind == "max":
            inside = [[e for e in entries if e < layer.width] for entries in layer.entry.tolist()]
            values.append([max(read[0][e] for e in entries) for entries in inside])
        elif layer.kind == "sum":
            values.append(_sum(family, i, layer, read[0], member))
        else:
            values.append(_rounded(family, i, layer, read[0] if read else x.tolist(), member))
    return np.array(values[-1], dtype=object)


def _sum(family: Family, i: int, layer: Layer, read: list[Any], member: Member) -> list[Fraction]:
    found = []
    padded = [*read, _ZERO]
    weight = layer.weight + family.weight[i] * _whole(member["w", i])
    bias = layer.bias + family.bias[i] * _whole(member["b", i])
    for c, positions in enumerate(layer.entry):
        row, shift = weight[c].tolist(), layer.shift[c]
        found += [
            sum((w * (padded[e] - shift) for w, e in zip(row, entries, strict=True) if w), bias[c])
            for entries in positions.tolist()
        ]
    return found


def _rounded(family: Family, i: int, layer: Layer, read: list[Any], member: Member) -> list[Fraction]:
    found = []
    moves = (family.rounding[i] * _whole(member["r", i])).tolist()
    for value, move in zip(read, moves, strict=True):
        base = max(value, _ZERO) if layer.kind == "relu" else value
        moved = base + move
        if i in family.kept:
            signed = max(moved, _ZERO) if base > 0 else min(moved, _ZERO)
            moved = _ZERO if abs(base) <= family.kept[i] else signed
        if i in family.ends:
            moved = min(max(moved, family.ends[i][0]), family.ends[i][1])
        if layer.kind == "relu":
            moved = max(moved, _ZERO)
        if layer.kind == "input" and family.clip is not None:
            moved = min(max(moved, family.clip[0]), family.clip[1])
        found.append(moved)
    return found


def _whole(signs: Array) -> Array:
    """Positions as integers, which rationals multiply without rounding."""
    return signs.astype(int).astype(object)


def margin(out: Array, label: int) -> Any:
    """By how much the label's output exceeds every other."""
    return out[label] - max(v for j, v in enumerate(out.tolist()) if j != label)
