"""Results for people: tallies of the rows of a run, and the tables made from them.

Accuracies (mathematics.md, section 1), relative to the samples decided: *clean*, the network itself is right;
*guaranteed*, every member of the family is; *attack*, no failing member is known. guaranteed <= attack <= clean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Any

from rich.table import Table

from qverify.choices import STAGES
from qverify.runs.stored import STATUSES
from qverify.text.shortened import SENTENCE, shortened

_REASONS = 4
"""Reasons that are listed."""


@dataclass
class Tally:
    """Counts over rows of `samples.jsonl`: by status, and by the stage that decided.

    `independent`: positions of convolutions were taken as independent; `limited`: the time limit ended the sample;
    `reasons`: why samples are unknown, in the words of their rows.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    decided: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    independent: int = 0
    limited: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @staticmethod
    def of(rows: Iterable[dict[str, Any]]) -> Tally:
        """The tally of some rows."""
        tally = Tally()
        for row in rows:
            tally.add(row)
        return tally

    def add(self, row: dict[str, Any]) -> None:
        """Take one row in."""
        self.statuses[row["status"]] += 1
        self.decided[row["method"], row["status"]] += 1
        self.seconds[row["method"]] += row["seconds"]
        self.independent += "scope" in row and row["scope"] != "exact"
        self.limited += "limit" in row
        if row["status"] == "unknown":
            self.reasons[row.get("detail", "")] += 1

    @property
    def samples(self) -> int:
        return sum(self.statuses.values())

    @property
    def clean(self) -> int:
        return self.samples - self.statuses["misclassified"]

    @property
    def ibp(self) -> int:
        """Verified by interval bounds."""
        return self.decided["ibp", "verified"]

    @property
    def bp(self) -> int:
        """Verified by bounds alone."""
        return sum(self.decided[stage, "verified"] for stage in ("ibp", "bp", "bp-layers"))

    @property
    def guaranteed(self) -> int:
        return self.statuses["verified"]

    @property
    def attack(self) -> int:
        return self.statuses["verified"] + self.statuses["unknown"]

    def stages(self) -> list[tuple[str, Counter[str], float]]:
        """The stages that decided something, in order: name, counts by status, seconds."""
        known = [name for name in STAGES if name in self.seconds]
        names = known + sorted(set(self.seconds) - set(known))
        return [(n, Counter({s: self.decided[n, s] for s in STATUSES}), float(self.seconds[n])) for n in names]

    def as_dict(self) -> dict[str, Any]:
        """The part of the `--json` object that comes from the rows; accuracies are null without samples."""
        total = self.samples
        accuracies = {
            f"{name}_accuracy": getattr(self, name) / total if total else None
            for name in ("clean", "guaranteed", "attack")
        }
        counts = {status: self.statuses[status] for status in STATUSES}
        by_method = {
            name: {**{s: n for s, n in found.items() if n}, "seconds": round(seconds, 6)}
            for name, found, seconds in self.stages()
        }
        return {
            "samples": total,
            **accuracies,
            **counts,
            "by_method": by_method,
            "unknown_reasons": dict(self.reasons.most_common()),
            "independent_positions": self.independent,
        }

    def lines(self) -> list[str]:
        """Where a run stands, in a few words: how many of each status, and which stages decided how many."""
        counts = ", ".join(f"{self.statuses[status]} {status}" for status in STATUSES)
        stages = ", ".join(f"{name} {sum(found.values())}" for name, found, _ in self.stages())
        return [counts, f"decided by {stages}"] if stages else [counts]


_ACCURACIES = (
    ("clean", "the network itself, before quantisation"),
    ("guaranteed", "proved right for every network of the family"),
    ("attack", "no failing network of the family is known"),
)
_MEANING = {
    "forward": "the network itself",
    "ibp": "interval bounds",
    "attack": "descent to a member that fails",
    "bp": "backward bounds",
    "bp-layers": "backward bounds at every layer",
    "exact": "the solver",
}
_BASIS = {
    "forward": "one float64 forward pass",
    "ibp": "float64 arithmetic with every rounding error bounded",
    "attack": "one float64 forward pass of the witness",
    "bp": "as ibp",
    "bp-layers": "as ibp",
}
"""What a stage's answer rests on; of the exact step `trust` says it."""


def accuracy_table(tally: Tally) -> Table:
    """The three accuracies."""
    table = Table("accuracy", "", "samples", "", box=None, padding=(0, 2, 0, 0))
    for name, meaning in _ACCURACIES:
        count = getattr(tally, name)
        table.add_row(name, percent(count, tally.samples), f"{count} of {tally.samples}", meaning)
    return table


def stage_table(tally: Tally) -> Table:
    """Who decided what, and in what time."""
    table = Table("decided by", box=None, padding=(0, 2, 0, 0))
    for heading in (*STATUSES, "seconds", "ms each"):
        table.add_column(heading, justify="right")
    for name, found, seconds in tally.stages():
        counts = [str(found[status] or "") for status in STATUSES]
        each = f"{1000 * seconds / max(1, sum(found.values())):.3g}"
        table.add_row(name, *counts, f"{seconds:.2f}", each)
    totals = [str(tally.statuses[status]) for status in STATUSES]
    table.add_row("all", *totals, f"{sum(tally.seconds.values()):.2f}", "")
    return table


