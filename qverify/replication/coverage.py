"""Whether an integer file is a member of a certified family, tensor by tensor (mathematics.md, section 17). Sound.

Every dequantised weight and bias has to lie within its radius, and every rounding point of the file has to be one that
the family has, on the same tensor: with an error, under the rule of the runtimes, within the point's radius; ends
within those that the family allows; and nothing beyond 0 where the family keeps 0. A point that the family lacks is not
covered, and neither is one that the file lacks, because the family clips there. What holds for every member then holds
for every runtime of the file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.family.activation_points import clips
from qverify.family.rules import file_kernel, file_points, point_error
from qverify.gather import Gather
from qverify.layers import Conv, Dense, Relu, Rounding, Scale
from qverify.replication.matching import Match, match
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qverify.arrays import Array
    from qverify.family.family import Family
    from qverify.family.points import Point
    from qverify.network import Network


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Part(Brief):
    """One thing that was compared. `kind`: weight, bias, constant, point or kernel; `name`: the layer of the float
    network, empty where the file alone has it; `file`: the layer of the file.

    `share`: the largest deviation over what is allowed, None where nothing is. `detail`: why it is outside.
    """

    kind: str
    name: str
    file: str
    covered: bool
    share: float | None = None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """The object of a part (formats.md, section 12.10)."""
        found: dict[str, Any] = {"kind": self.kind, "float": self.name, "file": self.file, "covered": self.covered}
        share = self.share if self.share is not None and np.isfinite(self.share) else None
        return found | {"share": share, "detail": self.detail}


def coverage(trained: Network, file: Network, family: Family, rule: str) -> list[Part]:
    """Every part of a file compared with the family of its float network; the file is covered if all of them are.

    `rule`: that of the file's runtimes (family/rules.py). Raises ModelError where structures depart.
    """
    found = match(trained, file)
    return list(_Coverage(found, trained, family, rule, file_points(found.file, rule)).parts())


@dataclass(frozen=True, eq=False, repr=False)
class _Coverage(Brief):
    match: Match
    trained: Network
    family: Family
    rule: str
    runtimes: Mapping[str, Point]

    def parts(self) -> Iterator[Part]:
        """All parts, in the order of the file, then what is missing in it."""
        for reason in file_kernel(self.match.file).refused:
            yield Part(kind="kernel", name="", file=self.match.file.source, covered=False, detail=reason)
        seen: dict[int, Rounding] = {}
        for j, layer in enumerate(self.match.file.layers):
            if isinstance(layer, Rounding):
                yield from self._point(j, layer, seen)
            elif isinstance(layer, (Dense, Conv, Scale)):
                yield from self._numbers(j, layer)
        yield from self._missing(seen)

    def _partner(self, j: int) -> tuple[Any, int | None]:
        """The float layer that layer j of the file stands for, and its index in the family; None if it is none there,
        because a BatchNormalization was taken apart."""
        layer: Any = self.match.trained.layers[self.match.layers[j]]
        for i, own in enumerate(self.trained.layers):
            if own.name == layer.name and type(own) is type(layer) and _same(own, layer):
                return layer, self.family.where[i]
        return layer, None

    def _numbers(self, j: int, layer: Dense | Conv | Scale) -> Iterator[Part]:
        """Weights and biases, or the constants of a Scale."""
        own, k = self._partner(j)
        names: dict[str, Any] = {"name": own.name, "file": layer.name}
        if k is None:
            detail = "the file keeps a BatchNormalization apart that the family has folded"
            yield Part(kind="weight", covered=False, detail=detail, **names)
            return
        if isinstance(layer, Scale):
            same = np.array_equal(own.scale, layer.scale) and np.array_equal(own.shift, layer.shift)
            detail = "" if same else "the constants of the file are others, and the family has none"
            yield Part(kind="constant", covered=same, detail=detail, **names)
            return
        weight, bias = (self.family.weight.get(k), self.family.bias.get(k))
        exact = (own.weight, own.weight), (own.bias, own.bias)
        within = self.family.inner_weights.get(k, exact)
        yield _numbers("weight", names, layer.weight, own.weight, weight, within[0])
        yield _numbers("bias", names, layer.bias, own.bias, bias, within[1])

    def _point(self, j: int, layer: Rounding, seen: dict[int, Rounding]) -> Iterator[Part]:
        """One rounding point of the file; `seen`: those before, by the tensor that they are on."""
        trained, file = self.match.trained, self.match.file
        i = self.match.layers[j]
        users = trained.consumers[i]
        relu_next = len(users) == 1 and isinstance(trained.layers[users[0]], Relu)
        followed = all(isinstance(file.layers[u], Relu) for u in file.consumers[j]) and bool(file.consumers[j])
        if relu_next and followed:  # a clip before a Relu is one behind it
            i = users[0]
        low = np.zeros_like(layer.low) if relu_next and followed else layer.low
        name = trained.layers[i].name
        names: dict[str, Any] = {"kind": "point", "name": name, "file": layer.name}
        if i in seen:
            before = seen[i]
            again = np.array_equal(before.step, layer.step)
            again = again and bool((before.low >= layer.low).all() and (before.high <= layer.high).all())
            detail = "" if again else f"the file rounds {name!r} twice, to two grids, and the family once at most"
            yield Part(covered=again, detail=detail, **names)
            return
        seen[i] = replace(layer, low=low)
        error = np.ravel(self.runtimes[layer.name].radius)
        stated = self._stated(i)
        if isinstance(stated, str):
            yield Part(covered=False, detail=stated, **names)
        elif isinstance(stated, np.ndarray):
            yield self._against_radius(names, layer, error, stated)
        else:
            summed = not _exact_at_zero(file, j)
            part = _against_point(names, seen[i], error, stated, summed)
            yield part if part.covered or layer.kernel else self._fused(part, names, j, seen[i], stated, summed)

    def _fused(self, part: Part, names: dict[str, Any], j: int, layer: Rounding, stated: Point, summed: bool) -> Part:
        """A point outside, behind operators in floating point: whether an integer kernel in their place is inside."""
        error = point_error(self.match.file, j, self.rule) * layer.step
        if not _against_point(names, layer, error, stated, summed).covered:
            return part
        detail = f"{part.detail}, in float32; an integer kernel that a runtime fuses the operators into is covered"
        return replace(part, detail=detail)

    def _stated(self, i: int) -> Point | Array | str:
        """The family's point on the tensor of float layer i, or its radius there, or why it has none."""
        name = self.match.trained.layers[i].name
        lacks = f"the file rounds {name!r}, and the family has no rounding point there"
        found = [k for k, own in enumerate(self.trained.layers) if own.name == name]
        if not found:
            return lacks
        if found[0] == 0:
            return self.family.entry or (self.family.input if self.family.input.any() else lacks)
        points = [self.family.points[k] for k in self.family.own(found[0]) if k in self.family.points]
        if points:
            return points[-1]
        return self.family.activation.get(self.family.where[found[0]], lacks)

    def _against_radius(self, names: dict[str, Any], layer: Rounding, error: Array, radius: Array) -> Part:
        """A point where the family has a radius and clips nothing: it must not clip either."""
        share = _share(error, radius)
        clip = self.family.clip
        inside = clip is not None and names["name"] == self.trained.layers[0].name
        if inside and clip is not None and (layer.low <= clip[0]).all() and (layer.high >= clip[1]).all():
            return Part(covered=share <= 1.0, share=share, detail=_excess(share, "its error"), **names)
        ends = f"[{layer.low.max():.6g}, {layer.high.min():.6g}]"
        detail = f"the file clips to {ends}, and the family has a radius there but no range"
        return Part(covered=False, share=share, detail=detail, **names)

    def _missing(self, seen: dict[int, Rounding]) -> Iterator[Part]:
        """The points of the family that the file lacks."""
        rounded = {self.match.trained.layers[i].name for i in seen}
        detail = "the family rounds and clips there, and the file does not"
        for i, layer in enumerate(self.trained.layers):
            has = self.family.entry is not None if i == 0 else any(k in self.family.points for k in self.family.own(i))
            if has and layer.name not in rounded and not self._passes_on(i, seen):
                yield Part(kind="point", name=layer.name, file="", covered=False, detail=detail)

    def _passes_on(self, i: int, seen: dict[int, Rounding]) -> bool:
        """Whether the family's point on Gather i of the float network holds the numbers that the file only moves
        there, which lie on the grid of a point before."""
        layer, trained = self.trained.layers[i], self.match.trained
        before = seen.get(trained.grid_of(trained.index(layer.name))) if isinstance(layer, Gather) else None
        points = [self.family.points[k] for k in self.family.own(i) if k in self.family.points]
        if before is None or not points:
            return False
        low, high, step = before.low.min(), before.high.max(), before.step.min()
        point = points[-1]
        ends = bool((point.low[0] <= low).all() and (point.high[1] >= high).all() and (point.dead < step).all())
        return ends and not np.any((point.step > 0) & (point.step != step))


