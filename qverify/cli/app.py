"""The command line: declares the commands and ends them with the right status (formats.md, section 14).

0 the run finished, 1 what was asked for in CI is not so, 2 wrong usage, input or unsupported model, 3 solver or licence
missing, 4 an internal check failed, 130 Ctrl-C, 143 SIGTERM, 141 the reader of stdout is gone. Nothing heavy is
imported before a command runs.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import click

from qverify.choices import DISCREPANCY_METHODS, FACTOR_METHODS, VERIFY_METHODS
from qverify.cli.gate_options import gate_options
from qverify.cli.guarded import Guarded
from qverify.cli.options import (
    REPORT_FORMS,
    SHARES,
    compare_options,
    covers_options,
    inspect_options,
    json_option,
    memory_option,
    problem_options,
    radius_options,
    solve_options,
    sweep_options,
)
from qverify.cli.property_options import property_options
from qverify.cli.runtimes_options import runtimes_options
from qverify.cli.train_options import train_options
from qverify.cli.vnnlib_commands import vnnlib
from qverify.cli.words import OneOf, Percent
from qverify.runs.given import Given
from qverify.version import __version__


@click.group(cls=Guarded, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Verify neural networks under quantisation: one proof for every quantiser within given radii."""


@main.command(short_help="Is every sample still classified right, whatever the quantiser?")
@problem_options(data_required=True)
@solve_options(VERIFY_METHODS, "auto")
@click.option("--out", metavar="DIR", help="Keep the run there: run.json, and samples.jsonl with a line a sample.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out DIR, also with more samples or time.")
@click.option("--witnesses", is_flag=True, help="Write the failing member of every falsified sample to --out DIR.")
@gate_options()
@json_option
def verify(out: str | None, resume: bool, witnesses: bool, as_json: bool, **given: Any) -> int:
    """Decide for every sample whether all quantised versions of MODEL, an ONNX or TFLite file, classify it right.

    \b
    verified       proved for every member of the quantised family
    falsified      a concrete member gets it wrong (--witnesses writes it out)
    unknown        neither, within the time limit
    misclassified  the network itself is wrong

    Exit status: 0 the run finished, 1 --fail-on, --fail-under or --baseline was hit, 2 wrong usage or input, 3 no
    solver or licence, 4 internal error.
    """
    from qverify.cli.gate import GateGiven
    from qverify.cli.verify import run

    gate = GateGiven.taken_from(given)
    return run(Given(**given), out=out, resume=resume, witnesses=witnesses, gate=gate, as_json=as_json)


@main.command(short_help="How does the guaranteed accuracy fall as the radius grows?")
@sweep_options()
@solve_options(VERIFY_METHODS, "auto")
@click.option("--out", metavar="DIR", help="Keep it there: sweep.csv with a row a point, a plot, sweep.json.")
@click.option("--resume", is_flag=True, help="Go on with the sweep in --out DIR.")
@json_option
def sweep(
    models: tuple[str, ...], bits: str | None, values: str | None, parts: str | None, out: str | None, **given: Any
) -> int:
    """Guaranteed accuracy of each MODEL, an ONNX or TFLite file, against the radius: a curve a part that is quantised.

    Methods ibp and bp prove by bounds alone, and no failing network is looked for; auto and exact also give the
    accuracy that an attack leaves.
    """
    from qverify.cli.sweep import axis_of, run

    how = {name: given.pop(name) for name in ("resume", "as_json")}
    each = [Given(model=model, **given) for model in models]
    return run(each, axis_of(each[0], bits, values, parts), out=out, **how)


@main.command(short_help="How large may the radii be before a sample fails?")
@problem_options(data_required=True)
@solve_options(FACTOR_METHODS, "auto")
@radius_options()
@click.option("--out", metavar="DIR", help="Keep it there: factors.csv, layers.csv, a histogram, radius.json.")
@click.option("--resume", is_flag=True, help="Go on with the search in --out DIR.")
@json_option
def radius(out: str | None, resume: bool, as_json: bool, **given: Any) -> int:
    """For every sample the largest factor on the given radii at which MODEL, an ONNX or TFLite file, is still verified.

    The result is a bracket for each sample: the largest factor at which a proof was found, and the smallest at which a
    concrete quantised network fails. Factors are taken from a grid in steps of --precision with 1 in it. --timeout
    holds for one sample at one factor; what stays unknown there leaves its bracket wider.
    """
    from qverify.cli.radius import run
    from qverify.runs.radius import Wanted

    wanted = Wanted(**{field.name: given.pop(field.name) for field in fields(Wanted)})
    return run(Given(**given), wanted, out=out, resume=resume, as_json=as_json)


