"""The words that options take, each list once. Imports nothing: `--help` and `qverify.Options` wait for nothing.

The types are for annotations; the tuples are what is checked and offered, in the order in which it is offered.
"""

from __future__ import annotations

from typing import Literal, get_args

Scheme = Literal["paper", "tensor", "channel"]
"""What a number of bits means (family/schemes.py)."""
Rounding = Literal["nearest", "any", "float32", "single", "double", "truncate"]
"""Which rounding is covered: half a step, or a whole one; or the rule by which runtimes round (family/rules.py)."""
RuntimeRule = Literal["float32", "single", "double"]
"""By which rules a runtime may requantise each tensor of a quantised file (runtimes/rules.py)."""
KernelMode = Literal["exact-accumulation", "any"]
"""Which integer kernels are covered (family/kernels.py)."""
Batchnorm = Literal["folded", "separate", "either"]
"""What toolchains do with a BatchNormalization (family/batchnorm.py)."""

Places = Literal["activations", "onnxruntime", "tflite"]
"""Where the rounding points of schemes `tensor` and `channel` stand (family/schemes.py)."""
InputRounding = Literal["rounded", "exact"]
"""Whether inputs are rounded, or lie on their grid already."""
Activations = Literal["asymmetric", "symmetric"]
"""Whether activations have a zero point."""
RangeMethod = Literal["minmax", "percentile", "entropy"]
"""How ranges are taken from calibration data (family/ranges.py)."""

SCHEMES: tuple[str, ...] = get_args(Scheme)
PER_CHANNEL = {"tensor": False, "channel": True}
"""The schemes that take their steps from ranges: whether weights have one step a channel, or one a tensor."""
RANGED = tuple(PER_CHANNEL)
ROUNDINGS: tuple[str, ...] = get_args(Rounding)
PLAIN_ROUNDINGS = ROUNDINGS[:2]
"""Those of scheme `paper` and of training, which know no runtimes."""
FILE_ROUNDING = "float32"
"""The rule of the runtimes of a quantised file, unless another is named."""
RUNTIME_RULES: tuple[str, ...] = get_args(RuntimeRule)
DYNAMIC_RULES = ("nearest", "float32")
"""The rules of runtimes of dynamically quantised files."""
KERNELS: tuple[str, ...] = get_args(KernelMode)
BATCHNORMS: tuple[str, ...] = get_args(Batchnorm)
POINTS: tuple[str, ...] = get_args(Places)
INPUTS: tuple[str, ...] = get_args(InputRounding)
ACTIVATIONS: tuple[str, ...] = get_args(Activations)
RANGES: tuple[str, ...] = get_args(RangeMethod)
QUANTISER = (
    *("scheme", "rounding", "kernel", "batchnorm", "weight_bits", "activation_bits", "input_bits", "bias_bits"),
    *("points", "input", "activations", "ranges"),
)
"""What is said of a quantiser beside its bits: options, keys of plans, fields of `family.steps.Quantiser`."""
KINDS = ("input", "weight", "bias", "activation")
"""What has a radius."""

BOUNDS = ("ibp", "bp", "bp-layers", "bp-optimised", "bp-branched")
"""Stages that prove by bounds alone, each after those before it."""
VERIFY_METHODS = ("auto", *BOUNDS, "exact")
"""Also of sweeps and batches."""
FACTOR_METHODS = ("auto", "ibp", "bp")
"""How the largest factor on the radii is searched."""
DISCREPANCY_METHODS = ("ibp", "bp", "bp-optimised", "exact")
UNSTABLE_METHODS = ("ibp", "bp")
"""How unstable neurons are counted."""
FORMULATIONS = ("relational", "bilinear")
SOLVERS = ("highs", "gurobi", "scip")
SOLVER_CHOICES = ("auto", *SOLVERS)
PROVING = (*BOUNDS, "ties", "halving")
"""Stages whose proofs are bounds alone."""
FALSIFYING = ("attack", "ties", "halving", "exact")
"""Stages that find members which fail."""
STAGES = ("forward", "ibp", "attack", "ties", *BOUNDS[1:], "halving", "exact")
"""What decides a sample, in order."""
