"""`python -m tests.matrix --inferences N [--share S] [--only NAMES] [--every K]`: status 1 if anything is broken."""

from __future__ import annotations

import argparse
import sys
import warnings

from .run import matrix


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inferences", type=int, default=100_000)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--only")
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    tally = matrix(given.inferences, given.share, lambda line: print(line, flush=True), given.only, given.every)
    for line in tally.lines():
        print(line)
    for line in tally.broken:
        print("BROKEN", line)
    for reason, count in tally.refused.most_common():
        print(f"refused, {count} times: {reason}")
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
