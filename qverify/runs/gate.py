"""The gate of CI: whether what a run decided is enough, and in words why it is not.

    --fail-on LIST       no sample may be one of these
    --fail-under P       at least P % of the samples asked about are verified
    --baseline RUN       what was verified in that run is verified now

Accuracies are compared as fractions: 94.999 % is below 95.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from qverify.errors import UsageError
from qverify.runs.reading import read_runs
from qverify.text.brief import Brief
from qverify.text.escapes import printable
from qverify.text.shortened import listed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from qverify.runs.question import Question
    from qverify.runs.reading import StoredCase

_VERIFIED = "verified"
_CASES = 5
"""Cases of a batch that are named in a sentence."""


def below(verified: int, asked: int, percent: float) -> bool:
    """Whether `verified` of `asked` samples are less than `percent` % of them, in exact numbers."""
    return 100 * verified < Fraction(repr(percent)) * asked


def share(verified: int, asked: int) -> str:
    """The share in per cent, rounded downwards: what is below a limit must not look as if it reached it."""
    return f"{math.floor(10000 * verified / asked) / 100:.2f} %" if asked else "no samples"


@dataclass(frozen=True, eq=False, repr=False)
class Baseline(Brief):
    """A case that was decided before, and that samples are compared with. `name`: the folder, as it was given."""

    name: str
    case: StoredCase

    def check(self, now: Question) -> list[str]:
        """What to know of the comparison with the question `now`, a sentence each.

        Raises UsageError where the two are about other data, or share no sample.
        """
        before, name = self.case.question, printable(self.name)
        if before.wanted is not None:
            raise UsageError(f"--baseline {name} is a run of qverify property; name one that asks what this run asks.")
        data = before.data_sha256, before.input_scale
        if before.data_sha256 is None or data != (now.data_sha256, now.input_scale):
            raise UsageError(
                f"--baseline {name} is about other data ({self.case.data}) than this run; name a run on the same ones."
            )
        (start, stop), (first, end) = before.samples, now.samples
        if max(start, first) >= min(stop, end):
            raise UsageError(
                f"--baseline {name} is about the samples {start}:{stop}, and none of {first}:{end} is among them; name"
                " a run on some of these."
            )
        said = [f"--baseline {name}: {note}" for note in self.case.notes]
        if before.identity()[3] != now.identity()[3]:
            said.append(f"--baseline {name} is about another family: {self.case.bare(before.radii.convention)}.")
        return said

    def lost(self, statuses: Mapping[int, str], asked: range) -> str:
        """The samples verified there and not now, in words; empty if there are none."""
        there = [row.index for row in self.case.rows if row.status.value == _VERIFIED and row.index in asked]
        gone = [index for index in there if statuses.get(index) != _VERIFIED]
        if not gone:
            return ""
        named = listed([f"{index} {statuses.get(index, 'not decided')}" for index in gone])
        verb, name = "is" if len(gone) == 1 else "are", printable(self.name)
        return f"--baseline {name}: {len(gone)} of {len(there)} samples verified there {verb} not now ({named})"


def read_baseline(path: str) -> Baseline:
    """The only case in a folder. Raises DataError, UsageError."""
    cases = read_runs([path])
    if len(cases) > 1:
        raise UsageError(
            f"--baseline {printable(path)} holds {len(cases)} cases of a batch; name a run that `qverify verify --out`"
            " kept, or give it to `qverify batch`."
        )
    return Baseline(path, cases[0])


def read_baselines(path: str, names: Collection[str]) -> dict[str, Baseline]:
    """The baseline of each case of a batch, by its name, among the cases that another batch, or `verify`, kept.

    A case is found under its own name, or else, since the model may be another one now, under that name without its
    hash; of several the last that was asked. Raises DataError, and UsageError where no case has a baseline.
    """
    kept = read_runs([path])
    if len(kept) == 1 and not kept[0].name:  # of `verify`, which has no names
        return {name: Baseline(path, kept[0]) for name in names}
    own = {case.name: case for case in kept}
    alike = {_without_hash(case.name): case for case in kept if case.rows}
    found = {name: own.get(name) or alike.get(_without_hash(name)) for name in names}
    baselines = {name: Baseline(path, case) for name, case in found.items() if case is not None}
    if not baselines:
        raise UsageError(
            f"--baseline {printable(path)} has none of the cases of this plan ({listed(sorted(names), _CASES)}); name a"
            " batch of the same models, data, radii and methods."
        )
    return baselines


def _without_hash(name: str) -> str:
    return name.rpartition("-")[0]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Gate(Brief):
    """What a case must reach: see above. With none of the three it is always open."""

    fail_on: tuple[str, ...] = ()
    fail_under: float | None = None
    baseline: Baseline | None = None

    @property
    def asks(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.fail_on) or self.fail_under is not None or self.baseline is not None

    def failures(self, statuses: Mapping[int, str], asked: range) -> list[str]:
        """Why the samples `asked` about, with these statuses by index, do not pass; no full stop ends them."""
        found = [_hit(self.fail_on, statuses), self._too_few(statuses, asked)]
        found += [self.baseline.lost(statuses, asked)] if self.baseline is not None else []
        return [one for one in found if one]

    def passed(self, failures: Sequence[str]) -> bool | None:
        """Whether a case with these failures passes; None where nothing is asked for."""
        return not failures if self.asks else None

    def _too_few(self, statuses: Mapping[int, str], asked: range) -> str:
        verified = [index for index in asked if statuses.get(index) == _VERIFIED]
        if self.fail_under is None or not below(len(verified), len(asked), self.fail_under):
            return ""
        open_ = [str(index) for index in asked if statuses.get(index) != _VERIFIED]
        return (
            f"--fail-under {self.fail_under:g}: {share(len(verified), len(asked))} ({len(verified)} of {len(asked)}"
            f" samples) are verified; not so are {listed(open_)}"
        )


def _hit(asked: Sequence[str], statuses: Mapping[int, str]) -> str:
    """The samples that have a status they must not have; empty if none has."""
    hit: list[str] = []
    for status in dict.fromkeys(asked):
        if indices := sorted(index for index, found in statuses.items() if found == status):
            of = "" if hit else f" of {len(statuses)} samples"
            verb = "is" if len(indices) == 1 else "are"
            hit.append(f"{len(indices)}{of} {verb} {status} ({listed(list(map(str, indices)))})")
    return f"--fail-on {','.join(asked)}: {', '.join(hit)}" if hit else ""


def failed(cases: Mapping[str, Sequence[str]]) -> str:
    """One sentence on the cases that fail, by their names, of which a single one may have none; empty if none does."""
    said = [f"{name}: {'; '.join(why)}" if name else "; ".join(why) for name, why in cases.items() if why]
    return f"{joined(said)}." if said else ""


def joined(said: Sequence[str]) -> str:
    """What is said of several cases as parts of one sentence; of many, the first few."""
    more = len(said) - _CASES
    return "; ".join([*said[:_CASES], *([f"and {more} more cases"] if more > 0 else [])])
