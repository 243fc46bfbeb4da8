"""Radii files, `radii.toml`: radii, rounding points, or a quantiser, read and written (formats.md, section 8).

    input = 0.002                      # radii of every tensor of a kind: input, weight, bias, activation
    [layers."fc1"]                     # those of one layer: weight, bias, activation
    weight = [0.01, 0.02]
    [points."relu1"]                   # a rounding point, instead of an activation radius (points.py)
    radius = 0.05
    low = 0.0
    high = [12.7, 12.8]

or

    [quantiser]                        # what `--bits` and the options beside it say
    bits = "W4A8"
    scheme = "channel"
    [layers."fc1"]                     # and what the weights of one layer have instead: bits, scheme, block
    bits = 8

Numbers may be arrays, one a channel or one an element.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.choices import KINDS, QUANTISER
from qverify.errors import RadiiError, UsageError
from qverify.family.points import Point, Summed
from qverify.family.radii import Radii
from qverify.family.steps import LayerBits, Quantiser
from qverify.family.widths import widths
from qverify.files.atomic import write_atomically
from qverify.files.toml import read_hashed_toml
from qverify.text.escapes import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

POINT_KEYS = ("radius", "low", "high", "dead", "step", "entry", "summed")
_LAYER_BITS = tuple(field.name for field in fields(LayerBits))


def load_radii(path: str) -> Radii:
    """The radii of a `radii.toml`.

    Raises RadiiError for a missing or malformed file, for unknown keys, where no radius is stated, and for a file that
    states a quantiser, whose radii follow from a network and samples.
    """
    return read_radii(path)[0]


def read_radii(path: str) -> tuple[Radii, str]:
    """The radii that `load_radii` gives, and the sha256 of the bytes that they were read from."""
    found, sha256 = read_family(path)
    if isinstance(found, Quantiser):
        raise RadiiError(
            f"{path} states a quantiser, whose radii follow from a network and samples; `qverify radii MODEL --data"
            f" DATA --radii {path} --out FILE.toml` writes them down."
        )
    return found, sha256


def read_family(path: str) -> tuple[Radii | Quantiser, str]:
    """What a radii file states, and the sha256 of the bytes that it was read from. Raises RadiiError as `load_radii`
    does, but for a quantiser."""
    content, sha256 = read_hashed_toml(path, "radii file", RadiiError)
    layers, points = _tables(path, content, "layers"), _tables(path, content, "points")
    if "quantiser" in content:
        return _quantiser(path, content, layers, points), sha256
    _known(path, content, KINDS, 'input, weight, bias, activation, and tables [layers."NAME"], [points."NAME"]')
    for name, own in layers.items():
        _known(path, own, KINDS[1:], 'weight, bias, activation in a table [layers."NAME"]')
        if not own:
            raise RadiiError(f"{path}: the table of layer {shown(name)} states no radius; add one, or leave it out.")
    if not content and not layers and not points:
        raise RadiiError(f"{path} states no radius, so nothing would be quantised; write for example weight = 0.01.")
    stated = {name: _point(path, name, own) for name, own in points.items()}
    return Radii(layers=layers, points=stated, convention=f"radii file {path}", **content), sha256


def _tables(path: str, content: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """The tables under a key, which is taken out."""
    found = content.pop(key, {})
    if not isinstance(found, dict) or not all(isinstance(value, dict) for value in found.values()):
        raise RadiiError(f'{path}: {key} is no table of tables; write [{key}."NAME"].')
    return found


def _known(path: str, content: Mapping[str, Any], keys: tuple[str, ...], what: str) -> None:
    if unknown := sorted(set(content) - set(keys)):
        raise RadiiError(f"{path}: unknown key {shown(unknown[0])}; the keys are {what}.")


def _point(path: str, name: str, own: dict[str, Any]) -> Point:
    _known(path, own, POINT_KEYS, f'{", ".join(POINT_KEYS)} in a table [points."NAME"]')
    if missing := [key for key in ("radius", "low", "high") if key not in own]:
        raise RadiiError(f"{path}: the rounding point {shown(name)} has no {missing[0]}; add it.")
    ends = {}
    for key in ("low", "high"):
        end = own[key]
        ends[key] = tuple(end) if isinstance(end, list) and len(end) == 2 else (end, end)
    rest = {key: own[key] for key in ("dead", "step", "entry") if key in own}
    if not isinstance(rest.get("entry", False), bool):
        raise RadiiError(f"{path}: entry of the rounding point {shown(name)} is true or false.")
    summed = None
    if "summed" in own:
        if not isinstance(own["summed"], list) or len(own["summed"]) != 2:
            raise RadiiError(f"{path}: summed of the rounding point {shown(name)} is two numbers or lists of numbers.")
        summed = Summed(absolute=own["summed"][0], share=own["summed"][1])
    return Point(radius=own["radius"], low=ends["low"], high=ends["high"], summed=summed, **rest)


def _quantiser(
    path: str, content: dict[str, Any], layers: dict[str, dict[str, Any]], points: dict[str, dict[str, Any]]
) -> Quantiser:
    own = content.pop("quantiser")
    if content or points or not isinstance(own, dict):
        raise RadiiError(f"{path} states a quantiser and radii beside it; give one of them.")
    own = {key.replace("-", "_"): value for key, value in own.items()}
    _known(path, own, ("bits", *QUANTISER), f"bits, {', '.join(QUANTISER)} in the table [quantiser]")
    if "bits" not in own:
        raise RadiiError(f"{path}: the quantiser has no bits; add for example bits = 8.")
    for name, bits in layers.items():
        _known(path, bits, _LAYER_BITS, f'{", ".join(_LAYER_BITS)} in a table [layers."{name}"] beside [quantiser]')
    try:
        stated = widths(own.pop("bits"))
    except UsageError as error:
        raise RadiiError(f"{path}: {error}") from None
    by_layer = {name: LayerBits(**bits) for name, bits in layers.items()}
    return Quantiser(**(stated | own), layers=tuple(by_layer.items()))


def write_radii(radii: Radii, path: str, remarks: tuple[str, ...] = ()) -> None:
    """Write radii so that `load_radii` reads them as they were, all but the integer kernels that they stand for;
    `remarks` go into comments.

    Raises RadiiError for those that no file can state, OSError where it cannot be written.
    """
    if radii.saturations:
        name = next(iter(radii.saturations))
        raise RadiiError(
            f"The radius at {name!r} depends on the sample, since a BatchNormalization before it is kept apart; state"
            " --batchnorm folded, or fold it in the model."
        )
    lines = [f"# {line}" for remark in (radii.convention, *remarks) for line in remark.splitlines()]
    lines += [f"{kind} = {_value(value)}" for kind in KINDS if np.any(value := getattr(radii, kind))]
    for name, own in radii.layers.items():
        lines += ["", f"[layers.{json.dumps(name)}]", *(f"{kind} = {_value(value)}" for kind, value in own.items())]
    for name, point in radii.points.items():
        lines += ["", f"[points.{json.dumps(name)}]", f"radius = {_value(point.radius)}"]
        lines += [f"{key} = [{', '.join(_value(end) for end in getattr(point, key))}]" for key in ("low", "high")]
        lines += [f"dead = {_value(point.dead)}", *[f"step = {_value(point.step)}"] * bool(np.any(point.step))]
        lines += ["entry = true"] * point.entry
        if point.summed is not None:
            lines += [f"summed = [{_value(point.summed.absolute)}, {_value(point.summed.share)}]"]
    text = "\n".join(lines) + "\n"
    write_atomically(Path(path), lambda partial: partial.write_text(text, encoding="utf-8"))


def _value(value: Any) -> str:
    """A number or an array as TOML; arrays that repeat one number a channel are written a channel."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim and (array == array.flat[0]).all():
        array = np.asarray(array.flat[0])
    elif array.ndim > 1 and (array == array.reshape(len(array), -1)[:, :1].reshape(-1, *[1] * (array.ndim - 1))).all():
        array = array.reshape(len(array), -1)[:, 0]
    return json.dumps(array.tolist())