@main.command(short_help="Verify many models, data, radii and methods, as a plan says.")
@click.argument("plan", metavar="PLAN.toml")
@click.option(
    "--out", metavar="DIR", help="Keep rows there, and go on with those that are; instead of `out` in the plan."
)
@click.option("--jobs", type=click.IntRange(0, 9999), default=0, metavar="N", help="Processes.  [default: one a core]")
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Instead of processes here: the Dask cluster with its scheduler at ADDRESS, such as tcp://HOST:8786; "
    "local:N starts one of N workers here.",
)
@memory_option
@gate_options()
@json_option
def batch(plan: str, out: str | None, as_json: bool, **more: Any) -> int:
    """Verify every case of PLAN.toml: models x data x radii x methods.

    \b
    models = ["a.onnx", "b.onnx"]     # paths are relative to the plan
    data = "digits"
    bits = [6, 8]                     # or radii = ["radii.toml"]
    out = "runs/digits"

    Further keys: schemes, roundings, kernel, batchnorm, methods, samples, input-scale, timeout, clip-input,
    formulation, solver; they mean what the options of `qverify verify` mean. Every row is kept as soon as it is known,
    and a rerun computes what is missing. --fail-on, --fail-under and --baseline judge every case by itself.
    """
    from qverify.cli.batch import run
    from qverify.cli.gate import GateGiven
    from qverify.runs.batch import Where

    gate = GateGiven.taken_from(more)
    return run(plan, Where(**more), out=out, gate=gate, as_json=as_json)


@main.command(short_help="Train a network whose quantisations are right.")
@train_options()
@json_option
def train(**given: Any) -> int:
    """Train a network on bounds over all its quantised versions, and write it as ONNX with a .json that says how.

    Without --bits and --radii it is trained normally, for comparison. Ctrl-C keeps the best so far, and --resume goes
    on as if nothing had happened.
    """
    from qverify.cli.train import TrainGiven, run

    return run(TrainGiven.of(given))


@main.command(name="property", short_help="Does a property of the outputs hold, whatever the quantiser?")
@property_options()
@click.option("--out", metavar="DIR", help="Keep the run there: run.json, and samples.jsonl with a line a sample.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out DIR, also with more samples or time.")
@json_option
def property_(fail_on: tuple[str, ...], fail_under: float | None, **given: Any) -> int:
    """Decide for every sample, or box of inputs, whether a property of the outputs holds for all quantised versions of
    MODEL. A file states it:

    \b
    [[holds]]                # an alternative: all of these comparisons of outputs hold
    all = ["y[label] - y[3] >= 0.5", "y[0] <= 2"]

    Or property = "top-k", "margin", "distance" or "score", with their numbers; the page of this command says more.

    Exit status: 0 the run finished, 1 --fail-on or --fail-under was hit, 2 wrong usage or input, 3 no solver or
    licence, 4 internal error.
    """
    from qverify.cli.property import PropertyGate, run

    how = {name: given.pop(name) for name in ("file", "out", "resume", "as_json")}
    return run(Given(**given), gate=PropertyGate(fail_on, fail_under), **how)


@main.command(short_help="How far can quantisation move the outputs?")
@problem_options(data_required=True)
@solve_options(DISCREPANCY_METHODS, "bp")
@click.option("--out", metavar="FILE.jsonl", help="Write a line a sample there.")
@json_option
def discrepancy(out: str | None, as_json: bool, **given: Any) -> int:
    """Bound how far the outputs of MODEL, an ONNX or TFLite file, can move over the quantised family, per output."""
    from qverify.cli.discrepancy import run

    return run(Given(**given), out=out, as_json=as_json)


@main.command(short_help="How far is an integer file from its float network?")
@compare_options()
@click.option("--out", metavar="FILE.json", help="Write what --json prints there, with the hashes of models and data.")
@json_option
def compare(file: str, out: str | None, as_json: bool, **given: Any) -> int:
    """Compare MODEL, a float network, with FILE, the integer file that was made of it, on samples.

    Tensor by tensor the error of the file; and per output the largest gap to the network, proved for every runtime that
    rounds by the rule --rounding names. With --epsilon every sample is within it, exceeds it, or unknown.

    Exit status: 0 the run finished, 1 what CI asked for was not reached, 2 wrong usage or input, 4 internal error.
    """
    from qverify.cli.compare import Asked, run
    from qverify.replication.regions import Region

    region = {name: given.pop(option) for name, option in (("radius", "input_radius"), ("clip", "clip_input"))}
    region |= {"epsilon": given.pop("epsilon"), "exact": given.pop("input") == "exact"}
    rule = {name: given.pop(name) for name in ("rounding", "fail_on")}
    asked = Asked(file=file, region=Region(**region), **rule)
    return run(Given(**given), asked, out=out, as_json=as_json)


