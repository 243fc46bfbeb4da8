"""Every exception of qverify: one sentence that says what is wrong and what to do about it.

Each also inherits the builtin a caller would expect, so `except ValueError` works without knowing
qverify, and carries the exit status that the command line ends with (formats.md, section 14).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qverify.text.shortened import SENTENCE, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

_KINDS, _PROBLEM, _MESSAGE = 10, 400, 2000
"""How many kinds of problems a message names, and how many characters one of them and the whole message may have."""


class QVerifyError(Exception):
    """Base of all expected errors. `exit_code` is what `qverify` ends with."""

    exit_code = 2


class QVerifyWarning(UserWarning):
    """A remark on a network, on data or radii that a person should see before believing a result."""


class ModelError(QVerifyError, ValueError):
    """The model file is missing, damaged, or not a network qverify can read."""


class UnsupportedModel(ModelError, NotImplementedError):
    """The model is valid but uses something outside the supported subset.

    `problems` has a sentence a kind of problem, with the name of the first node that has it. The message lists as many
    kinds as fit, then `supported`, what may be used instead: a model is not to flood a terminal.
    """

    def __init__(self, source: str, problems: Sequence[str], supported: Sequence[str] = ()):
        self.source = shortened(source, SENTENCE)
        self.problems = tuple(shortened(problem, _PROBLEM) for problem in problems)
        self.supported = tuple(supported)
        super().__init__(source, self.problems, self.supported)

    def __str__(self) -> str:
        begin = f"{self.source} uses what qverify does not support: "
        end = f"; supported are {', '.join(self.supported)}" if self.supported else ""
        room, shown = _MESSAGE - len(begin) - len(end) - len(_more(len(self.problems))), 0
        for problem in self.problems[:_KINDS]:
            room -= len(problem) + len("; ")
            shown += room >= 0
        return f"{begin}{'; '.join(self.problems[:shown])}{_more(len(self.problems) - shown)}{end}"


def _more(kinds: int) -> str:
    return f"; and {kinds} more kinds" if kinds > 1 else "; and one more kind" if kinds else ""


class DataError(QVerifyError, ValueError):
    """The samples or labels are missing, damaged, or do not fit the network."""


class RadiiError(QVerifyError, ValueError):
    """The radii are negative, not finite, wrongly shaped, or name a layer that does not exist."""


class UsageError(QVerifyError, ValueError):
    """An argument or a combination of arguments makes no sense."""


class TrainingError(QVerifyError, ArithmeticError):
    """Training has failed: its loss is no longer finite."""


class OutputError(QVerifyError, OSError):
    """A result cannot be written: the disk is full, or the place is not writable or taken."""


class SolverError(QVerifyError, RuntimeError):
    """A solver or its licence is missing, or the model is too large for it."""

    exit_code = 3


class ModelTooLarge(SolverError):
    """The program exceeds the size limit of the licence found; another solver can go on."""


class PackageMissing(QVerifyError, ImportError):
    """A package that is an optional extra is needed and cannot be imported."""

    exit_code = 3


class WorkerError(QVerifyError, ChildProcessError):
    """Processes that compute cannot be started, or died again where they died before."""


class ClusterError(QVerifyError, ConnectionError):
    """The cluster cannot be reached or used."""


class NotProved(QVerifyError, AssertionError):
    """Less is proved than was required (`Result.require`). The result itself is sound."""

    exit_code = 1


class InternalError(QVerifyError, AssertionError):
    """A check of qverify against itself failed: a result must not be trusted. Please report it."""

    exit_code = 4
