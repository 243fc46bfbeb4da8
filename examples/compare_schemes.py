"""Which scheme and how many bits does a network need? A table of guaranteed accuracies, by bounds alone.

    python compare_schemes.py models/digits.onnx --data digits --bits 4 6 8

Ranges of activations (schemes tensor and channel) are taken from the whole data set.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

import qverify

SCHEMES = (("paper", "any"), ("tensor", "nearest"), ("channel", "nearest"))
"""Schemes with the rounding that each is asked about."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a scheme, a column a number of bits."""
    parser = argparse.ArgumentParser(description="Guaranteed accuracy by scheme and bits.")
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--samples", default="0:100")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 6, 8])
    given = parser.parse_args(arguments)

    network = qverify.load(given.model)
    print(f"{'scheme':<18}" + "".join(f"{f'{bits} bits':>10}" for bits in given.bits))
    for scheme, rounding in SCHEMES:
        shares = []
        for bits in given.bits:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", qverify.QVerifyWarning)  # one may look at them with `qverify inspect`
                result = qverify.verify(
                    network,
                    data=given.data,
                    samples=given.samples,
                    bits=bits,
                    scheme=scheme,
                    rounding=rounding,
                    method="bp",
                )
            shares.append(result.guaranteed_accuracy)
        print(f"{f'{scheme}, {rounding}':<18}" + "".join(f"{share:>10.1%}" for share in shares))
    return 0


if __name__ == "__main__":
    sys.exit(main())
