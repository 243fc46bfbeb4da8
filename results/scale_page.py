"""The page of text of `scale.py`: filled in from what the parts measured and from nothing else."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING, Any

import pages
from scale_checks import FIRST, Measured, agrees
from scale_runs import BITS, OURS, PUBLISHED, ScaleBench, cores, plan, same
from study import StudySettings

from qverify.files.hashes import file_sha256
from qverify.report.numbers import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMITS = {OURS.name: 120.0, PUBLISHED.name: 600.0}
"""Seconds that all test images may take, by model."""
SPEED_UP = 1.7
SHOWN = 2.0
"""Seconds until the page is shown."""

_PAGE = Template("""# Batches at scale

$images, on $cores; $bits bits, scheme `paper`, rounding `any`, method `auto`: bounds and an attack first, then the
exact step with at most $timeout s a sample. Every timed run is a process of its own that starts in an empty folder;
its seconds count from its start to its end.

$demands

## Speed

$speed

## Killed and resumed

$kills

## On Dask

$dask

## The page in a browser

$page

## How it was made

    $command

makes `data.csv`, which has every figure of this page, and the page. `--only` makes one part anew. A run is
`qverify batch PLAN.toml --jobs N`, here with the plan

$plan

| network | sha256 of its file |
|---|---|
$models

