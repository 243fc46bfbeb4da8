"""`qverify radii`: what bits and schemes mean for one model, written as a radii file that can be edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.errors import UsageError
from qverify.family.family import Family
from qverify.family.radii_file import write_radii
from qverify.runs.problem import doubted, read_network, read_samples, say_hints, stated_radii

if TYPE_CHECKING:
    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.runs.given import Given


def run(given: Given, *, out: str, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    with stdout_kept_clean():
        given.check()
        network = read_network(given)
        everything = read_samples(given, network)
        given.require_radii(network.rounds)
        if everything is not None:
            doubted(network, everything)
        radii, _ = stated_radii(given, network, everything)
        if radii is None:
            raise UsageError("There are no radii to write; give --bits N, or --radii FILE.toml.")
        family = Family.of(network, radii, given.clip_input)
        say_hints(network, radii, None)
        kernels = ("An integer kernel that overflows is not looked for with a radii file.",) if radii.kernel else ()
        write_radii(radii, out, (f"of {network.source}", *kernels))
        if kernels:
            say("note: a run with this file does not look for integer kernels that overflow, which --bits does.")
    result = _described(network, radii, family, out)
    if as_json:
        show_json(result)
    else:
        show(f"{out}: {radii.convention}.")
        show(f"{result['layers']} layers with radii, {result['points']} rounding points. `qverify verify {given.model}")
        show(f"--data DATA --radii {out}` verifies with them.")
    return 0


def _described(network: Network, radii: Radii, family: Family, out: str) -> dict[str, Any]:
    return {
        "model": network.source,
        "out": out,
        "convention": radii.convention,
        "largest": family.largest(),
        "layers": len(family.weight),
        "points": len(family.points) + (family.entry is not None),
    }
