"""`qverify radius`: per sample the largest factor on the radii that is still verified, per layer the largest radius.

    DIR/radius.json    the question, and under "runs" when and how each start worked on it
    DIR/factors.csv    one row a sample (grid.Bracket), appended as it is known; an empty cell is a value that is
                       not there
    DIR/layers.csv     one row a layer (layers.LayerRow), if layers were asked for

A search that is killed loses the samples and the layer it was working on and nothing else. `searched` is the whole of
it.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from qverify.analysis.factors import FactorSearch
from qverify.analysis.grid import Bracket, Grid
from qverify.analysis.layers import LayerRadii, LayerRow, LayerSearch, single_layers
from qverify.console.output import say
from qverify.console.progress import Pace, Progress
from qverify.console.signals import stoppable
from qverify.errors import InternalError
from qverify.runs.csv_rows import Columns
from qverify.runs.folder import Directory, Files, Reader, append, open_folder, writing
from qverify.runs.problem import FamilyProblem
from qverify.runs.question import MAY_DIFFER, Question
from qverify.runs.start import LayersAsked, SolverUsed, Start
from qverify.runs.stored import record_faults
from qverify.verification.arguments import usable_device

if TYPE_CHECKING:
    from qverify.runs.given import Given

QUESTION, ROWS, LAYERS = "radius.json", "factors.csv", "layers.csv"

BRACKETS = Columns(Bracket, "a search for factors")
LAYER_ROWS = Columns(LayerRow, "a search layer by layer")


class RadiusDirectory(Directory):
    """The directory of a search.

    `brackets`: the samples by index; `layers`: the layers by `LayerRow.key`.
    """

    def __init__(self, path: Path, found: dict[str, tuple[BinaryIO, Any]]):
        super().__init__(path, {name: file for name, (file, _) in found.items()})
        rows: dict[str, list[Any]] = {name: rows for name, (_, rows) in found.items()}
        self.brackets: dict[int, Bracket] = {bracket.index: bracket for bracket in rows[ROWS]}
        self.layers: dict[tuple[str, str, float, str], LayerRow] = {row.key: row for row in rows.get(LAYERS, [])}

    @staticmethod
    def start(
        path: str, question: Question, start: Start, resume: bool = False, layers: bool = False
    ) -> RadiusDirectory:
        """Begin a search in `path`, or go on with the one there; arguments and errors as `RunDirectory.start`.

        `layers`: rows of layers will be added too.
        """
        rows: dict[str, Reader] = {ROWS: BRACKETS} | ({LAYERS: LAYER_ROWS} if layers else {})
        others = () if layers else (LAYERS,)
        files = Files(
            folder=Path(path), question=QUESTION, rows=rows, may_differ=MAY_DIFFER, faults=record_faults, others=others
        )
        _, found = open_folder(files, question.to_json(), start.to_json(), resume)
        return RadiusDirectory(files.folder, found)

    def add(self, bracket: Bracket) -> None:
        """Append one sample. Raises OutputError; the rows before it are kept."""
        with writing(self.path / ROWS, f"{len(self.brackets)} samples" if self.brackets else ""):
            append(self.files[ROWS], BRACKETS.text([bracket]).encode())
        self.brackets[bracket.index] = bracket

    def add_layer(self, row: LayerRow) -> None:
        """Append one layer, where `start` was told so. Raises OutputError."""
        with writing(self.path / LAYERS, f"{len(self.brackets)} samples and {len(self.layers)} layers"):
            append(self.files[LAYERS], LAYER_ROWS.text([row]).encode())
        self.layers[row.key] = row


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The grid of factors, `max_factor` and `precision`; of a search layer by layer, None for no such search, the share
    of samples, `accuracy`, and the method."""

    max_factor: float
    precision: float
    accuracy: float | None
    layer_method: str


class RadiusWork:
    """The work of a search, and its answers: `brackets` by index in the data set, `rows` by layer and kind."""

    def __init__(self, problem: FamilyProblem, wanted: Wanted, search: FactorSearch):
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
        problem = FamilyProblem.load(given)
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
        """The grid of factors."""
        return self.search.grid

    def start(self) -> Start:
        """This start, as radius.json keeps it: what may differ from the next."""
        options = [self.search.options, *([self.layer_search.options] if self.layer_search else [])]
        solvers = [found for one in options if (found := SolverUsed.of(one))]
        return Start(
            started=Start.now(),
            solver=solvers[0] if solvers else None,
            jobs=self.search.options.workers,
            device=self.problem.given.device,
            layers=LayersAsked(self.wanted.accuracy, self.wanted.layer_method if self.layer_search else None),
        )

    def question(self) -> Question:
        """The question, as radius.json keeps it. Layers are not in it: their rows say what was asked."""
        wanted, question = self.wanted, self.problem.question()
        attack = self.search.options.attack
        return replace(question, max_factor=wanted.max_factor, precision=wanted.precision, attack=attack)

    @property
    def missing(self) -> int:
        """The number of samples and layers that are not done."""
        return len(self.problem.indices) - len(self.brackets) + len(self.layers) - len(self.rows)

    @property
    def standing(self) -> str:
        """The progress in words: samples and layers done."""
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
        """Take the brackets and rows on disk that fit.

        Layers that were asked for otherwise are no strangers: their rows say how.
        """
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
        about = bracket.label == self.problem.label(bracket.index)
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
        if not todo:
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
        """All brackets and rows so far, in the order of the samples and of the network."""
        brackets = [self.brackets[index] for index in self.problem.indices if index in self.brackets]
        keys = [(one.layer, one.kind) for one in self.layers]
        return brackets, [self.rows[key] for key in keys if key in self.rows]


def searched(given: Given, wanted: Wanted, *, out: str | None = None, resume: bool = False) -> RadiusWork:
    """A bracket for every sample, and a row for every layer if asked, or as many as there were before Ctrl-C.

    They are kept in the folder `out`, if given. Raises what `RadiusDirectory.start` and `qverify.verify` raise.
    """
    work = RadiusWork.load(given, wanted)
    start = work.start()
    with contextlib.ExitStack() as stack:
        if out is not None:
            asked = replace(work.question(), places=work.problem.places(out))
            directory = RadiusDirectory.start(out, asked, start, resume, wanted.accuracy is not None)
            work.directory = stack.enter_context(directory)
        work.compute()
    return work
