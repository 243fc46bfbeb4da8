"""Read a folder that `qverify verify --out` kept, with nothing but Python: what was asked, and what came out.

    python read_a_run.py runs/now

docs/formats.md has every field of run.json and samples.jsonl. A sample may stand there twice; the last row counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The question, and a row a sample in the order of the indices."""
    question: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    start, stop = question["samples"]
    rows: dict[int, dict[str, Any]] = {}
    for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if start <= row["index"] < stop:
            rows[row["index"]] = row
    return question, [rows[index] for index in sorted(rows)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the question, the counts, and the samples with the smallest proved margins."""
    parser = argparse.ArgumentParser(description="What a run on disk says.")
    parser.add_argument("run", type=Path)
    given = parser.parse_args(arguments)

    question, rows = read(given.run)
    start, stop = question["samples"]
    print(f"{Path(question['model']).name} on {question['data']}, {question['radii']['convention']}")
    counts = Counter(row["status"] for row in rows)
    shown = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    print(f"{len(rows)} of {stop - start} samples: {shown}")
    print(f"guaranteed {counts['verified'] / (stop - start):.1%}")
    proved = sorted((row for row in rows if row["status"] == "verified"), key=lambda row: row["margin_lower"])
    for row in proved[:3]:
        print(f"verified by little: sample {row['index']}, margin at least {row['margin_lower']:.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
