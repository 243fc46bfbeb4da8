"""Train two small networks on digits, normally and on the bounds that verify, and compare what can be proved of them.

    python robust_training.py --epochs 20 --bits 6

A toy: `qverify train` has all settings, and goes on after an interruption.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import qverify
from qverify import datasets
from qverify.training import Settings, Training


def module() -> nn.Module:
    """A network of one hidden layer, always with the same first weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, verify and print a line a network; the robust one is written to --out."""
    parser = argparse.ArgumentParser(description="Normal and robust training, side by side.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--bits", type=int, default=6)
    parser.add_argument("--samples", default="0:200")
    parser.add_argument("--out", type=Path, default=Path("robust.onnx"))
    given = parser.parse_args(arguments)

    samples, settings = datasets.load_train("digits"), Settings(epochs=given.epochs, batch_size=100)
    for name, stated in (("normal", None), ("robust", qverify.Quantiser(given.bits))):
        network = Training.of(module(), samples.shape, stated, settings).run(samples)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", qverify.QVerifyWarning)
            result = qverify.verify(network, "digits", radii=given.bits, samples=given.samples, method="bp")
        print(f"{name}: clean {result.clean_accuracy:.1%}, guaranteed {result.guaranteed_accuracy:.1%}")
    qverify.save(network, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
