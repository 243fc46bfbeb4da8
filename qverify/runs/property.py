"""The problem of `qverify property`: a family, the samples or boxes that are asked about, and the property."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qverify import datasets
from qverify.datasets.regions import Regions, load_regions, selected
from qverify.errors import DataError, UsageError
from qverify.family.family import Family
from qverify.properties.kinds import Holds, Margin, Property, Subject, TopK
from qverify.properties.reading import read_property
from qverify.properties.samples import PropertyRow
from qverify.runs.problem import FamilyProblem, Problem, doubted, read_network
from qverify.runs.start import SolverUsed, Start
from qverify.runs.verify import RunDirectory
from qverify.text.brief import Brief
from qverify.verification.row import Row, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.runs.given import Given
    from qverify.runs.question import Question


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PropertyProblem(Brief):
    """A family, and a property that is asked about some of the `regions` of the data: those at `family.indices`."""

    family: FamilyProblem
    regions: Regions
    wanted: Property

    @staticmethod
    def load(given: Given, file: str) -> PropertyProblem:
        """Read what is given, and the property in `file`; notes go to stderr. Raises what is wrong with it."""
        wanted, boxes = read_property(file)
        if boxes is None and given.data is None:
            raise UsageError(
                "The samples are missing; give --data NAME or --data FILE.npz, or boxes of inputs in the property file."
            )
        if boxes is not None and given.data is not None:
            raise UsageError(f"{file} has boxes of its own, so --data has nothing to say; leave one of them out.")
        if boxes is not None and given.input_scale is not None:
            raise UsageError(
                "--input-scale multiplies the inputs of a data set; boxes of a property file are as stated."
            )
        given = replace(given, data=file if given.data is None else given.data)
        given.check()
        everything = load_regions(str(given.data), given.input_scale) if boxes is None else boxes
        network = read_network(given)
        problem = PropertyProblem.of(given, network, everything, wanted)
        problem.family.hint()
        if everything.labelled and isinstance(wanted, (TopK, Margin, Holds)) and everything.lower is None:
            problem = replace(problem, family=replace(problem.family, doubts=doubted(network, everything)))
        return problem

    @staticmethod
    def of(
        given: Given, network: Network, everything: Regions, wanted: Property, radii: Radii | None = None
    ) -> PropertyProblem:
        """The problem of what was read before, with these radii instead of those that are `given`; says nothing on
        stderr. Raises what is wrong with it."""
        if network.dynamic:
            raise UsageError(
                f"{network.source} is quantised dynamically: its bounds are not enough for properties; give a"
                " model with fixed steps."
            )
        if radii is None:
            family = FamilyProblem.of(given, network, everything, classifies=False)
        else:
            base = Problem.of(given, network, everything, classifies=False)
            own = Family.of(network, radii, given.clip_input)
            family = FamilyProblem(**vars(base), radii=radii, family=own)
        if radii is None and everything.lower is not None and family.calibrated and given.calibration is None:
            raise UsageError(
                "Ranges of activations are taken from samples, which boxes are not; give --calibration too."
            )
        return PropertyProblem(family=family, regions=selected(everything, family.indices), wanted=wanted)

    @property
    def what(self) -> str:
        """Samples or boxes, in a word."""
        return "samples" if self.regions.lower is None else "boxes"

    @property
    def title(self) -> str:
        """Model, data and which part of them, for people."""
        whole, indices = len(self.family.everything), self.family.indices
        part = "" if len(indices) == whole else f", {self.what} {indices.start}:{indices.stop}"
        scale = "" if self.family.given.input_scale is None else f" times {self.family.given.input_scale:g}"
        return f"{self.family.network.source} on {os.fspath(str(self.family.given.data))}{scale}{part}"

    @property
    def subjects(self) -> list[Subject]:
        """What the property is asked about, in order. Raises DataError where shapes do not fit the network."""
        regions, network = self.regions, self.family.network
        lower, upper = (datasets.flatten(replace(regions, x=end), network) for end in regions.ends)
        found = list[Subject]()
        for place in range(len(regions)):
            more: dict[str, Any] = {"label": int(regions.y[place])} if regions.labelled else {}
            if regions.targets is not None:
                more["target"] = regions.targets[place]
            found.append(Subject(lower=lower[place], upper=upper[place], **more))
        if not found:
            raise DataError("There is nothing to ask the property about; give at least one sample or box.")
        return found


# -- kept on disk ---------------------------------------------------------------------------------


def row_of(found: PropertyRow) -> Row:
    """The row of `samples.jsonl` (formats.md, section 2)."""
    violated = Status.FALSIFIED if found.itself else Status.MISCLASSIFIED
    status = {"holds": Status.VERIFIED, "violated": violated, "unknown": Status.UNKNOWN}[found.status]
    method, lower, upper = found.method, found.margin_lower, found.margin_upper
    if status is Status.MISCLASSIFIED:
        method = "forward"
    elif method == "forward":  # a member near the network itself, or what holds whatever the outputs
        method = {Status.VERIFIED: "ibp", Status.FALSIFIED: "attack"}.get(status, method)
    if status is Status.VERIFIED and lower is None:
        lower = 1.0  # without end
    if status in (Status.FALSIFIED, Status.MISCLASSIFIED):
        upper = min(0.0, 0.0 if upper is None else upper)
        lower = None if lower is None or lower > upper else lower
    label = 0 if found.label is None else found.label
    return Row(
        index=found.index,
        label=label,
        predicted=label,
        status=status,
        margin_lower=lower,
        margin_upper=upper,
        method=method,
        seconds=found.seconds,
        detail=found.detail if status is Status.UNKNOWN else "",
        limit=found.limit,
    )


def found_in(row: Row, labelled: bool) -> PropertyRow:
    """What a row says, as it was found."""
    status = {"verified": "holds", "unknown": "unknown"}.get(row.status.value, "violated")
    return PropertyRow(
        index=row.index,
        label=row.label if labelled else None,
        itself=row.status is not Status.MISCLASSIFIED,
        status=status,
        seconds=row.seconds,
        detail=row.detail or f"by {row.method}",
        method=row.method,
        margin_lower=row.margin_lower,
        margin_upper=row.margin_upper,
        limit=row.limit,
    )


def question_of(problem: PropertyProblem, file: str, out: str | None = None) -> Question:
    """The question, as run.json in the folder `out` keeps it."""
    wanted = {"words": problem.wanted.words(), "statement": repr(problem.wanted), "of": problem.what, "file": file}
    question = replace(problem.family.question(), wanted=wanted)
    return question if out is None else replace(question, places=problem.family.places(out))


@contextlib.contextmanager
def kept(problem: PropertyProblem, file: str, out: str | None, resume: bool) -> Iterator[RunDirectory | None]:
    """The folder that rows are kept in, None without `out`. Raises what `RunDirectory.start` raises."""
    if out is None:
        yield None
        return
    options = problem.family.options()
    start = Start(started=Start.now(), solver=SolverUsed.of(options), jobs=1, device=options.device)
    with RunDirectory.start(out, question_of(problem, file, out), start, resume) as directory:
        yield directory
