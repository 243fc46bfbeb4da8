"""What a run says of a quantiser beside its bits, scheme and rounding, for all that state it. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class QuantiserWords:
    """Under the names of options, keys of plans and fields of `family.steps.Quantiser`; None where it is not said.

    `calibration`: the samples, or the integer file, that ranges of activations are taken from.
    """

    kernel: str | None = None
    batchnorm: str | None = None
    weight_bits: int | None = None
    activation_bits: int | None = None
    input_bits: int | None = None
    bias_bits: int | None = None
    points: str | None = None
    input: str | None = None
    activations: str | None = None
    ranges: str | None = None
    calibration: str | None = None
