"""`qverify radius`: per sample the largest factor on the radii that is still verified; per layer the largest radius."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table

from qverify.analysis.factors import FactorSearch
from qverify.analysis.grid import Bracket, Grid
from qverify.analysis.layers import LayerRadii, LayerRow, LayerSearch, single_layers
from qverify.cli.options import Given
from qverify.cli.pictures import draw, shown_by
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import Pace, Progress, duration
from qverify.console.signals import INTERRUPTED, stoppable
from qverify.errors import InternalError, UsageError
from qverify.files.names import file_name, without_folders
from qverify.report.numbers import outward, percent, widths
from qverify.runs.problem import Problem, chosen_solver, required_radii, started
from qverify.runs.radius import RadiusDirectory
from qverify.text.escapes import printable
from qverify.verification.arguments import usable_device

QUANTILES = {"minimum": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "maximum": 1.0}


@dataclass(frozen=True)
class Wanted:
    """The options that only this command has."""

    max_factor: float
    precision: float
    accuracy: float | None
    layer_method: str


def run(given: Given, wanted: Wanted) -> int:
    """The whole command; returns the exit status."""
    if given.resume and given.out is None:
        raise UsageError("--resume needs a directory; give --out DIR too.")
    required_radii(given)
    began = time.perf_counter()
    with stdout_kept_clean():
        work = RadiusWork.load(given, wanted)
        session = work.session()
        with contextlib.ExitStack() as stack:
            if given.out is not None:
                with_layers = wanted.accuracy is not None
                asked = work.question() | work.problem.places(given.out)
                directory = RadiusDirectory.start(given.out, asked, session, given.resume, with_layers)
                work.directory = stack.enter_context(directory)
            work.compute()
        if work.directory is not None and work.brackets:
            _plot(work)
    _report(work, time.perf_counter() - began)
    if work.missing:
        kept = f"kept in {given.out}; go on with the same command and --resume" if given.out else "shown"
        say(f"interrupted: {work.standing} are done and {kept}.")
    return INTERRUPTED if work.missing else 0


class RadiusWork:
    """What is asked, and what is known so far: `brackets` by index in the data set, `rows` by layer and kind."""

    def __init__(self, problem: Problem, wanted: Wanted, search: FactorSearch):
        self.problem, self.wanted, self.search = problem, wanted, search
        self.directory: RadiusDirectory | None = None
        self.brackets: dict[int, Bracket] = {}
        self.rows: dict[tuple[str, str], LayerRow] = {}
        self.layers: list[LayerRadii] = []
        self.layer_search: LayerSearch | None = None

    @staticmethod
    def load(given: Given, wanted: Wanted) -> RadiusWork:
        """Read and check everything before the work begins."""
        grid = Grid(wanted.max_factor, wanted.precision)
        problem = Problem.load(given)
        assert problem.samples is not None and problem.radii is not None
        options = problem.options()
        options = replace(options, attack=options.method == "auto")
        usable_device(options.device)
        work = RadiusWork(problem, wanted, FactorSearch(problem.network, problem.radii, grid, options))
        if wanted.accuracy is not None:
            own = replace(options, method=wanted.layer_method, attack=wanted.layer_method == "auto")
            data = (problem.samples.x, problem.samples.y)
            work.layer_search = LayerSearch(problem.network, data, wanted.accuracy, own)
            work.layers = single_layers(problem.network, problem.radii)
        return work

    @property
    def grid(self) -> Grid:
        return self.search.grid

    def session(self) -> dict[str, Any]:
        """What may differ from one start to the next, as radius.json keeps it."""
        options = [self.search.options, *([self.layer_search.options] if self.layer_search else [])]
        solvers = [found for one in options if (found := chosen_solver(one))]
        return {
            "started": started(),
            "solver": solvers[0] if solvers else None,
            "jobs": self.search.options.workers,
            "device": self.problem.given.device,
            "accuracy": self.wanted.accuracy,
            "layer_method": self.wanted.layer_method if self.layer_search else None,
        }

    def question(self) -> dict[str, Any]:
        """What is asked, as radius.json keeps it. Layers are not in it: their rows say what was asked."""
        own = {"max_factor": self.wanted.max_factor, "precision": self.wanted.precision}
        return self.problem.question() | own | {"attack": self.search.options.attack}

    @property
    def missing(self) -> int:
        """How many samples and layers are not done."""
        return len(self.problem.indices) - len(self.brackets) + len(self.layers) - len(self.rows)

    @property
    def standing(self) -> str:
        """How far it is, in words."""
        layers = f" and {len(self.rows)} of {len(self.layers)} layers" if self.layers else ""
        return f"{len(self.brackets)} of {len(self.problem.indices)} samples{layers}"

    def compute(self) -> None:
        """Find what is not known yet; ends early on Ctrl-C."""
        if self.directory is not None:
            self._take(self.directory)
        if self.brackets:
            say(f"{self.standing} are done already.")
        with stoppable() as stop, contextlib.suppress(KeyboardInterrupt):
            self.search.stop = stop
            self._samples()
            if not stop.is_set():
                self._layers()
        if self.missing and not stop.is_set():
            raise InternalError(f"{self.missing} samples or layers were passed over.")

    def _take(self, directory: RadiusDirectory) -> None:
        """What is there and fits. Layers that were asked for otherwise are no strangers: their rows say how."""
        strange = [index for index, bracket in directory.brackets.items() if not self._fits(bracket)]
        for index in strange:
            del directory.brackets[index]
        self.brackets = directory.brackets  # the same: `add` puts brackets in
        asked = (self.wanted.accuracy, self.wanted.layer_method)
        rows = {(row.layer, row.kind): row for row in directory.layers.values() if (row.accuracy, row.method) == asked}
        self.rows = {key: row for key, row in rows.items() if self._layer_fits(row)}
        if lost := len(strange) + len(rows) - len(self.rows):
            say(f"note: {lost} rows in {directory.path} fit no sample or layer asked for and do not count.")

    def _fits(self, bracket: Bracket) -> bool:
        """Whether a bracket is about one of the samples, with the label that it has, and ends on the grid."""
        index, indices, samples = bracket.index, self.problem.indices, self.problem.samples
        about = samples is not None and index in indices and bracket.label == samples.y[index - indices.start]
        return about and self.grid.has(bracket.lower) and self.grid.has(bracket.upper)

    def _layer_fits(self, row: LayerRow) -> bool:
        """Whether a row is about one of the layers, all the samples, and a factor of the grid on the layer's radius."""
        one = next((one for one in self.layers if (one.layer, one.kind) == (row.layer, row.kind)), None)
        if one is None or row.samples != len(self.problem.indices) or not self.grid.has(row.factor):
            return False
        return math.isclose(row.radius or 0.0, (row.factor or 0.0) * one.largest, rel_tol=1e-6)

    def _samples(self) -> None:
        todo = [index for index in self.problem.indices if index not in self.brackets]
        samples = self.problem.samples
        if not todo or samples is None:
            return
        positions = [index - self.problem.indices.start for index in todo]
        with Progress(Pace(len(todo), False), lambda: [self.search.where]) as progress:

            def tell(bracket: Bracket) -> None:
                bracket = replace(bracket, index=todo[bracket.index])
                if self.directory is not None:
                    self.directory.add(bracket)
                else:
                    self.brackets[bracket.index] = bracket
                progress.add(positions[-1], False)

            self.search.run(samples.x[positions], samples.y[positions], tell, progress.tick)

    def _layers(self) -> None:
        todo = [one for one in self.layers if (one.layer, one.kind) not in self.rows]
        search = self.layer_search
        if not todo or search is None:
            return
        with Progress(Pace(len(todo), False), lambda: [search.where]) as progress:
            for row in search.rows(todo, self.grid, self.search.stop, progress.tick):
                if self.directory is not None:
                    self.directory.add_layer(row)
                self.rows[row.layer, row.kind] = row
                progress.add(0, False)

    def ordered(self) -> tuple[list[Bracket], list[LayerRow]]:
        """Everything known, in the order of the samples and of the network."""
        brackets = [self.brackets[index] for index in self.problem.indices if index in self.brackets]
        keys = [(one.layer, one.kind) for one in self.layers]
        return brackets, [self.rows[key] for key in keys if key in self.rows]


