"""`qverify covers`: is an integer file a member of the family that was certified around its float network?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from qverify.choices import FILE_ROUNDING
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.errors import DataError, UsageError
from qverify.family.family import Family
from qverify.files.hashes import file_sha256
from qverify.fingerprint import fingerprint
from qverify.replication.coverage import Part, coverage
from qverify.report.sources import Sources
from qverify.runs.problem import read_file_of, read_network, read_samples, say_hints, stated_radii
from qverify.runs.reading import read_runs
from qverify.text.brief import Brief
from qverify.text.escapes import printable
from qverify.text.shortened import listed
from qverify.version import __version__

if TYPE_CHECKING:
    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.runs.given import Given

_DIGITS, _NAMED = 4, 8
"""Significant digits of a share in the table, and parts that are outside whose reasons are said."""


def run(given: Given, *, file: str, run: str | None, rule: str | None, as_json: bool) -> int:
    """Run the command; returns the exit status, 0 where the file is covered and 1 where it is not."""
    began = time.perf_counter()
    with stdout_kept_clean():
        given.check()
        trained = read_network(given)
        integers = read_file_of(given, trained, file)
        family = _stated(given, trained) if run is None else _of_run(given, trained, run)
        rule = rule or family.rounding
        parts = coverage(trained, integers, family.family, rule)
        found = _Covered(family=family, parts=tuple(parts))
    result = {
        "qverify": __version__,
        "float": {"model": given.model, "model_sha256": file_sha256(given.model)},
        "file": {"model": file, "model_sha256": file_sha256(file)},
        "convention": family.convention,
        "rule": rule,
        "covered": found.covered,
        "parts": [part.to_json() for part in parts],
    }
    if as_json:
        show_json(result | {"seconds": round(time.perf_counter() - began, 3)})
    else:
        found.show(integers.source, trained.source, rule)
    if found.covered:
        return 0
    outside = [part.name or part.file for part in found.parts if not part.covered]
    say(f"{integers.source} is not covered: {len(outside)} of {len(parts)} parts are outside ({listed(outside)}).")
    return 1


@dataclass(frozen=True, eq=False, repr=False)
class _Stated(Brief):
    """A family, what it is in words, and by which rule its quantisers round."""

    family: Family
    convention: str
    rounding: str


def _stated(given: Given, trained: Network) -> _Stated:
    """The family of the radii given."""
    given.require_radii()
    radii, _ = stated_radii(given, trained, read_samples(given, trained))
    assert radii is not None
    say_hints(trained, radii, None)
    return _family(trained, radii, given.clip_input)


def _of_run(given: Given, trained: Network, folder: str) -> _Stated:
    """The family of a run on disk, of the same network. Raises UsageError and DataError."""
    if given.bits is not None or given.radii is not None:
        raise UsageError("--run has the radii of its run; leave --bits and --radii out.")
    cases = read_runs([folder])
    if len(cases) != 1:
        raise UsageError(f"{printable(folder)} holds {len(cases)} cases; name a directory of qverify verify --out.")
    question = cases[0].question
    if question.network_sha256 != fingerprint(trained):
        raise DataError(
            f"The run in {printable(folder)} is about another network than {given.model}; give the model that it names."
        )
    clip = question.clip_input
    return _family(trained, Sources().radii(cases[0]), None if clip is None else (clip[0], clip[1]))


def _family(trained: Network, radii: Radii, clip: tuple[float, float] | None) -> _Stated:
    rounding = FILE_ROUNDING if radii.quantiser is None else radii.quantiser.rounding
    return _Stated(Family.of(trained, radii, clip), radii.convention, rounding)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _Covered(Brief):
    """All parts of a file beside the family."""

    family: _Stated
    parts: tuple[Part, ...]

    @property
    def covered(self) -> bool:
        """Every part is."""
        return all(part.covered for part in self.parts)

    def show(self, file: str, trained: str, rule: str) -> None:
        """Print the table and the answer."""
        table = Table("tensor", "in the file", "", box=None, padding=(0, 2, 0, 0))
        table.add_column("of the radius", justify="right")
        table.add_column("")
        for part in self.parts:
            share = "" if part.share is None else f"{part.share:.{_DIGITS}g}"
            table.add_row(part.name, part.file, part.kind, share, "inside" if part.covered else "OUTSIDE")
        show(table, "", f"Family of {trained}: {self.family.convention}. Runtimes by rule {rule}.")
        outside = [part for part in self.parts if not part.covered]
        if not outside:
            show(f"{file} is covered: what was verified for the family holds for every such runtime of it.")
            return
        show(f"{file} is NOT covered: {len(outside)} of {len(self.parts)} parts are outside.")
        for part in outside[:_NAMED]:
            show(f"- {part.kind} of {part.name or part.file}: {part.detail}.")
        if len(outside) > _NAMED:
            show(f"- and {len(outside) - _NAMED} more.")
