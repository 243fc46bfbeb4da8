"""`qverify compare`: a float network beside the integer file made of it, sample by sample and tensor by tensor."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import Pace, Progress
from qverify.console.signals import INTERRUPTED, stoppable
from qverify.errors import OutputError, UsageError
from qverify.files.atomic import write_atomically
from qverify.files.hashes import file_sha256
from qverify.fingerprint import fingerprint
from qverify.replication.gaps import STATUSES, Gap, Gaps
from qverify.replication.matching import Match, match
from qverify.replication.tensors import Errors, errors
from qverify.report.numbers import outward, percent
from qverify.runs.problem import Problem, read_file_of
from qverify.text.brief import Brief
from qverify.text.shortened import listed
from qverify.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.replication.regions import Region
    from qverify.runs.given import Given


_NOT_NEAREST = ("truncate", "any")
_OUTPUTS = 10
"""Outputs that the table shows, those with the largest gaps."""
EVIDENCE = (
    "Replication evidence, as the draft of ED-324/ARP6983 asks for it: the largest gap between the trained and the"
    " implemented model on a data set, against an epsilon; models and data are named by their sha256."
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What `qverify compare` is asked about two models, by the names of its options."""

    file: str
    rounding: str
    region: Region
    fail_on: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise UsageError for numbers and combinations that make no sense."""
        for name, value in (("--epsilon", self.region.epsilon), ("--input-radius", self.region.radius)):
            if value is not None and not 0.0 <= value < np.inf:
                raise UsageError(f"{name} is {value:g}; give a number that is not negative.")
        if self.region.clip is not None and not self.region.radius:
            raise UsageError("--clip-input keeps inputs around a sample in a range; give --input-radius too.")
        if self.region.exact and not self.region.radius:
            raise UsageError("--input exact is about inputs around the samples; give --input-radius too.")
        if self.region.exact and self.rounding in _NOT_NEAREST:
            raise UsageError(
                f"--input exact needs inputs that are rounded to the nearest, which rule {self.rounding} does not say."
            )
        if self.fail_on and self.region.epsilon is None:
            raise UsageError("--fail-on judges samples by an epsilon; give --epsilon too.")


def run(given: Given, asked: Asked, *, out: str | None, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    asked.check()
    if out is not None and Path(out).exists():
        raise OutputError(f"{out} exists already; name another --out.")
    began = time.perf_counter()
    with stdout_kept_clean():
        problem = Problem.load(given, classifies=False)
        matched = match(problem.network, read_file_of(given, problem.network, asked.file, f"{Path(asked.file).name}: "))
        compared = Compared(
            problem=problem,
            asked=asked,
            match=matched,
            errors=errors(matched, problem.inputs(), problem.samples.y, _classifies(problem)),
            gaps=_gaps(problem, Gaps(matched, asked.rounding, asked.region)),
            began=began,
        )
        if out is not None:
            _write(Path(out), compared.to_json())
    if as_json:
        show_json(compared.to_json())
    else:
        compared.show()
    if compared.missing:
        say(f"interrupted: {len(compared.gaps)} of {len(problem.indices)} samples are done.")
        return INTERRUPTED
    words = dict.fromkeys(asked.fail_on)
    hit = {status: [gap.index for gap in compared.gaps if gap.status == status] for status in words}
    found = [f"{len(where)} {status} ({listed(list(map(str, where)))})" for status, where in hit.items() if where]
    if found:
        say(f"--fail-on {','.join(asked.fail_on)}: of {len(compared.gaps)} samples {', '.join(found)}.")
    return int(bool(found))


def _write(path: Path, found: dict[str, Any]) -> None:
    """Write the object to a new file. Raises OutputError."""
    text = json.dumps(found, allow_nan=False, indent=1) + "\n"
    try:
        write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); name another --out.") from error


def _classifies(problem: Problem) -> bool:
    """Outputs are classes that the labels name: not those of an autoencoder, or where all labels are one."""
    labels, network = problem.everything.y, problem.network
    fits = labels.max() < network.output_size != network.input_size
    return bool(fits and labels.max() > labels.min())


def _gaps(problem: Problem, gaps: Gaps) -> list[Gap]:
    """The gap of every sample, in order; fewer after Ctrl-C."""
    found: list[Gap] = []
    x = problem.inputs()
    pace = Pace(len(x), False)
    with stoppable("ending") as stop, Progress(pace, lambda: ["gap between network and file"]) as progress:
        for position, index in enumerate(problem.indices):
            if stop.is_set():
                break
            found.append(gaps.at(index, x[position]))
            progress.add(position, False)
    return found


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Compared(Brief):
    """What was found: the errors of tensors, and a gap a sample."""

    problem: Problem
    asked: Asked
    match: Match
    errors: Errors
    gaps: Sequence[Gap]
    began: float

    @property
    def missing(self) -> int:
        """Samples that were not reached."""
        return len(self.problem.indices) - len(self.gaps)

    def ends(self) -> dict[str, list[float]]:
        """Per output the smallest lower and the largest upper end over all samples, proved and attained."""
        found = {}
        for name, best in (
            ("lower", np.min),
            ("upper", np.max),
            ("attained_lower", np.min),
            ("attained_upper", np.max),
        ):
            rows = [getattr(gap, name) for gap in self.gaps]
            found[name] = best(rows, axis=0).tolist() if rows else []
        return found

    def to_json(self) -> dict[str, Any]:
        """The object of `--json` and of `--out` (formats.md, section 12.9)."""
        problem, asked, region = self.problem, self.asked, self.asked.region
        given, samples = problem.given, problem.samples
        statuses = Counter(gap.status for gap in self.gaps)
        return {
            "qverify": __version__,
            "purpose": EVIDENCE,
            "float": {
                "model": given.model,
                "model_sha256": file_sha256(given.model),
                "network_sha256": fingerprint(problem.network),
            },
            "file": {
                "model": asked.file,
                "model_sha256": file_sha256(asked.file),
                "network_sha256": fingerprint(self.match.file),
            },
            "data": given.data,
            "data_source": samples.source,
            "data_sha256": samples.sha256,
            "input_scale": given.input_scale,
            "sample_range": [problem.indices.start, problem.indices.stop],
            "rounding": asked.rounding,
            "input_radius": region.radius,
            "clip_input": None if region.clip is None else list(region.clip),
            "input": "exact" if region.exact else "rounded",
            "epsilon": region.epsilon,
            "samples": len(self.gaps),
            **self.errors.to_json(),
            "largest_proved": max((gap.proved for gap in self.gaps), default=None),
            "largest_attained": max((gap.attained for gap in self.gaps), default=None),
            **({} if region.epsilon is None else {name: statuses[name] for name in STATUSES}),
            **self.ends(),
            "tensors": [tensor.to_json() for tensor in self.errors.tensors],
            "rows": [gap.to_json() for gap in self.gaps],
            "interrupted": bool(self.missing),
            "seconds": round(time.perf_counter() - self.began, 3),
        }

    def show(self) -> None:
        """Print it as tables."""
        problem, region = self.problem, self.asked.region
        found = self.errors
        show(f"{self.match.file.source} beside {problem.title}", "")
        if found.classes:
            counts = ((found.right, "float network right"), (found.right_file, "file right, rounded to the nearest"))
            for count, what in (*counts, (found.agree, "same class")):
                show(f"{percent(count, found.samples):>9}  {what}, {count} of {found.samples}")
            show("")
        show(_tensor_table(found), "", self._output_table(), "")
        if self.gaps:
            most = max(gap.proved for gap in self.gaps)
            met = max(gap.attained for gap in self.gaps)
            around = f", inputs up to {region.radius:g} away" if region.radius else ""
            around += " that lie on the grid of the file's input" * region.exact
            show(
                f"Largest gap: at most {outward(most, 6, up=True)} on every runtime that rounds by rule"
                f" {self.asked.rounding}, over {len(self.gaps)} samples{around}; at least"
                f" {outward(met, 6, up=False)} is met."
            )
        if region.epsilon is not None:
            counted = Counter(gap.status for gap in self.gaps)
            show(f"Epsilon {region.epsilon:g}: {', '.join(f'{counted[name]} {name}' for name in STATUSES)}.")
        show(
            EVIDENCE,
            f"float {file_sha256(problem.given.model)}",
            f"file  {file_sha256(self.asked.file)}",
            f"data  {problem.samples.sha256}",
        )

    def _output_table(self) -> Table:
        """The outputs with the largest proved gaps."""
        ends = self.ends()
        table = Table("output", box=None, padding=(0, 2, 0, 0))
        shown = {
            "lower": "at least",
            "upper": "at most",
            "attained_lower": "lowest met",
            "attained_upper": "highest met",
        }
        for heading in shown.values():
            table.add_column(heading, justify="right")
        sizes = np.maximum(-np.array(ends["lower"]), np.array(ends["upper"]))
        for output in sorted(np.argsort(-sizes, kind="stable")[:_OUTPUTS].tolist()):
            cells = [outward(ends[key][output], 6, up=key in ("upper", "attained_lower")) for key in shown]
            table.add_row(str(output), *(cell if cell[0] in "-0" else f"+{cell}" for cell in cells))
        if len(sizes) > _OUTPUTS:
            table.add_row(f"{len(sizes) - _OUTPUTS} more", "", "", "", "")
        return table


def _tensor_table(found: Errors) -> Table:
    table = Table("tensor", "stands for", box=None, padding=(0, 2, 0, 0))
    for heading in ("SNR, dB", "largest", "at low end", "at high end"):
        table.add_column(heading, justify="right")
    for tensor in found.tensors:
        ends = ("" if count is None else percent(count, tensor.values) for count in (tensor.at_low, tensor.at_high))
        ratio = "" if tensor.snr_db is None else f"{tensor.snr_db:.1f}"
        table.add_row(tensor.name, tensor.trained, ratio, f"{tensor.largest:.4g}", *ends)
    return table