$versions
""")

_ABSENT = "Not measured yet."
_RUNS = ("network", "jobs", "seconds", "of processor", "samples", "clean", "guaranteed", "unknown")
_STAGES = ("network", "decided by", "samples", "seconds, 1 job", "share", "seconds, 2 jobs")
_KILLS = ("kill", "seconds after start", "rows on disk", "by the exact step", "added since start")


def text(bench: ScaleBench, found: dict[str, Measured]) -> str:
    """The whole page; `found`: what the parts measured, by their names."""
    settings = bench.settings
    parts = {
        name: write(bench, found[name]) if name in found else _ABSENT
        for name, write in (("speed", _speed), ("kills", _kills), ("dask", _dask), ("page", _page))
    }
    plan_lines = plan(settings, pages.location(OURS), settings.data)
    return _PAGE.substitute(
        parts,
        plan="\n".join(f"    {line}" for line in plan_lines),
        images=f"{'All' if settings.samples is None else f'The first {settings.samples}'} test images of"
        f" `{settings.data}`",
        bits=BITS,
        timeout=f"{settings.timeout:g}",
        cores="1 core" if cores() == 1 else f"{cores()} cores",
        demands=pages.table(("demand", "measured", "met"), _demands(bench, found)),
        command=_command(bench),
        models="\n".join(
            f"| `{model.name}` | `{file_sha256(str(settings.path(model)))[:16]}` |" for model in bench.models
        ),
        versions=pages.versions(),
    )


def _command(bench: ScaleBench) -> str:
    default, words = StudySettings(), ["python results/scale.py"]
    for name in ("data", "samples", "timeout"):
        if (value := getattr(bench.settings, name)) != getattr(default, name):
            words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    return " ".join([*words, f"--seed {bench.seed} --kills {bench.kills}"])


# -- demands --------------------------------------------------------------------------------------


def _demands(bench: ScaleBench, found: dict[str, Measured]) -> list[Sequence[str]]:
    """Demand, what was measured, and whether that meets it."""
    lines: list[Sequence[str]] = []
    timed = bench.whole
    for name, measured in found.get("speed", {}).get("models", {}).items():
        two = measured["jobs"]["2"]
        lines += [
            (
                f"`{name}`: at most {LIMITS[name]:g} s",
                f"{two['seconds']:.1f} s",
                _met(two["seconds"] <= LIMITS[name], timed),
            ),
            (f"`{name}`: none unknown", f"{two['unknown']} unknown", _met(not two["unknown"])),
            (
                f"`{name}`: 2 jobs at least {SPEED_UP:g} times as fast as 1",
                f"{measured['speed_up']:.2f} times",
                _met(measured["speed_up"] >= SPEED_UP, timed),
            ),
        ]
    if kills := found.get("kills"):
        wrong = sum(not same(run) for run in kills["runs"])
        what = f"{_many(len(kills['kills']), 'kill')}, {wrong} of {_many(len(kills['runs']), 'run')} with other rows"
        lines.append((f"the same rows after {_many(bench.kills, 'kill')}", what, _met(not wrong)))
    if (dask := found.get("dask")) and "absent" not in dask:
        differ = sum(not same(dask[run]) for run in ("killed", "undisturbed"))
        verdicts = sum(dask["other_verdicts"].values())
        what = f"{differ} of 2 runs with other rows, {verdicts} other verdicts"
        lines.append(("the same rows on Dask, also without a worker", what, _met(agrees(dask))))
    if (page := found.get("page")) and "absent" not in page:
        lines += [
            (f"the page is shown in under {SHOWN:g} s", f"{page['median']:.2f} s", _met(page["median"] < SHOWN, timed)),
            ("its table equals the CSV", f"{len(page['wrong'])} of {page['cells']} cells differ", _met(_equal(page))),
        ]
    return lines


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _met(met: bool, judged: bool = True) -> str:
    return ("yes" if met else "**no**") if judged else "not judged: for all of `mnist` on 2 cores"


def _equal(page: Measured) -> bool:
    return not page["wrong"] and page["cells"] > 0 and page["download_is_the_csv"]


# -- parts ----------------------------------------------------------------------------------------


def _speed(bench: ScaleBench, found: Measured) -> str:
    rows, stages, sentences = [], [], []
    for name, measured in found["models"].items():
        for jobs, run in measured["jobs"].items():
            shares = (percent(run[count], run["samples"]) for count in ("clean", "verified"))
            seconds = (f"{run['seconds']:.1f}", f"{run['processor']:.1f}")
            rows.append((f"`{name}`", jobs, *seconds, run["samples"], *shares, run["unknown"]))
        sentences.append(_time(name, measured))
        stages += _stages(name, measured)
    left_out = "" if PUBLISHED in bench.models else f" `{PUBLISHED.name}` was not at hand, so it is left out."
    return "\n\n".join(
        [
            pages.table(_RUNS, rows),
            f"Solver of the exact step: {found['solver']}. `of processor`: the seconds that the processes of the run"
            f" had a core.{left_out}",
            "How the time divides, from the rows: a sample counts with all its time under the stage that decided it.",
            pages.table(_STAGES, stages),
            "\n".join(sentences),
        ]
    )


def _stages(name: str, measured: Measured) -> list[Sequence[Any]]:
    """A line a stage, with its share of the time that one job worked."""
    one, two = (measured["jobs"][jobs]["stages"] for jobs in ("1", "2"))
    total = sum(stage["seconds"] for stage in one.values())
    return [
        (
            f"`{name}`",
            stage,
            values["samples"],
            f"{values['seconds']:.2f}",
            f"{100 * values['seconds'] / total:.1f} %",
            f"{two[stage]['seconds']:.2f}" if stage in two else "-",
        )
        for stage, values in one.items()
    ]


def _time(name: str, measured: Measured) -> str:
    """What the tables say about one network, in a sentence."""
    worked = {jobs: sum(stage["seconds"] for stage in run["stages"].values()) for jobs, run in measured["jobs"].items()}
    one, two = (measured["jobs"][jobs]["seconds"] for jobs in ("1", "2"))
    rows = "the rows of both are the same" if same(measured["differences"]) else "**their rows differ**"
    return (
        f"- `{name}`: {two:.1f} s with 2 jobs, {one:.1f} s with 1, {measured['speed_up']:.2f} times as fast; {rows}."
        f" Of the time of 1 job, {one - worked['1']:.1f} s are in no row: starting, reading, and the first bounds of"
        " samples that go on to the exact step, whose rows count from there. The rows of 2 jobs add up to"
        f" {worked['2']:.1f} s, {100 * worked['2'] / worked['1']:.0f} % of those of 1 job."
    )


def _kills(bench: ScaleBench, found: Measured) -> str:
    hits, runs = found["kills"], found["runs"]
    table = [
        (number, f"{hit['after']:.1f}", hit["rows"], hit["exact"], hit["added"])
        for number, hit in enumerate(hits, start=1)
    ]
    ended = "1 run" if len(runs) == 1 else f"{len(runs)} runs, as a run sometimes ended before its next kill"
    working = sum(hit["added"] > 0 for hit in hits)
    result = "\n".join(f"- Run {number}: {_difference(run)}" for number, run in enumerate(runs, start=1))
    return "\n\n".join(
        [
            f"`{OURS.name}` with 2 jobs, which undisturbed takes {found['undisturbed_seconds']:.1f} s for"
            f" {found['expected']} rows. At random moments (seed {bench.seed}), each drawn evenly from the first"
            f" {100 * FIRST:.0f} % of the time the run was then expected to go on, its process was ended by"
            f" `kill -9`; the same command went on at once. That took {ended}."
            f" Only kills that a process died of count: {len(hits)}, of which {working} came"
            " after it had added rows; the others while it was starting or computed bounds again.",
            pages.table(_KILLS, table),
            f"Against the rows of an undisturbed run, in every field but the seconds:\n\n{result}",
        ]
    )


def _difference(found: dict[str, int]) -> str:
    if same(found):
        return f"all {found['rows']} rows are the same, none is missing and none is there twice."
    names = ("missing", "duplicates", "added", "different")
    return f"**not the same**: {', '.join(f'{found[name]} {name}' for name in names)}, of {found['rows']} rows."


def _dask(bench: ScaleBench, found: Measured) -> str:
    if "absent" in found:
        return f"{found['absent']}, so this was not measured."
    hit, verdicts = found["kill"], found["other_verdicts"]
    return "\n\n".join(
        [
            f"`{OURS.name}` on `--cluster local:2` (distributed {found['version']}): {found['seconds']:.1f} s"
            " undisturbed. In a second run one of the two workers was ended by `kill -9` once a share of the rows,"
            f" drawn at random (seed {bench.seed}), was on disk: {hit['after']:.1f} s after the start, at {hit['rows']}"
            " rows."
            " The run went on to its end by itself.",
            "Against the rows of an undisturbed run without Dask, 1 job, in every field but the seconds:\n\n"
            f"- Undisturbed: {_difference(found['undisturbed'])}\n- A worker killed: {_difference(found['killed'])}",
            f"Verdicts other than those with 1 job: {verdicts['jobs_2']} with 2 jobs, {verdicts['dask']} on Dask,"
            f" {verdicts['dask_killed']} on Dask with a worker killed.",
        ]
    )


def _page(bench: ScaleBench, found: Measured) -> str:
    if "absent" in found:
        return f"{found['absent']}, so this was not measured."
    wrong = "".join(f"\n- {difference}" for difference in found["wrong"])
    equal = "All are as the CSV says" if not wrong else f"{len(found['wrong'])} are not as the CSV says"
    file = "is that CSV, byte by byte" if found["download_is_the_csv"] else "**is not that CSV**"
    return (
        f"The page of the run of `{OURS.name}` ({found['samples']} samples, {found['kib']:.0f} KiB) in"
        f" {found['browser']}, headless: {found['median']:.2f} s, the median of {len(found['seconds'])}"
        f" ({_seconds(found['seconds'])}), from the start of the browser until it has ended with a picture of the page,"
        f" scripts done. An empty page takes {found['blank_median']:.2f} s that way, so the page itself"
        f" {found['median'] - found['blank_median']:.2f} s. {found['console']} messages on the console.\n\n"
        f"The table, read from the DOM, has {found['cells']} cells to compare with `qverify report --format csv`."
        f" {equal}; the file that the page offers {file}.{wrong}"
    )


def _seconds(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
