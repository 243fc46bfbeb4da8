"""Every exception of qverify: one sentence that says what is wrong and what to do about it.

Each also inherits the builtin a caller would expect, so `except ValueError` works without knowing
qverify, and carries the exit status that the command line ends with (design.md, section 10).
"""

from __future__ import annotations


class QVerifyError(Exception):
    """Base of all expected errors. `exit_code` is what `qverify` ends with."""

    exit_code = 2


class ModelError(QVerifyError, ValueError):
    """The model file is missing, damaged, or not a network qverify can read."""


class UnsupportedModel(ModelError, NotImplementedError):
    """The model is valid ONNX but uses something outside the supported subset.

    `problems` lists every one of them, each with the name of its node.
    """

    def __init__(self, source: str, problems: list[str]):
        self.problems = tuple(problems)
        listing = "; ".join(problems)
        super().__init__(f"{source} uses what qverify does not support: {listing}")


class DataError(QVerifyError, ValueError):
    """The samples or labels are missing, damaged, or do not fit the network."""


class RadiiError(QVerifyError, ValueError):
    """The radii are negative, not finite, wrongly shaped, or name a layer that does not exist."""


class UsageError(QVerifyError, ValueError):
    """An argument or a combination of arguments makes no sense."""


class TrainingError(QVerifyError, ArithmeticError):
    """Training came to no good: its loss is no longer finite."""


class OutputError(QVerifyError, OSError):
    """A result cannot be written: the disk is full, or the place is not writable or taken."""


class SolverError(QVerifyError, RuntimeError):
    """A solver or its licence is missing, or the model is too large for it."""

    exit_code = 3


class ModelTooLarge(SolverError):
    """The program exceeds the size limit of the licence found; another solver can go on."""


class WorkerError(QVerifyError, ChildProcessError):
    """Processes that compute cannot be started, or died again where they died before."""


class ClusterError(QVerifyError, ConnectionError):
    """The cluster cannot be reached or used."""


class InternalError(QVerifyError, AssertionError):
    """A check of qverify against itself failed: a result must not be trusted. Please report it."""

    exit_code = 4
