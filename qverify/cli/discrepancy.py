"""`qverify discrepancy`: how far every output can move over the family, per sample and over all of them."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TextIO

from qverify.analysis.discrepancies import Discrepancy, worst_case_discrepancy
from qverify.cli.rows import rows_file
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import Pace, Progress
from qverify.console.signals import INTERRUPTED, stoppable
from qverify.remarks import quiet
from qverify.report.numbers import discrepancy_ranges, discrepancy_table, outward, reason_lines, widths
from qverify.runs.problem import FamilyProblem
from qverify.runs.start import SolverUsed
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.runs.given import Given


def run(given: Given, *, out: str | None, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    began = time.perf_counter()
    with stdout_kept_clean():
        problem = FamilyProblem.load(given, classifies=False)
        solver = SolverUsed.of(problem.options())
        with rows_file(out) as file:
            rows = _computed(problem, file)
    missing = len(problem.indices) - len(rows)
    summary = _Summary.of(rows)
    if as_json:
        found = summary.to_json() | {
            "solver": solver and solver.to_json(),
            "seconds": round(time.perf_counter() - began, 3),
        }
        lines = [row.to_json() for row in rows]
        show_json(problem.question().summary() | found | {"interrupted": bool(missing), "rows": lines})
    else:
        _show(problem, rows, summary)
    if missing:
        say(f"interrupted: {len(rows)} of {len(problem.indices)} samples are done.")
    return INTERRUPTED if missing else 0


def _computed(problem: FamilyProblem, file: TextIO | None) -> list[Discrepancy]:
    """A row for every sample, with its index in the data set; fewer after Ctrl-C."""
    rows: list[Discrepancy] = []
    options = problem.options()
    exact = options.method == "exact"
    pace = Pace(len(problem.indices), exact)
    with stoppable() as stop, Progress(pace, lambda: [f"worst-case discrepancy by {options.method}"]) as progress:

        def tell(result: Discrepancy) -> None:
            rows.append(replace(result, index=problem.indices[result.index]))
            if file is not None:
                file.write(json.dumps(rows[-1].to_json(), allow_nan=False) + "\n")
                file.flush()
            progress.add(result.index, exact)

        with contextlib.suppress(KeyboardInterrupt), quiet():
            worst_case_discrepancy(problem.network, problem.inputs(), problem.radii, options, tell, stop)
    return sorted(rows, key=lambda row: row.index)


@dataclass(frozen=True, kw_only=True, repr=False)
class _Summary(Brief):
    """Over all samples: the ends per output, and the largest |f_hat - f|, proved and met by a member."""

    samples: int
    complete: bool
    ranges: dict[str, list[float]]
    largest: float | None
    largest_attained: float | None

    @staticmethod
    def of(rows: Sequence[Discrepancy]) -> _Summary:
        """The summary of some samples."""
        ranges = discrepancy_ranges(rows)
        met = [*ranges["attained_lower"], *ranges["attained_upper"]] if "attained_lower" in ranges else []
        return _Summary(
            samples=len(rows),
            complete=all(row.complete for row in rows),
            ranges=ranges,
            largest=max((row.worst for row in rows), default=None),
            largest_attained=max(map(abs, met)) if met else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The summary in the `--json` object."""
        found: dict[str, Any] = {"samples": self.samples, "complete": self.complete, **self.ranges}
        found["largest"] = self.largest
        return found | ({} if self.largest_attained is None else {"largest_attained": self.largest_attained})


def _show(problem: FamilyProblem, rows: list[Discrepancy], summary: _Summary) -> None:
    question = problem.question()
    title = f"{problem.title}: how far each output can move over the family"
    if summary.largest is not None:
        show(title, "", discrepancy_table(summary.ranges), "")
        attained = summary.largest_attained
        met = "" if attained is None else f", and at least {outward(attained, 6, up=False)} is met"
        show(f"Worst-case discrepancy: at most {outward(summary.largest, 6, up=True)} over {len(rows)} samples{met}.")
    cut = sum(row.method == "exact" and not row.complete for row in rows)
    if cut:
        show(
            f"For {cut} samples the exact step was cut off, or took the positions of convolutions as independent: the"
            " truth lies between what is met and what is proved."
        )
    show(*reason_lines("Not certain", Counter(row.detail for row in rows), len(rows)))
    show(
        f"Family: {question.radii.convention}; radii (half-widths) {widths(question.radii.largest)}.",
        f"Method: {question.method}.",
    )
