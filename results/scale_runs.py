"""Batches of `qverify batch` as processes of their own, for `scale.py`: started, disturbed, read, and compared."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from study import PUBLISHED_ROBUST, ROBUST, Model, StudySettings

import qverify
from qverify import datasets
from qverify.console.output import say
from qverify.errors import InternalError
from qverify.files.hashes import file_sha256
from qverify.runs.folder import RUNS
from qverify.runs.start import Start
from qverify.runs.stored import BATCH
from qverify.verification.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OURS = next(model for model in ROBUST if model.bits == 8)
PUBLISHED = next(model for model in PUBLISHED_ROBUST if model.bits == 8)
BITS = 8
COMMAND = [sys.executable, "-m", "qverify"]


def cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class ScaleRun:
    """A finished batch: its folder and rows; the seconds from the start of its process to its end.

    `processor`: the seconds that it and its workers had a core, so far less than `seconds` times the jobs if other
    work kept them waiting.
    """

    folder: Path
    rows: list[Row]
    seconds: float
    processor: float


class ScaleBench:
    """The settings of all parts, and the undisturbed runs, each done once in a process of `scale.py` and never kept.

    `folder` is for this question alone: other networks, samples, seeds, limits or cores have another.
    """

    def __init__(self, settings: StudySettings, seed: int, kills: int):
        self.settings, self.seed, self.kills = settings, seed, kills
        self.models = settings.here([OURS, PUBLISHED])
        hashes = [file_sha256(str(settings.path(model))) for model in self.models]
        question = [hashes, settings.data, settings.samples, settings.timeout, seed, kills, cores()]
        digest = hashlib.sha256(json.dumps([qverify.__version__, *question]).encode()).hexdigest()[:10]
        self.folder = settings.out / "runs" / f"scale-{digest}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._runs: dict[tuple[Model, tuple[str, ...]], ScaleRun] = {}

    @property
    def whole(self) -> bool:
        """Whether this is the run that the demands on time are about: all images of mnist, 2 cores."""
        return self.settings.samples is None and self.settings.data == StudySettings().data and cores() <= 2

    def fresh(self, name: str) -> Path:
        """A folder for one batch, with nothing in it."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._plan(folder, OURS)
        return folder

    def _plan(self, folder: Path, model: Model) -> None:
        data = self.settings.data
        location = data if data in datasets.NAMES else str(Path(data).resolve())
        content = plan(self.settings, str(self.settings.path(model).resolve()), location)
        (folder / "plan.toml").write_text("\n".join(content) + "\n")

    def undisturbed(self, model: Model, *how: str) -> ScaleRun:
        """The run of a model from an empty folder; `how`: more arguments of `qverify batch`."""
        if (model, how) not in self._runs:
            folder = self.fresh(f"{model.name}{'-'.join(how)}".replace(":", "-"))
            self._plan(folder, model)
            say(f"{model.label}, {' '.join(how)}, undisturbed")
            before = _processor()
            seconds = finish(folder, *how)
            self._runs[model, how] = ScaleRun(folder, rows(folder), seconds, _processor() - before)
            say(f"{seconds:.1f} s")
        return self._runs[model, how]


def plan(settings: StudySettings, model: str, data: str) -> list[str]:
    """The lines of the plan for one model."""
    lines = [f"models = {json.dumps(model)}", f"data = {json.dumps(data)}", f"bits = {BITS}"]
    lines += ['schemes = "paper"', 'roundings = "any"', 'methods = "auto"', f"timeout = {settings.timeout}"]
    return lines if settings.samples is None else [*lines, f'samples = "0:{settings.samples}"']


def _processor() -> float:
    """The seconds that all processes below this one, as far as they have ended, had a core."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def finish(folder: Path, *how: str) -> float:
    """Run the batch of a folder to its end; the seconds it took. Raises InternalError if it does not end well."""
    began = time.perf_counter()
    with started(folder, *how) as process:
        process.wait()
        seconds = time.perf_counter() - began
    ended_well(folder, process)
    return seconds


@contextlib.contextmanager
def started(folder: Path, *how: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that works on the plan of a folder, and is killed at the end if it still does."""
    command = [*COMMAND, "batch", str(folder / "plan.toml"), "--out", str(folder / "out"), "--json", *how]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("ab") as log, (folder / "answer.json").open("wb") as answer:
        process = subprocess.Popen(command, stdout=answer, stderr=log, env=environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def ended_well(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Raises InternalError unless a process ended with status 0."""
    if process.returncode:
        last = (folder / "log.txt").read_text(errors="replace").strip().splitlines()[-1:]
        raise InternalError(f"qverify batch ended with status {process.returncode}: {' '.join(last)}")


def rows(folder: Path) -> list[Row]:
    """The whole rows on disk; a last line that was torn by a kill does not count."""
    file = folder / "out" / "samples.jsonl"
    content = file.read_bytes() if file.exists() else b""
    return [Row.from_json(json.loads(line), ("case", "key")) for line in content.split(b"\n")[:-1]]


def solver(folder: Path) -> str:
    """Name and version of the solver that a batch worked with."""
    starts = json.loads((folder / "out" / BATCH).read_text())[RUNS]
    return str(Start.from_json(starts[-1]).solver)


def differences(found: Sequence[Row], expected: Sequence[Row]) -> dict[str, int]:
    """How the rows of a run differ from those of another, in all fields but the time they took."""
    theirs, ours = ({row.key: _timeless(row) for row in each} for each in (expected, found))
    return {
        "rows": len(found),
        "missing": len(theirs.keys() - ours.keys()),
        "duplicates": len(found) - len(ours),
        "added": len(ours.keys() - theirs.keys()),
        "different": sum(ours[key] != theirs[key] for key in ours.keys() & theirs.keys()),
    }


def same(found: dict[str, int]) -> bool:
    """Whether `differences` are none."""
    return not any(count for name, count in found.items() if name in ("missing", "duplicates", "added", "different"))


def other_verdicts(found: Sequence[Row], expected: Sequence[Row]) -> int:
    """How many samples have not the same status in both runs."""
    ours, theirs = ({row.index: row.status for row in each} for each in (found, expected))
    return sum(ours.get(index) != theirs.get(index) for index in ours.keys() | theirs.keys())


def _timeless(row: Row) -> Row:
    """The row without the one field that may differ from run to run."""
    return replace(row, seconds=0.0)


class Rest:
    """How long a run that was interrupted will still take, from an undisturbed run with `jobs` processes.

    `chunk`: how many samples share a task.
    """

    def __init__(self, run: ScaleRun, jobs: int, chunk: int):
        self._rows, self._jobs, self._chunk = run.rows, jobs, chunk
        self._start = max(0.0, run.seconds - sum(row.seconds for row in run.rows) / jobs)

    def seconds(self, kept: Sequence[Row]) -> float:
        """With these rows on disk. Chunks in which a row is missing are bounded again as a whole."""
        done = {row.key for row in kept}
        unfinished = {row.index // self._chunk for row in self._rows if row.key not in done}
        work = sum(
            row.seconds
            for row in self._rows
            if (row.key not in done if row.method == "exact" else row.index // self._chunk in unfinished)
        )
        return self._start + work / self._jobs


def killed_at(process: subprocess.Popen[bytes], moment: float) -> bool:
    """Kill a process with signal 9 so many seconds from now; False if it has ended before."""
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.returncode == -signal.SIGKILL