def _plot(work: RadiusWork) -> None:
    """DIR/radius.png and DIR/radius.svg."""
    assert work.directory is not None and work.problem.radii is not None
    brackets, _ = work.ordered()
    given, model = work.problem.given, printable(work.problem.network.source)
    title = f"{model}, {len(brackets)} samples of {printable(file_name(given.data or ''))}, by {given.method};"
    title += f"\n1 is {printable(without_folders(work.problem.radii.convention, [given.radii or '']))}"
    draw(work.directory.path / "radius", lambda plots: plots.factor_figure(brackets, title, work.grid.max_factor))


# -- the result on stdout --------------------------------------------------------------------------


def quantiles(values: list[float]) -> dict[str, float]:
    """Order statistics, each one of the values: 90 % of the samples or more are at or above the one for 10 %."""
    return {name: float(np.quantile(values, q, method="lower")) for name, q in QUANTILES.items()} if values else {}


def _report(work: RadiusWork, seconds: float) -> None:
    brackets, rows = work.ordered()
    proved = quantiles([bracket.factor for bracket in brackets])
    top, one = work.grid.max_factor, sum(bracket.factor >= 1 for bracket in brackets)
    if work.problem.given.as_json:
        question = work.question()
        question["sample_range"] = question.pop("samples")
        result = {
            "samples": len(brackets),
            "misclassified": sum(bracket.misclassified for bracket in brackets),
            "quantiles": proved,
            "verified_at_1": one if top >= 1 else None,
            "verified_at_max": sum(bracket.lower == top for bracket in brackets),
            "brackets": [bracket.as_dict() for bracket in brackets],
            "layers": [row.as_dict() for row in rows] if work.layer_search else None,
            "interrupted": bool(work.missing),
            "seconds": round(seconds, 3),
        }
        show_json(result | question | {"convention": question["radii"]["convention"]})
        return
    done = f"{work.standing} in" if work.missing else f"{len(brackets)} samples in"
    show(f"{work.problem.title}: {done} {duration(seconds)}{', interrupted' if work.missing else ''}", "")
    if brackets and work.missing:
        show("Of what is done so far, in which samples that are easy to break come first:", "")
    if brackets:
        show(_factor_table(brackets, proved, work.grid), "", *_factor_lines(work, brackets))
    if rows:
        share = f"{100 * rows[0].accuracy:.4g} %"
        show("", f"Largest radius of one layer, all others exact, at which {share} are proved, by {rows[0].method}:")
        show("", _layer_table(rows))
    if work.directory is not None:
        files = f"factors.csv has a row a sample{shown_by(work.directory.path / 'radius')}"
        show("", f"Kept in {work.directory.path}: {files}{', layers.csv has a row a layer' if rows else ''}.")


