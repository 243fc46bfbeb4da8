"""`python -m tests.fuzz --verdicts N --seed S [--minutes M]`: exit status 1 if anything is broken."""

from __future__ import annotations

import argparse
import sys

import torch

from .judge import Tally
from .run import fuzz


def tell(tally: Tally, seconds: float) -> None:
    found = ", ".join(f"{tally.total(s)} {s}" for s in ("verified", "falsified", "unknown", "misclassified"))
    members = sum(tally.members.values())
    print(
        f"{seconds:.0f} s: {tally.total()} verdicts, {found}, {members} members, {len(tally.broken)} broken", flush=True
    )
    for line in tally.broken:
        print("  BROKEN", line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verdicts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    tally = fuzz(given.seed, given.verdicts, 60 * given.minutes, tell)
    for line in tally.lines():
        print(line)
    for reason, count in tally.refused.most_common():
        print(f"not judged, {count} times: {reason}")
    tell(tally, 0.0)
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
