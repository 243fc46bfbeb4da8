"""What commands other than `verify` and `batch` leave, written without them: for tests of reports."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from tests.support.runs_on_disk import START, question

PARTS = ("input", "weight", "activation", "input+weight", "input+activation", "weight+activation", "all")
SWEPT = (
    *("model", "part", "bits", "value", "input", "weight", "bias", "activation", "method"),
    *("samples", "clean", "guaranteed", "attack", "unknown", "seconds"),
)
MODEL, FILE = "nowhere/net.onnx", "nowhere/net_int8.tflite"


def summary(count: int, **changes: Any) -> dict[str, Any]:
    """The question as objects of --json have it."""
    asked = {key: value for key, value in question(count=count).items() if key not in ("format", "samples")}
    return asked | {"sample_range": [0, count], "convention": asked["radii"]["convention"]} | changes


def ends(index: int, size: float, outputs: int, met: bool = True) -> dict[str, Any]:
    low, high = [-size - k / 8 for k in range(outputs)], [size + k / 4 for k in range(outputs)]
    inner = {"attained_lower": [end / 2 for end in low], "attained_upper": [end / 2 for end in high]}
    return {"index": index, "lower": low, "upper": high} | (inner if met else dict.fromkeys(inner))


def discrepancies(count: int = 3, outputs: int = 4, met: bool = True, **changes: Any) -> dict[str, Any]:
    rows = [ends(k, 1.0 + k, outputs, met) | {"complete": True, "seconds": 0.1} for k in range(count)]
    found = {"samples": count, "complete": True, "largest": 3.0, "solver": None, "interrupted": False, "rows": rows}
    return summary(count, method="exact" if met else "bp") | found | changes


def properties(statuses: tuple[str, ...] = ("holds", "holds", "violated", "unknown"), **changes: Any) -> dict[str, Any]:
    rows = [
        {
            "index": k,
            "label": 1,
            "status": status,
            "seconds": 0.1,
            "detail": "time limit" if status == "unknown" else "",
        }
        for k, status in enumerate(statuses)
    ]
    counts = {name: statuses.count(name) for name in ("holds", "violated", "unknown")}
    found = {"property": "the label is among the top 2", "samples": len(rows), **counts, "rows": rows}
    return summary(len(rows)) | found | changes


def _about(count: int) -> dict[str, Any]:
    about = {"qverify": "0.1.0", "data": "nowhere/data.npz", "data_sha256": "cc" * 32, "input_scale": None}
    return about | {"sample_range": [0, count], "samples": count}


def _named(model: str, letters: str) -> dict[str, str]:
    return {"model": model, "model_sha256": letters * 32, "network_sha256": "bb" * 32}


def comparison(count: int = 3, outputs: int = 4, epsilon: float | None = 2.5, **changes: Any) -> dict[str, Any]:
    rows = [ends(k, 1.0 + k, outputs) for k in range(count)]
    counts: dict[str, int] = {}
    if epsilon is not None:
        for row in rows:
            proved, met = max(map(abs, row["lower"] + row["upper"])), max(map(abs, row["attained_upper"]))
            row["status"] = "within" if proved <= epsilon else "exceeds" if met > epsilon else "unknown"
        counts = {name: sum(row["status"] == name for row in rows) for name in ("within", "exceeds", "unknown")}
    tensor = {"name": "relu1/rounded", "float": "relu1", "snr_db": 40.25, "largest": 0.5}
    found = {
        "float": _named(MODEL, "aa"),
        "file": _named(FILE, "ee"),
        "rounding": "float32",
        "input_radius": 0.0,
        "clip_input": None,
        "input": "rounded",
        "epsilon": epsilon,
        **dict.fromkeys(("float_right", "file_right", "same_class"), count),
        "tensors": [tensor],
        "rows": rows,
    }
    return _about(count) | found | counts | changes


def coverage(outside: int = 0, parts: int = 3, **changes: Any) -> dict[str, Any]:
    found = [
        {
            "kind": "weight",
            "float": f"dense{k}",
            "file": f"dense{k}_quant",
            "covered": k >= outside,
            "share": 0.5 if k >= outside else 1.5,
            "detail": "" if k >= outside else "weight deviates by 1.5 times the radius",
        }
        for k in range(parts)
    ]
    base = {"qverify": "0.1.0", "float": _named(MODEL, "aa"), "file": _named(FILE, "ee"), "rule": "float32"}
    more = {"convention": "8 bits, scheme tensor, rounding float32", "covered": not outside, "parts": found}
    return base | more | changes


def runtimes(statuses: tuple[str, ...] = ("same", "same", "differs"), **changes: Any) -> dict[str, Any]:
    rows = []
    for index, status in enumerate(statuses):
        witness = [{"predicted": 1}, {"predicted": 2}] if status == "differs" else None
        own = {"label": 1, "predicted": 1, "status": status, "witness": witness}
        rows.append(ends(index, 0.5, 3) | own)
    counts = {name: statuses.count(name) for name in ("same", "differs", "unknown")}
    rules = {"float32": "ONNX Runtime", "single": "CMSIS-NN"}
    found = {"model": FILE, "model_sha256": "ee" * 32, "rules": rules, "timeout": 60.0, **counts, "rows": rows}
    return _about(len(rows)) | found | changes


def write_object(path: Path, found: dict[str, Any]) -> Path:
    path.write_text(json.dumps(found) + "\n")
    return path


def sweep_row(part: str, bits: int, guaranteed: int, samples: int = 10, **more: Any) -> dict[str, Any]:
    counts = {"samples": samples, "clean": samples - 1, "guaranteed": guaranteed, "unknown": 1}
    radii = dict.fromkeys(("input", "weight", "bias", "activation"), 2.0**-bits)
    base = {"model": "net", "part": part, "bits": bits, "value": None, **radii, "method": "auto"}
    return base | counts | {"attack": guaranteed + 1, "seconds": 0.5} | more


def write_sweep(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    """A directory of `sweep` over 4, 6 and 8 bits."""
    folder.mkdir(parents=True)
    asked = question(count=10, **changes)
    for name in ("model", "model_sha256", "network_sha256"):
        del asked[name]
    asked["radii"] = {"bits": [4, 6, 8], "scheme": "paper", "rounding": "any", "parts": list(PARTS)}
    asked |= {"models": {"net": {"model_sha256": "aa" * 32}}, "model_files": [MODEL], "runs": [START]} | changes
    (folder / "sweep.json").write_text(json.dumps(asked))
    with (folder / "sweep.csv").open("w") as file:
        writer = csv.DictWriter(file, SWEPT, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def bracket(index: int, lower: float | None, upper: float | None, **more: Any) -> dict[str, Any]:
    wrong = lower is None and upper == 0
    base: dict[str, Any] = {"index": index, "label": 1, "predicted": 2 if wrong else 1, "lower": lower, "upper": upper}
    base |= {
        "proved_by": "" if lower is None else "bp",
        "broken_by": "forward" if wrong else "" if upper is None else "attack",
    }
    return base | {"detail": "", "seconds": 0.5} | more


def write_radius(
    folder: Path, rows: list[dict[str, Any]], layers: tuple[dict[str, Any], ...] = (), count: int = 6
) -> Path:
    """A directory of `radius`, on a grid up to 4."""
    folder.mkdir(parents=True)
    asked = question(count=count, max_factor=4.0, precision=0.1)
    (folder / "radius.json").write_text(json.dumps(asked | {"runs": [START]}))
    for name, own, columns in (
        ("factors.csv", rows, list(bracket(0, 1.0, None))),
        ("layers.csv", layers, list(layer_row("a"))),
    ):
        if own or name == "factors.csv":
            with (folder / name).open("w") as file:
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(own)
    return folder


def layer_row(layer: str, factor: float | None = 1.5, **more: Any) -> dict[str, Any]:
    base = {"layer": layer, "kind": "weight", "accuracy": 0.9, "method": "bp", "factor": factor}
    base |= {"radius": 0.0125, "bias_radius": None, "reached": 1.0, "at_end": False, "samples": 6, "seconds": 0.5}
    return base | more


def write_all(folder: Path, name: str = "net") -> list[Path]:
    """One of every kind; `name`: the stem of the files of objects."""
    folder.mkdir(parents=True, exist_ok=True)
    swept = [sweep_row(part, bits, min(9, bits)) for part in PARTS for bits in (4, 6, 8)]
    brackets = [
        bracket(0, None, 0.0),
        bracket(1, 0.25, 0.5),
        bracket(2, 1.0, 1.1),
        bracket(3, 2.0, 2.2),
        bracket(4, 4.0, None),
    ]
    objects = {
        "discrepancy": discrepancies(),
        "property": properties(),
        "compare": comparison(),
        "covers": coverage(),
        "outside": coverage(2),
        "runtimes": runtimes(),
    }
    written = [write_object(folder / f"{name}_{kind}.json", found) for kind, found in objects.items()]
    layers = (layer_row("dense1"), layer_row("relu1", kind="activation"))
    return [write_sweep(folder / "sweep", swept), write_radius(folder / "radius", brackets, layers), *written]
