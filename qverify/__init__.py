"""qverify: an exact verifier for neural networks under quantisation.

    network = qverify.load("model.onnx")  # or a .tflite file, or a torch module
    result = qverify.verify(network, x, y, radii=8)
    result.require(0.95)

Notes that the command line prints are warnings here, of the class `QVerifyWarning`.
The names below load what they need when they are first used, so that `import qverify` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qverify.moved import install
from qverify.version import __version__

install()

_HOMES = {
    "load": "library.models",
    "save": "onnx",
    "Network": "network",
    "Radii": "family.radii",
    "Quantiser": "family.steps",
    "verify": "library.verify",
    "verify_property": "library.property",
    "PropertyRow": "properties.samples",
    "Result": "library.result",
    "NotProved": "errors",
    "Options": "verification.verdict",
    "Status": "verification.verdict",
    "Verdict": "verification.verdict",
    "worst_case_discrepancy": "analysis.discrepancies",
    "Discrepancy": "analysis.discrepancies",
    "same_on_runtimes": "runtimes.decide",
    "RuntimeAnswer": "runtimes.decide",
    "RuntimeOptions": "runtimes.decide",
    "QVerifyWarning": "errors",
}

__all__ = [
    "Discrepancy",
    "Network",
    "NotProved",
    "Options",
    "PropertyRow",
    "QVerifyWarning",
    "Quantiser",
    "Radii",
    "Result",
    "RuntimeAnswer",
    "RuntimeOptions",
    "Status",
    "Verdict",
    "__version__",
    "load",
    "same_on_runtimes",
    "save",
    "verify",
    "verify_property",
    "worst_case_discrepancy",
]

if TYPE_CHECKING:
    from qverify.analysis.discrepancies import Discrepancy, worst_case_discrepancy
    from qverify.errors import NotProved, QVerifyWarning
    from qverify.family.radii import Radii
    from qverify.family.steps import Quantiser
    from qverify.library.models import load
    from qverify.library.property import verify_property
    from qverify.library.result import Result
    from qverify.library.verify import verify
    from qverify.network import Network
    from qverify.onnx.reader import save
    from qverify.properties.samples import PropertyRow
    from qverify.runtimes.decide import RuntimeAnswer, RuntimeOptions, same_on_runtimes
    from qverify.verification.verdict import Options, Status, Verdict


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'qverify' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"qverify.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
