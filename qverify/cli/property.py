"""`qverify property`: does a property of the outputs hold on every sample or box, whatever the quantiser?"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import Pace, Progress, duration
from qverify.console.signals import INTERRUPTED, stoppable
from qverify.errors import UsageError
from qverify.properties.samples import STATUSES, PropertyRow, decide_subjects
from qverify.remarks import quiet
from qverify.report.numbers import widths
from qverify.runs.gate import below, share
from qverify.runs.property import PropertyProblem, found_in, kept, row_of
from qverify.text.shortened import listed

if TYPE_CHECKING:
    from qverify.runs.given import Given
    from qverify.runs.verify import RunDirectory

_FAILED = 1


@dataclass(frozen=True)
class PropertyGate:
    """What a run must reach: no subject is one of `fail_on`, and at least `fail_under` % hold."""

    fail_on: tuple[str, ...] = ()
    fail_under: float | None = None

    def failure(self, counts: Counter[str], asked: int) -> str:
        """Why it is not reached, in a sentence; empty if it is."""
        found = [f"{counts[one]} are {one}" for one in self.fail_on if counts[one]]
        if self.fail_under is not None and below(counts["holds"], asked, self.fail_under):
            held = counts["holds"]
            found.append(f"it is proved for {share(held, asked)} ({held} of {asked}), less than {self.fail_under:g} %")
        return f"failed: {'; '.join(found)}." if found else ""


def run(given: Given, *, file: str, out: str | None, resume: bool, gate: PropertyGate, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    if resume and out is None:
        raise UsageError("--resume needs a directory; give --out DIR too.")
    began = time.perf_counter()
    with stdout_kept_clean():
        problem = PropertyProblem.load(given, file)
        with kept(problem, file, out, resume) as directory:
            rows = _computed(problem, directory)
    missing, counts = len(problem.regions) - len(rows), Counter(row.status for row in rows)
    seconds = time.perf_counter() - began
    if as_json:
        own = sum(row.itself for row in rows)
        found = {"property": problem.wanted.words(), "samples": len(rows), "itself": own}
        found |= {one: counts[one] for one in STATUSES} | {"seconds": round(seconds, 3), "interrupted": bool(missing)}
        show_json(problem.family.question().summary() | found | {"rows": [asdict(row) for row in rows]})
    else:
        _show(problem, rows, seconds)
        if out is not None:
            show(f"Kept in {out}: run.json says what was asked, samples.jsonl has a line a sample.")
    if missing:
        where = f" and kept in {out}; go on with the same command and --resume" if out else ""
        say(f"interrupted: {len(rows)} of {len(problem.regions)} are done{where}.")
        return INTERRUPTED
    if failure := gate.failure(counts, len(rows)):
        say(failure)
    return _FAILED if failure else 0


def _show(problem: PropertyProblem, rows: list[PropertyRow], seconds: float) -> None:
    what = problem.what
    show(f"{problem.title}: {problem.wanted.words()}; {len(rows)} {what} in {duration(seconds)}", "")
    names = {"holds": problem.wanted.met()}
    width = max(map(len, ("network itself", *names.values())))
    where = "" if what == "samples" else "  (at the middles of the boxes)"
    show(f"{'network itself':{width}}{sum(row.itself for row in rows):6}  {problem.wanted.met()}{where}")
    for status in STATUSES:
        own = [str(row.index) for row in rows if row.status == status]
        note = "proved for every member of the family" if status == "holds" else f"{what} {listed(own)}" if own else ""
        show(f"{names.get(status, status):{width}}{len(own):6}  {note}".rstrip())
    radii = problem.family.question().radii
    show("", f"Family: {radii.convention}; radii (half-widths) {widths(radii.largest)}.")


def _computed(problem: PropertyProblem, directory: RunDirectory | None) -> list[PropertyRow]:
    """A row for every subject, with its index in the data set, those that are kept included; fewer after Ctrl-C."""
    family, options = problem.family, problem.family.options()
    before = {} if directory is None else directory.rows
    done = {i: row for i, row in before.items() if i in family.indices and row.settled(options.seconds)}
    rows = [found_in(row, problem.regions.labelled) for row in done.values()]
    todo = [index for index in family.indices if index not in done]
    every = problem.subjects
    subjects = [every[index - family.indices.start] for index in todo]
    if done:
        say(f"{len(done)} {problem.what} are decided already; {len(todo)} are left.")
    if not todo:
        return rows
    pace = Pace(len(subjects), True)
    with stoppable() as stop, Progress(pace, lambda: ["properties"]) as progress:

        def tell(row: PropertyRow) -> None:
            rows.append(replace(row, index=todo[row.index]))
            if directory is not None:
                directory.add(row_of(rows[-1]))
            progress.add(row.index, True)

        with contextlib.suppress(KeyboardInterrupt), quiet():
            decide_subjects(family.network, subjects, family.radii, problem.wanted, options, tell, stop)
    return sorted(rows, key=lambda row: row.index)
