"""Results for people: numbers as text, and the tables made from tallies."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import TYPE_CHECKING

from rich.table import Table

from qverify.choices import STAGES
from qverify.text.shortened import SENTENCE, shortened
from qverify.verification.row import STATUSES

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping, Sequence

    from qverify.analysis.discrepancies import Discrepancy
    from qverify.runs.question import Question
    from qverify.verification.tally import Tally

_REASONS = 4
"""Reasons that are listed."""


_ACCURACIES = (
    ("clean", "the network itself, before quantisation"),
    ("guaranteed", "proved right for every network of the family"),
    ("attack", "no failing network of the family is known"),
)
_MEANING = {
    "forward": "the network itself",
    "ibp": "interval bounds",
    "attack": "descent to a member that fails",
    "ties": "the runtimes of an integer file, one by one",
    "bp": "backward bounds",
    "bp-layers": "backward bounds at every layer",
    "bp-optimised": "backward bounds with optimised lines, also for counterexamples alone",
    "bp-branched": "the same on parts of the family, neurons split where lines lose most",
    "halving": "boxes of inputs halved, with the bounds and the descent above",
    "exact": "the solver",
}
_BASIS = {
    "forward": "one float64 forward pass",
    "ibp": "float64 arithmetic with every rounding error bounded",
    "attack": "one float64 forward pass of the witness",
    "ties": "verified: as ibp; falsified: as attack",
    "bp": "as ibp",
    "bp-layers": "as ibp",
    "bp-branched": "as ibp",
    "halving": "verified: as ibp; falsified: as attack",
    "bp-optimised": "as ibp",
}
"""What a stage's answer rests on; of the exact step `trust` says it."""


def accuracy_table(tally: Tally) -> Table:
    """The table of the three accuracies."""
    table = Table("accuracy", "", "samples", "", box=None, padding=(0, 2, 0, 0))
    for name, meaning in _ACCURACIES:
        count = getattr(tally, name)
        table.add_row(name, percent(count, tally.samples), f"{count} of {tally.samples}", meaning)
    return table


def stage_table(tally: Tally) -> Table:
    """The table of stages: how many samples each decided, and in what time."""
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


def footer(tally: Tally, question: Question, solvers: Sequence[str]) -> list[str]:
    """The lines below the tables: the family, the solver, and the trust that `verified` needs."""
    radii = question.radii
    stages = [f"{name} = {_MEANING[name]}" for name, _, _ in tally.stages() if name in _MEANING]
    lines = [
        f"Stages: {', '.join(stages) or 'none'}.",
        f"Family: {radii.convention}; largest radii (half-widths, twice that is the diameter) {widths(radii.largest)}.",
    ]
    if radii.calibration is not None:
        lines.append(f"Ranges of activations: from {radii.calibration}.")
    if question.clip_input is not None:
        low, high = question.clip_input
        lines.append(f"Quantised inputs stay between {low:g} and {high:g}.")
    lines += reason_lines("Unknown", tally.reasons, tally.statuses["unknown"])
    exact = tally.decided["exact", "verified"]
    proof = f", {exact} by the exact step, {trust(question, solvers)}" if exact else ""
    lines.append(f"Verified: {tally.guaranteed - exact} by bounds in float64 with rounding accounted for{proof}.")
    if "exact" in tally.seconds:
        named = ", ".join(solvers) or "not named by the run"
        lines.append(f"Solver of the exact step: {named}, formulation {question.formulation}.")
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


def trust(question: Question, solvers: Sequence[str]) -> str:
    """The trust that `verified` by the exact step needs (exact/decide.py); `solvers`: those of all starts."""
    word = f"solver's own bound counts less {question.tolerance:g} times the network's gain"
    highs = bool(solvers) and all(solver.startswith("highs") for solver in solvers)
    if question.formulation == "relational" and highs:
        return f"from the duals of every linear program it solved (in bilinear programs the {word})"
    return f"in which the {word}"


def stage_basis(trusts: Sequence[str]) -> list[tuple[str, str, str]]:
    """Every stage: its name, what it does, and what its answer rests on; `trusts`: what `trust` says of some runs."""
    exact = "; ".join(dict.fromkeys(f"verified: {trust}" for trust in trusts))
    basis = _BASIS | {"exact": f"{exact}; falsified: as attack" if exact else "not asked for here"}
    return [(name, _MEANING[name], basis[name]) for name in STAGES]


def widths(largest: Mapping[str, float]) -> str:
    """The largest radius of each kind, in one phrase."""
    return ", ".join(f"{kind} {radius:.4g}" for kind, radius in largest.items())


def percent(part: int, whole: int) -> str:
    """A share in per cent, rounded down to hundredths: what is proved must not look like more.

    100.00 % means all and 0.00 % none, however many there are.
    """
    if not whole:
        return "-"
    shown = max(10000 * part // whole, 1 if part else 0)
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


def discrepancy_ranges(rows: Sequence[Discrepancy]) -> dict[str, list[float]]:
    """Per output the smallest lower and the largest upper end over all rows: proved, and met by members if known."""
    ranges = {}
    for key, best in (("lower", min), ("upper", max), ("attained_lower", min), ("attained_upper", max)):
        ends = [getattr(row, key) for row in rows]
        if ends and all(end is not None for end in ends):
            ranges[key] = [best(column) for column in zip(*(end.tolist() for end in ends), strict=True)]
    return ranges
