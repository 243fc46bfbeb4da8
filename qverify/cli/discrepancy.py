"""`qverify discrepancy`: how far every output can move over the family, per sample and over all of them."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from qverify.analysis.discrepancies import Discrepancy, worst_case_discrepancy
from qverify.cli.options import Given
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import Pace, Progress
from qverify.console.signals import INTERRUPTED, stoppable
from qverify.errors import OutputError
from qverify.remarks import quiet
from qverify.report.numbers import discrepancy_ranges, discrepancy_table, outward, reason_lines, widths
from qverify.runs.problem import Problem, chosen_solver, required_radii


def run(given: Given) -> int:
    """The whole command; returns the exit status."""
    required_radii(given)
    began = time.perf_counter()
    with stdout_kept_clean():
        problem = Problem.load(given, classifies=False)
        solver = chosen_solver(problem.options())
        with _rows_file(given.out) as file:
            rows = _computed(problem, file)
    missing = len(problem.indices) - len(rows)
    summary = _summary(rows) | {"solver": solver, "seconds": round(time.perf_counter() - began, 3)}
    if given.as_json:
        show_json(_question(problem) | summary | {"interrupted": bool(missing), "rows": rows})
    else:
        _show(problem, rows, summary)
    if missing:
        say(f"interrupted: {len(rows)} of {len(problem.indices)} samples are done.")
    return INTERRUPTED if missing else 0


def _computed(problem: Problem, file: TextIO | None) -> list[dict[str, Any]]:
    """A row for every sample, with its index in the data set; fewer after Ctrl-C."""
    rows: list[dict[str, Any]] = []
    options = problem.options()
    exact = options.method == "exact"
    radii = problem.radii
    assert radii is not None
    pace = Pace(len(problem.indices), exact)
    with stoppable() as stop, Progress(pace, lambda: [f"worst-case discrepancy by {options.method}"]) as progress:

        def tell(result: Discrepancy) -> None:
            rows.append(replace(result, index=problem.indices[result.index]).row())
            if file is not None:
                file.write(json.dumps(rows[-1], allow_nan=False) + "\n")
                file.flush()
            progress.add(result.index, exact)

        with contextlib.suppress(KeyboardInterrupt), quiet():
            worst_case_discrepancy(problem.network, problem.inputs(), radii, options, tell, stop)
    return sorted(rows, key=lambda row: row["index"])


@contextlib.contextmanager
def _rows_file(path: str | None) -> Iterator[TextIO | None]:
    """A new file for the rows; OutputError if it exists or cannot be written."""
    if path is None:
        yield None
        return
    try:
        with Path(path).open("x") as file:
            yield file
    except FileExistsError:
        raise OutputError(f"{path} exists already; name another --out.") from None
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); name another --out.") from error


def _question(problem: Problem) -> dict[str, Any]:
    question = problem.question()
    question["sample_range"] = question.pop("samples")
    return question | {"convention": question["radii"]["convention"]}


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all samples: the ends per output, and the largest |f_hat - f|, proved and met by a member."""
    ranges = discrepancy_ranges(rows)
    summary: dict[str, Any] = {"samples": len(rows), "complete": all(row["complete"] for row in rows), **ranges}
    summary["largest"] = max((row["worst"] for row in rows), default=None)
    if "attained_lower" in ranges:
        ends = [*ranges["attained_lower"], *ranges["attained_upper"]]
        summary["largest_attained"] = max(abs(end) for end in ends)
    return summary


def _show(problem: Problem, rows: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    question = problem.question()
    title = f"{problem.title}: how far each output can move over the family"
    if rows:
        show(title, "", discrepancy_table(discrepancy_ranges(rows)), "")
        attained = summary.get("largest_attained")
        met = "" if attained is None else f", and at least {outward(attained, 6, up=False)} is met"
        show(
            f"Worst-case discrepancy: at most {outward(summary['largest'], 6, up=True)} over {len(rows)} samples{met}."
        )
    cut = sum(row["method"] == "exact" and not row["complete"] for row in rows)
    if cut:
        show(
            f"For {cut} samples the exact step was cut off, or took the positions of convolutions as independent: the"
            " truth lies between what is met and what is proved."
        )
    show(*reason_lines("Not certain", Counter(row.get("detail", "") for row in rows), len(rows)))
    show(
        f"Family: {question['radii']['convention']}; radii (half-widths) {widths(question['radii']['largest'])}.",
        f"Method: {question['method']}.",
    )
