"""`qverify verify`: a verdict for every sample, kept on disk if asked, and the accuracies over all of them."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from qverify.choices import FILE_ROUNDING, RUNTIME_RULES
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import duration
from qverify.errors import UsageError
from qverify.report.numbers import accuracy_table, footer, stage_table
from qverify.runs.problem import FamilyProblem
from qverify.runs.reading import fresh_case
from qverify.runs.start import used_solvers
from qverify.runs.verify import Verified, verified

if TYPE_CHECKING:
    from qverify.cli.gate import GateGiven
    from qverify.runs.given import Given


def run(given: Given, *, out: str | None, resume: bool, witnesses: bool, gate: GateGiven, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    if (resume or witnesses) and out is None:
        raise UsageError("--resume and --witnesses need a directory; give --out DIR too.")
    began = time.perf_counter()
    gate.prepare()
    with stdout_kept_clean():
        problem = FamilyProblem.load(given)
        asked = gate.of_question(problem.question())
        found = verified(problem, out=out, resume=resume, witnesses=witnesses)
    work = found.work
    failures = asked.failures(work.statuses, problem.indices)
    interrupted = bool(work.missing)
    passed = None if interrupted else asked.passed(failures)
    _report(found, as_json, time.perf_counter() - began, passed)
    if interrupted:
        where = f"kept in {out}; go on with the same command and --resume" if out else "lost; --out keeps them"
        total = len(work.problem.indices)
        say(f"interrupted: {work.tally.samples} of {total} samples are decided and {where}.")
    case = fresh_case(found.question, found.starts, list(work.rows.values()))
    return gate.ended([case], [failures], interrupted)


def _report(found: Verified, as_json: bool, seconds: float, passed: bool | None) -> None:
    """Write the result to stdout, over all rows, those of earlier starts included."""
    work = found.work
    tally, problem = work.tally, work.problem
    used = used_solvers(found.starts)
    if as_json:
        result = tally.as_dict() | {"seconds": round(seconds, 3), "interrupted": bool(work.missing)}
        result |= {"passed": passed}
        starts = [start.to_json() for start in found.starts]
        show_json(result | found.question.summary() | {"solver": ", ".join(used) or None, "runs": starts})
        return
    decided = f"{tally.samples} samples in {duration(seconds)}"
    if work.missing:
        decided += f", interrupted: {work.missing} are not decided"
    show(f"{problem.title}: {decided}", "", accuracy_table(tally), "", stage_table(tally), "")
    if work.missing and tally.samples:
        show("Shares of what is decided so far; hard samples come last, so those of all samples will be others.")
    show(*footer(tally, found.question, used))
    if tally.limited:
        how = "the same command with a larger one" + (" and --resume" if work.directory is not None else "")
        show(f"{tally.limited} samples ran into the time limit; {how} asks about these again.")
    show(*_by_runtimes(problem, tally.statuses["unknown"]))
    if work.directory is not None:
        show(f"Kept in {work.directory.path}: run.json says what was asked, samples.jsonl has a line a sample.")


def _by_runtimes(problem: FamilyProblem, unknown: int) -> list[str]:
    """The command that may decide open samples of an integer file: it knows kernels themselves, not radii for them."""
    given, rule = problem.given, problem.given.rounding or FILE_ROUNDING
    if not unknown or not problem.network.roundings or given.radii is not None or rule not in RUNTIME_RULES:
        return []
    words = ["qverify", "runtimes", given.model, "--data", str(given.data)]
    words += [] if given.output is None else ["--output", given.output]
    words += [] if given.samples is None else ["--samples", given.samples]
    words += [] if given.input_scale is None else ["--input-scale", repr(given.input_scale)]
    return [
        "Open samples may be decided where every runtime has integer kernels, and none computes in floating point: "
        + shlex.join([*words, "--rules", rule])
    ]