def _same(one: Any, other: Any) -> bool:
    """Two layers hold the same numbers."""
    names = ("weight", "bias", "scale", "shift")
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names if hasattr(one, n))


def _numbers(
    kind: str, names: dict[str, Any], found: Array, centre: Array, radius: Array | None, within: tuple[Array, Array]
) -> Part:
    """Numbers of the file against those of the float network, and the interval that is in the family for certain."""
    covered = bool(((within[0] <= found) & (found <= within[1])).all())
    share = _share(abs(found - centre), np.zeros_like(centre) if radius is None else radius)
    return Part(kind=kind, covered=covered, share=share, detail="" if covered else _excess(share, kind), **names)


def _share(deviation: Array, allowed: Array) -> float:
    """The largest deviation over what is allowed; infinite where nothing is and something deviates."""
    allowed = np.broadcast_to(allowed, deviation.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(deviation == 0, 0.0, deviation / allowed)
    return float(shares.max(initial=0.0))


def _excess(share: float, what: str) -> str:
    """Why something is outside, in words; empty if it is not."""
    if share <= 1.0:
        return "" if share < 1.0 else f"{what} is at the end of its radius"
    if share == np.inf:
        return f"{what} deviates where the family has no radius"
    return f"{what} deviates by {share:.4g} times the radius"


def _exact_at_zero(file: Network, j: int) -> bool:
    """Whether what rounding point j is given is known exactly where it is 0, and its sign elsewhere: a sample is, and
    an integer sum times a positive number; branches, averages and floats may come out off 0."""
    (source,) = file.layers[j].inputs
    while isinstance(file.layers[source], Relu) or clips(file.layers[source]):
        (source,) = file.layers[source].inputs
    read, point = file.layers[source], file.layers[j]
    integers = isinstance(read, (Dense, Conv)) and read.grid is not None
    return source in file.entries or (integers and isinstance(point, Rounding) and point.kernel)


def _against_point(names: dict[str, Any], layer: Rounding, error: Array, point: Point, summed: bool) -> Part:
    """A rounding point of the file against one of the family. `summed`: what it is given may come out off 0."""
    share = _share(error, point.radius)
    reasons = [_excess(share, "its error")] if share > 1.0 else []
    for what, end, (least, most) in (("lower", layer.low, point.low), ("upper", layer.high, point.high)):
        outside = (end < least) | (end > most)
        if outside.any():
            at = int(np.argmax(outside))
            allowed = f"[{np.ravel(least)[at]:.6g}, {np.ravel(most)[at]:.6g}]"
            reasons.append(f"its {what} end is {np.ravel(end)[at]:.6g}, and the family's lies in {allowed}")
    # What is not 0 in the file is a step away at least, and so no nearer to 0 than this before it is rounded.
    kept = (point.dead >= 0) if summed else (point.dead > 0)
    if (kept & (point.dead >= layer.step - error)).any():
        reasons.append("it may round away from 0 what the family keeps at 0")
    if summed and ((point.dead >= 0) & (error > layer.step)).any():
        reasons.append("it may change a sign, and the family does not")
    if ((point.step > 0) & (point.step != layer.step)).any():
        reasons.append("its step is another than the family's")
    return Part(covered=not reasons, share=share, detail="; ".join(reasons), **names)
