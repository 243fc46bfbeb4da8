"""The settings of a training."""

from __future__ import annotations

from dataclasses import dataclass

from qverify.errors import UsageError
from qverify.kinds import clipping_range
from qverify.text.escapes import shown


@dataclass(frozen=True)
class Settings:
    """How to train. Shares are of the whole training. Raises UsageError.

    `kappa`: final weight of the nominal loss. `ramp`: share over which the radii grow. `factor`: of the radii trained
    for, 1 for those that will be verified. `weight_limit`: 0 for none. `distortion`: how far images are turned,
    sheared, scaled and moved, 0 for not at all (augmentation.py). `validation`: share of the training samples kept for
    choosing the best epoch. `threads`: 0 for torch's own choice.
    """

    epochs: int = 60
    batch_size: int = 256
    lr: float = 5e-3
    kappa: float = 0.5
    ramp: float = 0.5
    factor: float = 1.0
    weight_limit: float = 1.0
    distortion: float = 0.0
    clip: tuple[float, float] | None = None
    validation: float = 0.05
    seed: int = 0
    device: str = "cpu"
    threads: int = 0

    def __post_init__(self) -> None:
        whole = {"epochs": 1, "batch_size": 1, "seed": 0, "threads": 0}
        for name, least in whole.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
                raise UsageError(f"{name} is {shown(value)}; give a whole number from {least}.")
        limits = {
            "lr": (1e-9, 10.0),
            "kappa": (0.0, 1.0),
            "ramp": (0.0, 1.0),
            "factor": (0.0, 100.0),
            "weight_limit": (0.0, 1e6),
            "distortion": (0.0, 1.0),
            "validation": (0.0, 0.5),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
                raise UsageError(f"{name} is {shown(value)}; give a number from {low:g} to {high:g}.")
        clipping_range(self.clip, UsageError)
