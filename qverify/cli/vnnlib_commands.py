"""The declarations of `qverify vnnlib verify` and `qverify vnnlib supports`. Imports nothing that takes time."""

from __future__ import annotations

from typing import Any

import click

from qverify.cli.options import memory_option, stacked
from qverify.cli.words import BitWidth
from qverify.version import __version__
from qverify.vnnlib.supports import CAPABILITIES


def _name(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        click.echo("qverify")
        context.exit()


@click.group(name="vnnlib", short_help="Answer queries of the VNN-LIB standard.")
@click.option(
    "--name", is_flag=True, is_eager=True, expose_value=False, callback=_name, help="Print the solver's name."
)
@click.version_option(__version__, message="%(version)s", help="Print its version.")
def vnnlib() -> None:
    """Answer queries of VNN-LIB 1.0 and 2.0, by the command line that the standard prescribes to solvers.

    `verify` answers a query, `supports` says which queries can be answered.
    """


@vnnlib.command(short_help="Can some input satisfy the query?")
@click.argument("query", metavar="QUERY.vnnlib")
@click.option(
    "--network",
    "networks",
    multiple=True,
    metavar="NAME=FILE.onnx",
    help="The model of the network that the query calls NAME; in version 1.0, which has no names, any NAME or none.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="S",
    help="Seconds for the query, reading included; then it is timed-out. inf: no limit.",
)
@click.option(
    "--serialise-assignments",
    "--assignments",
    "folder",
    metavar="DIR",
    help="Write what satisfies the query as ONNX TensorProtos, DIR/NAME.pb, instead of printing it.",
)
@click.option(
    "--bits",
    type=BitWidth("ask again for each"),
    metavar="N",
    help="Ask about every N-bit quantisation of the model (scheme paper), not about the model alone.",
)
@click.option("--radii", metavar="FILE.toml", help="The same for the radii in a file, instead of --bits.")
@memory_option
def verify(query: str, networks: tuple[str, ...], bits: int | None, radii: str | None, **given: Any) -> int:
    """Decide whether some input, and what the network makes of it, satisfy QUERY.vnnlib, which may be gzipped.

    \b
    sat        an input that does is printed; the model itself, run by onnxruntime, confirmed it
    unsat      proved that none does, in real arithmetic
    unknown    neither
    timed-out  neither, within the time limit

    Exit status: 0 for these four, 2 wrong usage, query or unsupported model, 3 no solver or package, 4 internal error.
    """
    from qverify.cli.vnnlib import verify as run

    return run(query, networks, family=(radii, bits), **given)


def _asked(name: str, says: str) -> Any:
    return click.option(f"--{name}", "asked", flag_value=name, multiple=True, help=says)


_SAYS = {
    "onnx-opset-versions": "The oldest and the newest opset.",
    "onnx-element-types": "Types that variables may be declared with.",
    "onnx-operators": "Operators of ONNX, one a line.",
    "vnnlib-versions": "The oldest and the newest version of VNN-LIB.",
    "hidden-node-theories": "NH: none in queries.",
    "multiple-input-output-theories": "SIO: one input, one output.",
    "multiple-network-theories": "SNET: one network.",
    "multiple-node-comparison-theories": "SNC: no comparison ties nodes together.",
    "arithmetic-complexity-theories": "BND: limits on single inputs; OUTC: linear comparisons of outputs.",
    "optimised-disjunctive-reasoning": "Whether alternatives are more than written out.",
    "serialise-assignments": "Whether assignments can be written as TensorProtos.",
}
assert _SAYS.keys() == CAPABILITIES.keys()


@vnnlib.command(short_help="Which queries can be answered?")
@stacked(*(_asked(name, says) for name, says in _SAYS.items()))
def supports(asked: tuple[str, ...]) -> int:
    """Print one capability, in the words of the VNN-LIB standard."""
    from qverify.cli.vnnlib import supports as run

    return run(asked)
