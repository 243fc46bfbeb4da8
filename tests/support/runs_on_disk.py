"""Runs as `qverify verify --out` and `qverify batch` leave them, written without either: for tests of reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from qverify.runs.question import Question
from qverify.verification.row import Row
from qverify.verification.verdict import SEMANTICS

Line = dict[str, Any]

START = {"started": "2026-01-01T00:00:00+00:00", "solver": {"name": "highs", "version": "1.2.3"}, "jobs": 1}

MARGINS = {
    "verified": (1.5, 2.25),
    "falsified": (-1.5, -0.25),
    "unknown": (-1.5, 2.25),
    "misclassified": (None, -0.25),
}
"""What is proved and what is attained, of each status; margins of other statuses would contradict it."""


def question(bits: int = 8, count: int = 4, **changes: Any) -> dict[str, Any]:
    """What run.json says, but for its starts; neither model nor data exist."""
    step = 2.0 ** -(bits - 1)
    radii = {
        "convention": f"{bits} bits, scheme paper, rounding any",
        "largest": {"input": step / 2, "weight": step, "bias": step, "activation": step},
        "bits": bits,
        "scheme": "paper",
        "rounding": "any",
    }
    asked = {
        "format": 1,
        "qverify": "0.1.0",
        "semantics": SEMANTICS,
        "model": "nowhere/net.onnx",
        "model_sha256": "aa" * 32,
        "network_sha256": "bb" * 32,
        "data": "nowhere/data.npz",
        "data_source": "nowhere/data.npz",
        "data_sha256": "cc" * 32,
        "samples": [0, count],
        "clip_input": None,
        "method": "auto",
        "formulation": "relational",
        "solver": "auto",
        "timeout": 300.0,
        "tolerance": 1e-8,
        "radii": radii,
    }
    return asked | changes


def row(index: int, status: str = "verified", method: str = "ibp", **more: Any) -> Line:
    """One row of samples.jsonl."""
    predicted = 2 if status == "misclassified" else 1
    margins = dict(zip(("margin_lower", "margin_upper"), MARGINS[status], strict=True))
    return {
        "index": index,
        "label": 1,
        "predicted": predicted,
        "status": status,
        **margins,
        "method": method,
        "seconds": 0.25,
    } | more


def asked(**changes: Any) -> Question:
    """The question of `question`, with changes to its JSON, as a start asks it."""
    return Question.from_json(question() | changes)


def typed(line: Line) -> Row:
    """The row that a line holds."""
    return Row.from_json(line)


def random_rows(rng: np.random.Generator, count: int) -> list[Line]:
    """All statuses, stages and ten labels, in no order."""
    kinds = [
        ("verified", "ibp"),
        ("verified", "bp"),
        ("verified", "bp-layers"),
        ("verified", "bp-optimised"),
        ("verified", "bp-branched"),
        ("verified", "ties"),
        ("falsified", "ties"),
        ("verified", "exact"),
        ("falsified", "attack"),
        ("falsified", "exact"),
        ("unknown", "exact"),
        ("misclassified", "forward"),
    ]
    rows = []
    for index in rng.permutation(count).tolist():
        status, method = kinds[rng.integers(len(kinds))]
        label, size = int(rng.integers(10)), float(rng.uniform(0.1, 1))
        low, high = (None if end is None else size * end for end in MARGINS[status])
        rows.append(
            row(
                index,
                status,
                method,
                label=label,
                predicted=(label + (status == "misclassified")) % 10,
                margin_lower=low,
                margin_upper=high,
                seconds=round(float(rng.random()), 6),
            )
        )
    return rows


def write_run(folder: Path, rows: list[Line], **changes: Any) -> Path:
    """A directory of `verify`, with `changes` to its question."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = question(count=max((r["index"] for r in rows), default=3) + 1, **changes)
    (folder / "run.json").write_text(json.dumps(asked | {"runs": [START]}))
    write_rows(folder, rows)
    return folder


def write_batch(folder: Path, cases: dict[str, dict[str, Any]], rows: list[Line]) -> Path:
    """A directory of `batch`: case -> question, and rows that name their case."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batch.json").write_text(json.dumps({"format": 1, "cases": cases, "runs": [START]}))
    write_rows(folder, rows)
    return folder


def write_rows(folder: Path, rows: list[Line]) -> None:
    (folder / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
