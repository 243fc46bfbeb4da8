"""The file that states a property, and perhaps boxes of inputs that it is asked about (formats.md, section 13.1)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.datasets.regions import Regions, regions_of
from qverify.errors import UsageError
from qverify.files.toml import read_hashed_toml
from qverify.kinds import is_number
from qverify.properties.kinds import Distance, Holds, Margin, TopK
from qverify.properties.score import DECISIONS, SCORES, Score
from qverify.text.escapes import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.properties.kinds import Property

_TO = ("network", "targets")


def read_property(path: str) -> tuple[Property, Regions | None]:
    """The property that a TOML file states, and its boxes of inputs, if it has any. Raises UsageError, DataError."""
    content, sha256 = read_hashed_toml(path, "property file", UsageError)
    boxes = _boxes(content.pop("boxes"), path, sha256) if "boxes" in content else None
    return _property(content, path), boxes


def _boxes(tables: Any, path: str, sha256: str) -> Regions:
    if not isinstance(tables, list) or not tables or not all(isinstance(one, dict) for one in tables):
        raise UsageError(f"{path}: boxes are tables [[boxes]], each with low = [...] and high = [...].")
    keys = set(tables[0])
    if not {"low", "high"} <= keys <= {"low", "high", "label", "targets"} or {"label", "targets"} <= keys:
        raise UsageError(
            f"{path}: a box has the keys {', '.join(sorted(map(shown, keys)))}; its keys are low and high, and label or"
            " targets."
        )
    for number, table in enumerate(tables, 1):
        if set(table) != keys:
            raise UsageError(f"{path}: box {number} has other keys than the first; give all boxes the same.")
        lists = [table[key] for key in sorted(keys - {"label"})]
        if not all(isinstance(one, list) and one and all(map(_is_finite, one)) for one in lists):
            raise UsageError(f"{path}: box {number} is {shown(table)}; low, high and targets are lists of numbers.")
        if "label" in keys and not _is_place(table["label"]):
            raise UsageError(f"{path}: the label of box {number} is {shown(table['label'])}; give a number from 0.")
        if [len(one) for one in lists] != [len(tables[0][key]) for key in sorted(keys - {"label"})]:
            raise UsageError(f"{path}: box {number} has lists of other lengths than the first; give an end an input.")
    ends = [np.array([table[key] for table in tables], dtype=np.float64) for key in ("low", "high")]
    y: Any = None
    if "label" in keys:
        y = np.array([table["label"] for table in tables], dtype=np.int64)
    elif "targets" in keys:
        y = np.array([table["targets"] for table in tables], dtype=np.float64)
    return regions_of(Path(path).name, ends, y, sha256, path)


def _property(content: dict[str, Any], path: str) -> Property:
    """The property that the content of a file states; `path` is for messages."""
    kind = content.pop("property", "formula" if "holds" in content else None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UsageError(
            f"{path} states no property {shown(kind)}; write property = one of {', '.join(map(repr, _KINDS))}."
        )
    keys, make = _KINDS[kind]
    if unknown := sorted(content.keys() - keys):
        raise UsageError(f"{path}: {shown(unknown[0])} is no key of {kind}; its keys are {', '.join(sorted(keys))}.")
    return make(content, path)


def _top(content: dict[str, Any], path: str) -> TopK:
    value = content.get("k")
    if type(value) is not int or value < 1:
        raise UsageError(f"{path}: k is {shown(value)}; give a whole number from 1.")
    return TopK(value)


def _margin(content: dict[str, Any], path: str) -> Margin:
    return Margin(_number(content, "margin", path, True))


def _distance(content: dict[str, Any], path: str) -> Distance:
    to, outputs = content.get("to", "network"), content.get("outputs")
    if to not in _TO:
        raise UsageError(f"{path}: to is {shown(to)}; give one of {', '.join(map(repr, _TO))}.")
    if outputs is not None and not (isinstance(outputs, list) and outputs and all(map(_is_place, outputs))):
        raise UsageError(f"{path}: outputs is {shown(outputs)}; give a list of numbers of outputs, from 0 on.")
    if outputs is not None and len(set(outputs)) < len(outputs):
        raise UsageError(f"{path}: outputs is {shown(outputs)}, one of them twice; name each once.")
    relative = _number(content, "relative", path) if "relative" in content else 0.0
    distance = _number(content, "distance", path) if "distance" in content or not relative else 0.0
    return Distance(distance, None if outputs is None else tuple(outputs), relative, to == "targets")


def _formula(content: dict[str, Any], path: str) -> Holds:
    tables, classes = content.get("holds"), content.get("classes", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(one, dict) for one in tables):
        raise UsageError(f"{path}: a formula has tables [[holds]], one an alternative, each with all = [...].")
    if not _are_texts(classes):
        raise UsageError(f"{path}: classes is {shown(classes)}; give the names of the outputs, in their order.")
    for number, table in enumerate(tables, 1):
        if table.keys() != {"all"} or not _are_texts(table["all"]) or not table["all"]:
            raise UsageError(
                f'{path}: table {number} of holds is {shown(table)}; write all = ["y[0] - y[1] >= 0.5", ...] in it,'
                " and nothing else."
            )
    return Holds(tuple(tuple(table["all"]) for table in tables), tuple(classes), path)


def _score(content: dict[str, Any], path: str) -> Score:
    score, decision = content.get("score"), content.get("decision", "same")
    if not isinstance(score, str) or score not in SCORES:
        raise UsageError(f"{path}: score is {shown(score)}; give one of {', '.join(map(repr, SCORES))}.")
    if decision not in DECISIONS:
        raise UsageError(f"{path}: decision is {shown(decision)}; give one of {', '.join(map(repr, DECISIONS))}.")
    return Score(score, _number(content, "threshold", path), decision)


def _number(content: dict[str, Any], key: str, path: str, zero: bool = False) -> float:
    value: Any = content.get(key)
    if not is_number(value) or not (value >= 0 if zero else value > 0) or value == float("inf"):
        raise UsageError(f"{path}: {key} is {shown(value)}; give a number {'from' if zero else 'above'} 0.")
    return float(value)


def _is_finite(value: Any) -> bool:
    return is_number(value) and abs(value) < float("inf")


def _is_place(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


_KINDS: dict[str, tuple[set[str], Callable[[dict[str, Any], str], Property]]] = {
    "top-k": ({"k"}, _top),
    "margin": ({"margin"}, _margin),
    "distance": ({"distance", "relative", "to", "outputs"}, _distance),
    "score": ({"score", "threshold", "decision"}, _score),
    "formula": ({"holds", "classes"}, _formula),
}
"""The keys that a kind has beside `property`, and what makes it of them."""
