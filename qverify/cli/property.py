"""`qverify property`: does a property of the outputs hold on every sample, whatever the quantiser?"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import Pace, Progress, duration
from qverify.console.signals import INTERRUPTED, stoppable
from qverify.errors import UsageError
from qverify.properties.samples import STATUSES, PropertyRow, decide_samples, read_property
from qverify.remarks import quiet
from qverify.report.numbers import widths
from qverify.runs.problem import FamilyProblem
from qverify.text.shortened import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.properties.samples import Property
    from qverify.runs.given import Given

_FAILED = 1


def run(given: Given, *, file: str, fail_on: Sequence[str], as_json: bool) -> int:
    """Run the command; returns the exit status."""
    began = time.perf_counter()
    wanted = read_property(file)
    with stdout_kept_clean():
        problem = FamilyProblem.load(given)
        if problem.network.dynamic:
            raise UsageError(
                f"{problem.network.source} is quantised dynamically: its bounds are not enough for properties; give a"
                " model with fixed steps."
            )
        rows = _computed(problem, wanted)
    missing, counts = len(problem.indices) - len(rows), Counter(row.status for row in rows)
    seconds = time.perf_counter() - began
    if as_json:
        found = {"property": wanted.words(), "samples": len(rows)} | {one: counts[one] for one in STATUSES}
        found |= {"seconds": round(seconds, 3), "interrupted": bool(missing), "rows": [asdict(row) for row in rows]}
        show_json(problem.question().summary() | found)
    else:
        show(f"{problem.title}: {wanted.words()}; {len(rows)} samples in {duration(seconds)}", "")
        for status in STATUSES:
            own = [str(row.index) for row in rows if row.status == status]
            show(f"{status:9}{counts[status]:6}" + (f"  ({listed(own)})" if own and status != "holds" else ""))
        radii = problem.question().radii
        show("", f"Family: {radii.convention}; radii (half-widths) {widths(radii.largest)}.")
    if missing:
        say(f"interrupted: {len(rows)} of {len(problem.indices)} samples are done.")
        return INTERRUPTED
    return _FAILED if any(counts[status] for status in fail_on) else 0


def _computed(problem: FamilyProblem, wanted: Property) -> list[PropertyRow]:
    """A row for every sample, with its index in the data set; fewer after Ctrl-C."""
    rows: list[PropertyRow] = []
    options = problem.options()
    pace = Pace(len(problem.indices), True)
    with stoppable() as stop, Progress(pace, lambda: ["properties"]) as progress:

        def tell(row: PropertyRow) -> None:
            rows.append(replace(row, index=problem.indices[row.index]))
            progress.add(row.index, True)

        with contextlib.suppress(KeyboardInterrupt), quiet():
            decide_samples(
                problem.network, problem.inputs(), problem.samples.y, problem.radii, wanted, options, tell, stop
            )
    return rows
