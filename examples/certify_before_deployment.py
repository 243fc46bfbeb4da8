"""Certify a float network before it is quantised: every quantiser within the radii, or the build stops.

    python certify_before_deployment.py models/digits.onnx --data digits --bits 8 --at-least 0.9

Writes certificate.md and margins.png to --out. Status 0: enough samples are proved; 1: too few, with the worst named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import qverify


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify, write the certificate, and say whether it is enough."""
    parser = argparse.ArgumentParser(description="Certify a network before it is quantised.")
    parser.add_argument("model")
    parser.add_argument("--data", required=True, help="a name such as digits, or an .npz with x and y")
    parser.add_argument("--samples", default="0:200")
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--at-least", type=float, default=0.9, help="share of the samples that has to be proved")
    parser.add_argument("--out", type=Path, default=Path("certificate"))
    given = parser.parse_args(arguments)

    result = qverify.verify(given.model, given.data, radii=given.bits, samples=given.samples, timeout=30.0)
    given.out.mkdir(parents=True, exist_ok=True)
    result.plot().savefig(given.out / "margins.png", dpi=150)
    open_samples = [one for one in result if one.status is not qverify.Status.VERIFIED]
    lines = ["# Certificate", "", "```text", result.summary(), "```", "", f"Not proved: {len(open_samples)} samples."]
    lines += [f"- {one.index}: {one.status.value}, margin {one.margin_upper:.4g}" for one in open_samples]
    (given.out / "certificate.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        result.require(given.at_least)
    except qverify.NotProved as error:
        print(error, file=sys.stderr)
        return 1
    print(f"certified: {result.guaranteed_accuracy:.2%} of {result.asked} samples; see {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
