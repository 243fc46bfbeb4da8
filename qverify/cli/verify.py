"""`qverify verify`: a verdict for every sample, kept on disk if asked, and the accuracies over all of them."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from qverify.choices import FILE_ROUNDING, RUNTIME_RULES
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import duration
from qverify.console.signals import INTERRUPTED
from qverify.errors import UsageError
from qverify.report.numbers import accuracy_table, footer, stage_table
from qverify.runs.problem import FamilyProblem
from qverify.runs.start import used_solvers
from qverify.runs.verify import Verified, verified
from qverify.text.shortened import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.runs.given import Given

_FAILED = 1


def run(given: Given, *, out: str | None, resume: bool, witnesses: bool, fail_on: Sequence[str], as_json: bool) -> int:
    """Run the command; returns the exit status."""
    if (resume or witnesses) and out is None:
        raise UsageError("--resume and --witnesses need a directory; give --out DIR too.")
    began = time.perf_counter()
    with stdout_kept_clean():
        found = verified(FamilyProblem.load(given), out=out, resume=resume, witnesses=witnesses)
    _report(found, as_json, time.perf_counter() - began)
    work = found.work
    if work.missing:
        where = f"kept in {out}; go on with the same command and --resume" if out else "lost; --out keeps them"
        total = len(work.problem.indices)
        say(f"interrupted: {work.tally.samples} of {total} samples are decided and {where}.")
        return INTERRUPTED
    if any(work.tally.statuses[status] for status in fail_on):
        say(_failure(fail_on, work.statuses))
        return _FAILED
    return 0


def _failure(asked: Sequence[str], statuses: dict[int, str]) -> str:
    """The sentence on the samples that made --fail-on end the run with status 1; `statuses` by their indices."""
    hit: list[str] = []
    for status in dict.fromkeys(asked):
        if indices := sorted(index for index, found in statuses.items() if found == status):
            of = "" if hit else f" of {len(statuses)} samples"
            verb = "is" if len(indices) == 1 else "are"
            hit.append(f"{len(indices)}{of} {verb} {status} ({listed(list(map(str, indices)))})")
    return f"--fail-on {','.join(asked)}: {', '.join(hit)}."


def _report(found: Verified, as_json: bool, seconds: float) -> None:
    """Write the result to stdout, over all rows, those of earlier starts included."""
    work = found.work
    tally, problem = work.tally, work.problem
    used = used_solvers(found.starts)
    if as_json:
        result = tally.as_dict() | {"seconds": round(seconds, 3), "interrupted": bool(work.missing)}
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
