"""The four parts of `scale.py`; each takes a `ScaleBench` and returns what it measured, as an object of JSON."""

from __future__ import annotations

import importlib.util
import random
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from scale_runs import (
    OURS,
    Rest,
    ScaleBench,
    differences,
    ended_well,
    finish,
    killed_at,
    other_verdicts,
    rows,
    same,
    solver,
    started,
)

import qverify
from qverify.console.output import say
from qverify.errors import InternalError
from qverify.verification.tally import Tally
from qverify.workers.tasks import chunk_of

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from qverify.verification.row import Row

FIRST = 0.9
"""Moments of kills are drawn from this first part of the time that a run is expected to go on."""
TRIES = 5
"""How often a run is begun anew that ended before it could be disturbed."""
CLUSTER = ("--cluster", "local:2")

Measured = dict[str, Any]


def speed(bench: ScaleBench) -> Measured:
    """Every model with one job and with two, from empty folders."""
    found: Measured = {"models": {}}
    for model in bench.models:
        runs = {jobs: bench.undisturbed(model, "--jobs", jobs) for jobs in ("1", "2")}
        found["solver"] = solver(runs["2"].folder)
        found["models"][model.name] = {
            "jobs": {
                jobs: _counted(run.rows) | {"seconds": run.seconds, "processor": run.processor}
                for jobs, run in runs.items()
            },
            "speed_up": runs["1"].seconds / runs["2"].seconds,
            "differences": differences(runs["2"].rows, runs["1"].rows),
        }
    return found


def _counted(found: list[Row]) -> Measured:
    tally = Tally.of(found)
    stages = {name: {"samples": sum(counts.values()), "seconds": seconds} for name, counts, seconds in tally.stages()}
    statuses = {name: tally.statuses[name] for name in ("verified", "falsified", "unknown", "misclassified")}
    return {"samples": tally.samples, **statuses, "clean": tally.clean, "stages": stages}


# -- kills ----------------------------------------------------------------------------------------


def kills(bench: ScaleBench) -> Measured:
    """Kill a run again and again, let it finish, and compare its rows with those of an undisturbed run."""
    expected = bench.undisturbed(OURS, "--jobs", "2")
    chunk = chunk_of(qverify.load(bench.settings.path(OURS)), len(expected.rows))
    rest, draw = Rest(expected, 2, chunk), random.Random(bench.seed)
    hits: list[Measured] = []
    found: list[dict[str, int]] = []
    while len(hits) < bench.kills:
        if len(found) == TRIES:
            raise InternalError(f"{TRIES} runs ended before {bench.kills} kills hit one; give more --samples.")
        folder = bench.fresh(f"kills-{len(found) + 1}")
        while len(hits) < bench.kills and (hit := _killed(folder, rest, draw)):
            hits.append(hit)
            say(f"kill {len(hits)} of {bench.kills} after {hit['after']:.1f} s, {hit['rows']} rows are on disk")
        finish(folder, "--jobs", "2")
        found.append(differences(rows(folder), expected.rows))
    return {"expected": len(expected.rows), "undisturbed_seconds": expected.seconds, "kills": hits, "runs": found}


def _killed(folder: Path, rest: Rest, draw: random.Random) -> Measured | None:
    """Go on with a run and kill it at a random moment; None if it ended before."""
    before = rows(folder)
    moment = draw.uniform(0.0, FIRST * rest.seconds(before))
    with started(folder, "--jobs", "2") as process:
        hit = killed_at(process, moment)
    if not hit:
        ended_well(folder, process)
        return None
    after = rows(folder)
    exact = sum(row.method == "exact" for row in after)
    return {"after": moment, "rows": len(after), "exact": exact, "added": len(after) - len(before)}


# -- Dask -----------------------------------------------------------------------------------------


def dask(bench: ScaleBench) -> Measured:
    """On a Dask cluster, undisturbed and with one of its workers killed, against runs without one."""
    if importlib.util.find_spec("distributed") is None:
        return {"absent": "Dask is not installed"}
    one, two = (bench.undisturbed(OURS, "--jobs", jobs) for jobs in ("1", "2"))
    cluster = bench.undisturbed(OURS, *CLUSTER)
    draw = random.Random(bench.seed)
    for _ in range(TRIES):
        folder = bench.fresh("dask-killed")
        if hit := _worker_killed(folder, draw, len(one.rows)):
            break
    else:
        raise InternalError(f"{TRIES} runs ended before a worker of the cluster was killed; give more --samples.")
    disturbed = rows(folder)
    return {
        "version": version("distributed"),
        "seconds": cluster.seconds,
        "kill": hit,
        "killed": differences(disturbed, one.rows),
        "undisturbed": differences(cluster.rows, one.rows),
        "other_verdicts": {
            "jobs_2": other_verdicts(two.rows, one.rows),
            "dask": other_verdicts(cluster.rows, one.rows),
            "dask_killed": other_verdicts(disturbed, one.rows),
        },
    }


def _worker_killed(folder: Path, draw: random.Random, total: int) -> Measured | None:
    """A run on a cluster that loses a worker once a random share of the rows is there; None if it ended before."""
    wanted = draw.uniform(0.2, 0.8) * total
    began = time.perf_counter()
    file = folder / "out" / "samples.jsonl"
    hit: Measured | None = None
    with started(folder, *CLUSTER) as process:
        while process.poll() is None and hit is None:
            time.sleep(0.01)
            kept = file.read_bytes().count(b"\n") if file.exists() else 0
            if wanted <= kept < total and _lose_a_worker(process, draw):
                hit = {"after": time.perf_counter() - began, "rows": kept}
                say(f"a worker of the cluster is killed after {hit['after']:.1f} s, {kept} rows are on disk")
        process.wait()
    ended_well(folder, process)
    return hit


def _lose_a_worker(process: subprocess.Popen[bytes], draw: random.Random) -> bool:
    """Kill a worker of the cluster below a process, the parent of one that computes; False if there is none."""
    import psutil  # comes with Dask

    try:
        below = psutil.Process(process.pid).children(recursive=True)
        parents = {each.ppid() for each in below if any("qverify.workers.worker" in word for word in each.cmdline())}
        workers = sorted((each for each in below if each.pid in parents), key=lambda each: each.pid)
        if not workers:
            return False
        worker = draw.choice(workers)
        worker.kill()
    except psutil.Error:  # one of them has just ended
        return False
    return True


def agrees(dask: Measured) -> bool:
    """Whether the rows on Dask, disturbed or not, and all verdicts are those of the run without it."""
    return same(dask["killed"]) and same(dask["undisturbed"]) and not any(dask["other_verdicts"].values())
