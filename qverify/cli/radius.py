"""`qverify radius`: per sample the largest factor on the radii that is still verified; per layer the largest radius."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from qverify.choices import STAGES
from qverify.cli.pictures import draw, shown_by
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import duration
from qverify.console.signals import INTERRUPTED
from qverify.errors import UsageError
from qverify.files.names import file_name, without_folders
from qverify.report.numbers import outward, percent, widths
from qverify.runs.radius import RadiusWork, Wanted, searched
from qverify.text.escapes import printable

if TYPE_CHECKING:
    from qverify.analysis.grid import Bracket, Grid
    from qverify.analysis.layers import LayerRow
    from qverify.runs.given import Given

QUANTILES = {"minimum": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "maximum": 1.0}


def run(given: Given, wanted: Wanted, *, out: str | None, resume: bool, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    if resume and out is None:
        raise UsageError("--resume needs a directory; give --out DIR too.")
    began = time.perf_counter()
    with stdout_kept_clean():
        work = searched(given, wanted, out=out, resume=resume)
        if work.directory is not None and work.brackets:
            _plot(work)
    (_print if as_json else _report)(work, time.perf_counter() - began)
    if work.missing:
        kept = f"kept in {out}; go on with the same command and --resume" if out else "shown"
        say(f"interrupted: {work.standing} are done and {kept}.")
    return INTERRUPTED if work.missing else 0


def _plot(work: RadiusWork) -> None:
    """Draw DIR/radius.png and DIR/radius.svg."""
    assert work.directory is not None
    brackets, _ = work.ordered()
    given, model = work.problem.given, printable(work.problem.network.source)
    title = f"{model}, {len(brackets)} samples of {printable(file_name(given.data or ''))}, by {given.method};"
    title += f"\n1 is {printable(without_folders(work.problem.radii.convention, [given.radii or '']))}"
    draw(work.directory.path / "radius", lambda plots: plots.factor_figure(brackets, title, work.grid.max_factor))


# -- the result on stdout --------------------------------------------------------------------------


def quantiles(values: list[float]) -> dict[str, float]:
    """Order statistics, each one of the values: 90 % of the samples or more are at or above the one for 10 %."""
    return {name: float(np.quantile(values, q, method="lower")) for name, q in QUANTILES.items()} if values else {}


def _print(work: RadiusWork, seconds: float) -> None:
    """Write the result to stdout, as JSON."""
    brackets, rows = work.ordered()
    top, one = work.grid.max_factor, sum(bracket.factor >= 1 for bracket in brackets)
    result = {
        "samples": len(brackets),
        "misclassified": sum(bracket.misclassified for bracket in brackets),
        "quantiles": quantiles([bracket.factor for bracket in brackets]),
        "verified_at_1": one if top >= 1 else None,
        "verified_at_max": sum(bracket.lower == top for bracket in brackets),
        "brackets": [bracket.as_dict() for bracket in brackets],
        "layers": [row.as_dict() for row in rows] if work.layer_search else None,
        "interrupted": bool(work.missing),
        "seconds": round(seconds, 3),
    }
    show_json(result | work.question().summary())


def _report(work: RadiusWork, seconds: float) -> None:
    """Write the result to stdout, for people."""
    brackets, rows = work.ordered()
    proved = quantiles([bracket.factor for bracket in brackets])
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
    """The lines below the table of factors: what it rests on."""
    total, radii = len(brackets), work.problem.radii
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
        counts = {name: methods.count(name) for name in STAGES if name != "forward"}
        if any(counts.values()):
            lines.append(f"{what} by {', '.join(f'{name} {count}' for name, count in counts.items() if count)}.")
    wide = [b.detail for b in brackets if b.detail]
    if wide:
        why = "; ".join(sorted(set(wide)))
        lines.append(f"Wider than {100 * work.wanted.precision:g} %: {len(wide)} brackets ({why}).")
    lines.append(f"Factor 1: {radii.convention}; radii (half-widths) {widths(work.problem.family.largest())}.")
    if radii.points:
        lines.append("Ranges that values are clipped to stay as they are at every factor.")
    return lines


def _layer_table(rows: list[LayerRow]) -> Table:
    """The table of layers, a line each."""
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
