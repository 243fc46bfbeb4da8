"""`Result`: the verdicts of a call, a list that sums itself up, shows itself in notebooks, and can be required of."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from html import escape
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from qverify.errors import NotProved, PackageMissing, UsageError
from qverify.kinds import described, is_number
from qverify.report.numbers import percent
from qverify.runs.gate import share
from qverify.text.brief import Brief
from qverify.text.escapes import printable
from qverify.text.shortened import listed
from qverify.verification.row import Status
from qverify.verification.tally import Tally
from qverify.verification.verdict import Options, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure

    from qverify.family.radii import Radii
    from qverify.network import Network

_WORST, _SHOWN = 5, 20
"""Samples that an error names, and rows that a notebook shows."""
_COLUMNS = (
    *("index", "label", "predicted", "status", "margin_lower", "margin_upper", "method", "seconds", "scope"),
    *("detail", "limit", "grid"),
)
"""Fields of a row, as `samples.jsonl` has them too."""


@dataclass(frozen=True, eq=False, repr=False)
class About(Brief):
    """What was asked: `asked` are the indices of the samples in `data`."""

    network: Network
    radii: Radii
    data: str
    asked: range
    options: Options
    seconds: float = 0.0

    @property
    def title(self) -> str:
        """Model, data, samples and family, for people."""
        name, convention = printable(self.network.source), printable(self.radii.convention)
        return f"{name} on {printable(self.data)}, samples {self.asked.start}:{self.asked.stop}; {convention}"


class Result(list[Verdict]):
    """The verdicts of `qverify.verify` in the order of the samples: a list, with `about`, what was asked, beside it.

    Accuracies (mathematics.md, section 1) are shares of the samples asked about, so what a run that was stopped did
    not decide is not verified. A slice is a result about the same question, over the samples that are in it.
    """

    def __init__(self, verdicts: Iterable[Verdict], about: About):
        super().__init__(verdicts)
        self.about = about

    @overload
    def __getitem__(self, place: SupportsIndex) -> Verdict: ...
    @overload
    def __getitem__(self, place: slice) -> Result: ...
    def __getitem__(self, place: SupportsIndex | slice) -> Verdict | Result:
        if not isinstance(place, slice):
            return super().__getitem__(place)
        return _Part(super().__getitem__(place), self.about)

    def __repr__(self) -> str:
        return f"<Result: {self._line()}>"

    # -- numbers --------------------------------------------------------------------------------

    @property
    def tally(self) -> Tally:
        """The counts of the verdicts."""
        return Tally.of(verdict.row() for verdict in self)

    @property
    def asked(self) -> int:
        """How many samples were asked about."""
        return len(self.about.asked)

    @property
    def clean_accuracy(self) -> float:
        """The share that the network itself gets right."""
        return self.tally.clean / self.asked

    @property
    def guaranteed_accuracy(self) -> float:
        """The share that is verified."""
        return self.tally.guaranteed / self.asked

    @property
    def attack_accuracy(self) -> float:
        """The share of which no failing member is known."""
        return self.tally.attack / self.asked

    # -- for people -----------------------------------------------------------------------------

    def summary(self) -> str:
        """A few lines: what was asked, the three accuracies, counts, stages, and seconds."""
        tally = self.tally
        rows = [
            f"{name:<11}{percent(count, self.asked):>9}  {count} of {self.asked}  {meaning}"
            for name, count, meaning in (
                ("clean", tally.clean, "the network itself, before quantisation"),
                ("guaranteed", tally.guaranteed, "proved right for every network of the family"),
                ("attack", tally.attack, "no failing network of the family is known"),
            )
        ]
        missing = self.asked - len(self)
        said = [f"{missing} are not decided"] if missing else []
        return "\n".join([self.about.title, *rows, *tally.lines(), *said, f"{self.about.seconds:.1f} s"])

    def _line(self) -> str:
        tally = self.tally
        return f"{tally.guaranteed} of {self.asked} samples verified ({tally.lines()[0]}), {self.about.title[:200]}"

    def _repr_html_(self) -> str:
        """For notebooks: the summary, and the first rows as a table."""
        names = ("index", "label", "predicted", "status", "margin_lower", "margin_upper", "method", "detail")
        head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{_cell(getattr(verdict, name))}</td>" for name in names) + "</tr>"
            for verdict in list(self)[:_SHOWN]
        )
        more = f"<p>and {len(self) - _SHOWN} more</p>" if len(self) > _SHOWN else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div><pre>{escape(self.summary())}</pre>{table}{more}</div>"

    def to_pandas(self) -> Any:
        """A pandas DataFrame, a row a sample, with the fields of `samples.jsonl`; margins without a bound are missing.

        Raises PackageMissing where pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise PackageMissing("to_pandas needs pandas, which is not installed; run pip install pandas.") from None
        rows = [verdict.row() for verdict in self]
        columns = {name: [getattr(row, name) for row in rows] for name in _COLUMNS}
        columns["status"] = [row.status.value for row in rows]
        frame = pandas.DataFrame(columns)
        for name in ("margin_lower", "margin_upper", "limit"):
            frame[name] = frame[name].astype("float64")
        return frame

    def plot(self) -> Figure:
        """A matplotlib figure: the bracket of every sample's worst margin, in the order of what is proved."""
        from qverify.library.figure import margins_figure

        return margins_figure([verdict.row() for verdict in self], self.about.title)

    # -- for programs ---------------------------------------------------------------------------

    def require(self, at_least: float) -> Result:
        """This result, if at least the share `at_least` (0.95 for 95 %) of the samples asked about is verified.

        Raises NotProved, an AssertionError, with the worst samples otherwise; UsageError for what is no share.
        """
        if not is_number(at_least) or not 0 <= at_least <= 1:
            raise UsageError(f"The share required is {described(at_least)}; give a number from 0 to 1, 0.95 for 95 %.")
        verified = self.tally.guaranteed
        if verified >= Fraction(repr(float(at_least))) * self.asked:
            return self
        worst = sorted((one for one in self if one.status is not Status.VERIFIED), key=lambda one: one.margin_upper)
        named = [f"{one.index} ({one.status.value}, {_margin(one)})" for one in worst]
        missing = self.asked - len(self)
        undecided = f", {missing} are not decided" if missing else ""
        raise NotProved(
            f"{share(verified, self.asked)} ({verified} of {self.asked} samples) are verified, less than the"
            f" {100 * float(at_least):g} % required{undecided}; the worst are {listed(named, _WORST) or 'not decided'}."
        )


class _Part(Result):
    """Some of the verdicts of a result; what was asked about are these."""

    @property
    def asked(self) -> int:
        return len(self)


def _margin(verdict: Verdict) -> str:
    """What is known of the worst margin, in short."""
    if verdict.status is Status.UNKNOWN:
        return f"worst margin from {verdict.margin_lower:.3g} to {verdict.margin_upper:.3g}"
    return f"margin {verdict.margin_upper:.3g}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return escape(printable(value.value if isinstance(value, Status) else str(value)))
