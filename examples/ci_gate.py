"""A gate in Python, for a test suite or a build without the command line: a share, and nothing that was proved is lost.

    python ci_gate.py models/digits.onnx --data digits --bits 6 --at-least 0.75 --baseline verified.json

The first run writes the baseline, the indices of what is verified, and later runs compare with it; --update writes it
anew.
`qverify verify --fail-under 75 --baseline RUN` does the same from a shell.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import qverify


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify and compare; the exit status is that of the gate."""
    parser = argparse.ArgumentParser(description="A gate for CI.")
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--samples", default="0:100")
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--at-least", type=float, default=0.9)
    parser.add_argument("--baseline", type=Path, default=Path("verified.json"))
    parser.add_argument("--update", action="store_true")
    given = parser.parse_args(arguments)

    result = qverify.verify(given.model, given.data, radii=given.bits, samples=given.samples)
    verified = [one.index for one in result if one.status is qverify.Status.VERIFIED]
    problems = []
    try:
        result.require(given.at_least)
    except qverify.NotProved as error:
        problems.append(str(error))
    if given.baseline.exists() and not given.update:
        lost = sorted(set(json.loads(given.baseline.read_text())) - set(verified))
        if lost:
            problems.append(f"verified before and not now: {', '.join(map(str, lost))}.")
    elif not problems:
        given.baseline.write_text(json.dumps(verified))
    for problem in problems:
        print(f"failed: {problem}", file=sys.stderr)
    if not problems:
        print(f"passed: {len(verified)} of {result.asked} samples are verified")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
