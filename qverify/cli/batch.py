"""`qverify batch`: all cases of a plan, kept in one directory, by processes here or on a cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.table import Table

from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import duration
from qverify.errors import UsageError
from qverify.report.numbers import percent
from qverify.runs.batch import BatchWork, Where, worked
from qverify.runs.plan import Plan
from qverify.runs.reading import fresh_case

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qverify.cli.gate import GateGiven
    from qverify.runs.gate import Gate
    from qverify.runs.question import Question


def run(path: str, where: Where, *, out: str | None, gate: GateGiven, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    began = time.perf_counter()
    plan = Plan.read(path)
    folder = out or plan.out
    if folder is None:
        raise UsageError(f'There is no place for the rows; give --out DIR, or add out = "DIR" to {path}.')
    if where.cluster is not None and where.jobs:
        raise UsageError("--jobs and --cluster exclude each other; a cluster has the workers it has.")
    gate.prepare()
    gates: dict[str, Gate] = {}

    def check(questions: Mapping[str, Question]) -> None:
        gates.update(gate.of_cases(questions))

    with stdout_kept_clean():
        work = worked(plan, folder, where, check)
    cases = [fresh_case(case.question, [work.start], work.rows(case), case.name) for case in work.cases]
    failures = [
        gates[case.name].failures({row.index: row.status.value for row in kept.rows}, case.indices)
        for case, kept in zip(work.cases, cases, strict=True)
    ]
    passed = [
        None if work.missing else gates[case.name].passed(why) for case, why in zip(work.cases, failures, strict=True)
    ]
    _report(work, as_json, time.perf_counter() - began, passed)
    if work.missing:
        say(
            f"interrupted: {work.total - work.missing} of {work.total} samples are decided and kept in {folder};"
            " go on with the same command."
        )
    return gate.ended(cases, failures, bool(work.missing))


def _report(work: BatchWork, as_json: bool, seconds: float, passed: Sequence[bool | None]) -> None:
    """Write the result to stdout, over all rows that the plan asks for."""
    where = work.directory.path
    if as_json:
        cases = {
            case.name: work.tallies[case.name].as_dict() | {"passed": one}
            for case, one in zip(work.cases, passed, strict=True)
        }
        counts: dict[str, Any] = {
            "samples": work.all.samples,
            "missing": work.missing,
            "interrupted": bool(work.missing),
        }
        show_json(counts | {"seconds": round(seconds, 3), "out": str(where), "cases": cases})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("case", overflow="fold")
    for heading in ("samples", "clean", "guaranteed", "attack", "unknown", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for case in work.cases:
        tally = work.tallies[case.name]
        shares = [percent(part, tally.samples) for part in (tally.clean, tally.guaranteed, tally.attack)]
        decided, unknown = f"{tally.samples} of {len(case.indices)}", str(tally.statuses["unknown"])
        table.add_row(case.name, decided, *shares, unknown, f"{sum(tally.seconds.values()):.1f}")
    show(f"{len(work.cases)} cases, {work.all.samples} samples in {duration(seconds)}", "", table, "")
    if work.all.limited:
        show(f"{work.all.limited} samples ran into the time limit; a plan with a larger one asks about these again.")
    show(f"Kept in {where}: batch.json says what each case asks, samples.jsonl has a line a sample.")
