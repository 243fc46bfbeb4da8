"""Every form in which `quantize_static` writes a file: 8 and 16 bits, both formats, all calibrators, prepared or not.

Pairs of choices all occur, not all of their combinations.
"""

from __future__ import annotations

from dataclasses import replace

from qverify.family.steps import Quantiser
from tests.support.toolchain import COARSE, FORMS, Form

CALIBRATIONS = ("MinMax", "Entropy", "Percentile")
METHODS = {"MinMax": "minmax", "Entropy": "entropy", "Percentile": "percentile"}
_CENTRED = [replace(form, centred=True) for form in FORMS if form.activation in ("QUInt8", "QUInt16")]


def all_forms() -> list[Form]:
    """All combinations of format, axis, types and symmetries; calibrators and pre-processing go round among them, so
    that each meets every format, axis, width and symmetry of activations."""
    kinds = [*FORMS, *COARSE, *_CENTRED]
    found = []
    for number, form in enumerate(kinds):
        found.append(replace(form, prepared=number % 2 == 1, calibration=CALIBRATIONS[number % 3]))
    for calibration in CALIBRATIONS:
        for prepared in (False, True):
            kinds = [Form(), Form(channel=False), Form("QOperator"), Form(activation="QInt8", centred=True)]
            found += [replace(kind, prepared=prepared, calibration=calibration) for kind in kinds]
    return list(dict.fromkeys(found))


def quantiser_of(form: Form) -> Quantiser:
    """The quantiser that says what a form does, as a user would state it."""
    return Quantiser(
        form.bits,
        "channel" if form.channel else "tensor",
        "nearest",
        batchnorm="folded" if form.prepared else "separate",
        weight_bits=form.bits - 1 if form.reduced else None,
        points="onnxruntime",
        activations="symmetric" if form.centred else "asymmetric",
        ranges=METHODS[form.calibration],
    )