def footer(tally: Tally, question: dict[str, Any], solvers: Sequence[str]) -> list[str]:
    """What the tables rest on: the family, the solver, and the trust that `verified` needs."""
    radii = question["radii"]
    stages = [f"{name} = {_MEANING[name]}" for name, _, _ in tally.stages() if name in _MEANING]
    lines = [
        f"Stages: {', '.join(stages) or 'none'}.",
        f"Family: {radii['convention']}; largest radii (half-widths, twice that is the diameter)"
        f" {widths(radii['largest'])}.",
    ]
    if "calibration" in radii:
        lines.append(f"Ranges of activations: from {radii['calibration']}.")
    if question.get("clip_input"):
        low, high = question["clip_input"]
        lines.append(f"Quantised inputs stay between {low:g} and {high:g}.")
    lines += reason_lines("Unknown", tally.reasons, tally.statuses["unknown"])
    exact = tally.decided["exact", "verified"]
    proof = f", {exact} by the exact step, {trust(question, solvers)}" if exact else ""
    lines.append(f"Verified: {tally.guaranteed - exact} by bounds in float64 with rounding accounted for{proof}.")
    if "exact" in tally.seconds:
        named = ", ".join(solvers) or "not named by the run"
        lines.append(f"Solver of the exact step: {named}, formulation {question['formulation']}.")
    elif solvers:
        lines.append(f"No sample needed the exact step (its solver: {', '.join(solvers)}).")
    if tally.independent:
        lines.append(
            f"For {tally.independent} samples the positions of convolutions were taken as independent:"
            " sound, but it cannot falsify."
        )
    return lines


def reason_lines(what: str, reasons: Counter[str], total: int) -> list[str]:
    """A line for each of the commonest reasons of `total` samples that are `what`; those without one are left out."""
    found = [(shortened(reason, SENTENCE), count) for reason, count in reasons.most_common() if reason]
    counts = found[:_REASONS]
    if rest := found[_REASONS:]:
        other = "other reason" if len(rest) == 1 else "other reasons"
        counts.append((f"{len(rest)} {other}, in the rows", sum(count for _, count in rest)))
    return [f"{what}, {count} of {total}: {reason}." for reason, count in counts]


def trust(question: dict[str, Any], solvers: Sequence[str]) -> str:
    """What `verified` by the exact step rests on (exact/decide.py), `solvers` being those of all starts of the run."""
    word = f"solver's own bound counts less {question['tolerance']:g} times the network's gain"
    highs = bool(solvers) and all(solver.startswith("highs") for solver in solvers)
    if question["formulation"] == "relational" and highs:
        return f"from the duals of every linear program it solved (in bilinear programs the {word})"
    return f"in which the {word}"


def stage_basis(trusts: Sequence[str]) -> list[tuple[str, str, str]]:
    """Every stage: its name, what it does, and what its answer rests on; `trusts`: what `trust` says of some runs."""
    exact = "; ".join(dict.fromkeys(f"verified: {trust}" for trust in trusts))
    basis = _BASIS | {"exact": f"{exact}; falsified: as attack" if exact else "not asked for here"}
    return [(name, _MEANING[name], basis[name]) for name in STAGES]


def widths(largest: dict[str, float]) -> str:
    """The largest radius of each kind, in one phrase."""
    return ", ".join(f"{kind} {radius:.4g}" for kind, radius in largest.items())


def percent(part: int, whole: int) -> str:
    """In hundredths; 100.00 % means all and 0.00 % none, however many there are."""
    if not whole:
        return "-"
    shown = round(10000 * part / whole)
    if 0 < part < whole:
        shown = min(max(shown, 1), 9999)
    return f"{shown / 100:.2f} %"


def outward(value: float, digits: int, up: bool) -> str:
    """`value` in so many significant digits, rounded upwards or downwards: what is proved must not look like more."""
    context = Context(prec=digits, rounding=ROUND_CEILING if up else ROUND_FLOOR)
    return f"{float(context.create_decimal(value)):.{digits}g}"


def discrepancy_table(ranges: dict[str, list[float]]) -> Table:
    """Per output the ends over all samples; `ranges` as `discrepancy_ranges` makes it."""
    table = Table("output", box=None, padding=(0, 2, 0, 0))
    names = {"lower": "at least", "upper": "at most", "attained_lower": "lowest met", "attained_upper": "highest met"}
    shown = [key for key in names if key in ranges]
    for key in shown:
        table.add_column(names[key], justify="right")
    for output in range(len(ranges["lower"])):
        ends = [outward(ranges[key][output], 6, up=key in ("upper", "attained_lower")) for key in shown]
        table.add_row(str(output), *(end if end[0] in "-0" else f"+{end}" for end in ends))
    return table


def discrepancy_ranges(rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Per output the smallest lower and the largest upper end over all rows: proved, and met by members if known."""
    ranges = {}
    for key, best in (("lower", min), ("upper", max), ("attained_lower", min), ("attained_upper", max)):
        if rows and all(row[key] is not None for row in rows):
            ranges[key] = [best(column) for column in zip(*(row[key] for row in rows), strict=True)]
    return ranges