@main.command(short_help="Is an integer file in the family that was certified?")
@covers_options()
@json_option
def covers(file: str, run: str | None, rule: str | None, as_json: bool, **given: Any) -> int:
    """Compare FILE, an integer file, tensor by tensor with the family of MODEL, the float network it was made of.

    Weights and biases against their radii; steps, ranges and places of rounding points against the family's.

    Exit status: 0 the file is covered, 1 it is not, 2 wrong usage or input, or a file of another model.
    """
    from qverify.cli.covers import run as covered

    return covered(Given(**given), file=file, run=run, rule=rule, as_json=as_json)


@main.command(short_help="Is the class of a quantised file the same on every runtime?")
@runtimes_options()
@json_option
def runtimes(
    rules: tuple[str, ...], ranges: bool, out: str | None, fail_on: tuple[str, ...], as_json: bool, **given: Any
) -> int:
    """Decide for every sample whether MODEL, a quantised file, has one class on every runtime.

    \b
    same     proved for every choice of rules, layer by layer
    differs  two choices give two classes, both computed in exact integers
    unknown  neither, within the time limit

    MODEL is a TFLite or ONNX file all of whose tensors are quantised. Runtimes share its integers, and differ in how
    they round the sums of each layer back to 8 bits: that is what the rules are about.
    """
    from qverify.cli.runtimes import run

    return run(Given(**given), rules, ranges=ranges, out=out, fail_on=fail_on, as_json=as_json)


@main.command(short_help="Tables and a page about runs that lie on disk.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--format",
    "form",
    type=click.Choice(REPORT_FORMS),
    default="terminal",
    show_default=True,
    help="latex: a tabular for booktabs. html: one page, complete in itself.",
)
@click.option("--out", metavar="FILE", help="Write there instead of stdout; html needs it.")
@click.option("--title", metavar="TEXT", help="A title above table or page.")
@click.option(
    "--pivot",
    type=OneOf(SHARES),
    help="A row a model instead, a column for every family and method, and one of the shares in the cells.",
)
@click.option("--caption", metavar="TEXT", help="LaTeX: the tabular in a table environment, under this caption.")
@click.option("--label", metavar="NAME", help="LaTeX: the label that goes with the caption.")
@click.option(
    "--require",
    type=Percent(),
    metavar="P",
    help="Say for every line whether P percent of the samples asked about are verified; if not, exit with status 1.",
)
def report(runs: tuple[str, ...], require: float | None, **shown: Any) -> int:
    """Sum up each RUN, a directory that `qverify verify --out`, `property --out` or `batch` wrote: a line a case.

    Beside these a RUN is a directory of sweep or radius, or a file that holds what discrepancy, property, compare,
    covers or runtimes printed with --json: a section each.

    Runs over parts of the samples of one question, as 0:20 and 20:40, are added up to one line.

    The page also has curves, the margins of every sample, pictures of falsified samples, and what the result rests
    on. Pictures and unstable neurons are in it if model and data still lie where the run found them, unchanged.
    """
    from qverify.cli.report import Shown, run

    return run(runs, Shown(**shown), require)


@main.command(short_help="Which solvers work here, and with what licence?")
@json_option
def solvers(as_json: bool) -> int:
    """List the solvers of the exact step: whether they work here, with what licence and limits.

    Exit status: 0 if at least one works, else 3.
    """
    from qverify.cli.solvers import run

    return run(as_json)


@main.command(short_help="What do bits and schemes mean for a model? As a radii file.")
@problem_options(data_required=False)
@click.option("--out", required=True, metavar="FILE.toml", help="The radii file.")
@json_option
def radii(out: str, as_json: bool, **given: Any) -> int:
    """Write the radii and rounding points that --bits and the options beside it mean for MODEL, to be read and edited.

    `--radii FILE.toml` of all commands reads them. A quantised MODEL states its own.
    """
    from qverify.cli.radii import run

    return run(Given(**given), out=out, as_json=as_json)


@main.command(short_help="What is in a model, and how hard is it?")
@problem_options(data_required=False)
@inspect_options()
@json_option
def inspect(as_json: bool, **given: Any) -> int:
    """List the layers of MODEL, an ONNX or TFLite file, under the names that a radii file uses.

    With --bits or --radii also the largest radius of each layer; with samples (--data) also how many neurons are
    unstable, which is what the exact step has to branch on: the mean over those chosen by --samples, or over at most
    200 of all.
    """
    from qverify.cli.inspect import run

    return run(Given(**given), as_json=as_json)


main.add_command(vnnlib)