def _factor_table(brackets: list[Bracket], proved: dict[str, float], grid: Grid) -> Table:
    """The quantiles of both ends; nothing known to fail counts as above the grid."""
    table = Table("factor on the radii", box=None, padding=(0, 2, 0, 0))
    table.add_column("proved", justify="right")
    broken = quantiles([float("inf") if b.upper is None else b.upper for b in brackets])
    attacked = any(b.broken_by not in ("", "forward") for b in brackets)
    if attacked:
        table.add_column("fails", justify="right")
    for name, factor in proved.items():
        fails = outward(broken[name], 4, up=True) if broken[name] <= grid.max_factor else "none known"
        table.add_row(name, outward(factor, 4, up=False), *([fails] if attacked else []))
    return table


def _factor_lines(work: RadiusWork, brackets: list[Bracket]) -> list[str]:
    """What the table rests on."""
    total, radii = len(brackets), work.problem.radii
    assert radii is not None and work.problem.family is not None
    lines = []
    if work.grid.max_factor >= 1:
        one = sum(b.factor >= 1 for b in brackets)
        lines.append(f"Verified at factor 1: {one} of {total}, {percent(one, total)}.")
    at_end = sum(b.lower == work.grid.max_factor for b in brackets)
    if at_end:
        lines.append(f"Still verified at the largest factor tried, {work.grid.max_factor:g}: {at_end}.")
    wrong = sum(b.misclassified for b in brackets)
    nothing = sum(b.lower is None for b in brackets) - wrong
    zeros = [f"{wrong} misclassified by the network itself"] + ([f"{nothing} never proved"] if nothing else [])
    lines.append(f"Counted as 0: {', '.join(zeros)}.")
    for what, methods in (("Proved", [b.proved_by for b in brackets]), ("Broken", [b.broken_by for b in brackets])):
        counts = {name: methods.count(name) for name in ("ibp", "bp", "bp-layers", "attack", "exact")}
        if any(counts.values()):
            lines.append(f"{what} by {', '.join(f'{name} {count}' for name, count in counts.items() if count)}.")
    wide = [b.detail for b in brackets if b.detail]
    if wide:
        why = "; ".join(sorted(set(wide)))
        lines.append(f"Wider than {100 * work.wanted.precision:g} %: {len(wide)} brackets ({why}).")
    lines.append(f"Factor 1: {radii.convention}; radii (half-widths) {widths(work.problem.family.largest())}.")
    if radii.ceilings or radii.input_range:
        lines.append("Ranges that values are clipped to stay as they are at every factor.")
    return lines


def _layer_table(rows: list[LayerRow]) -> Table:
    """A line a layer."""
    table = Table("layer", "quantised", box=None, padding=(0, 2, 0, 0))
    for heading in ("factor", "radius", "bias radius", "proved"):
        table.add_column(heading, justify="right")

    def cell(number: float | None, at_least: bool) -> str:
        return "" if number is None else f"{'>= ' if at_least else ''}{outward(number, 4, up=False)}"

    for row in rows:
        factor = cell(row.factor, row.at_end) or "none"
        proved = "" if row.reached is None else f"{100 * row.reached:.2f} %"
        radii = [cell(row.radius, row.at_end), cell(row.bias_radius, row.at_end)]
        table.add_row(row.layer, row.kind, factor, *radii, proved)
    return table
