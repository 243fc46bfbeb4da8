"""`qverify.verify`: the verdicts on samples, whatever form model, samples and radii have."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify import datasets
from qverify.arrays import numbers
from qverify.console.progress import Pace, Progress
from qverify.datasets import Samples
from qverify.errors import DataError, UsageError
from qverify.family.radii import Radii
from qverify.library.models import is_module, network_of
from qverify.library.result import About, Result
from qverify.library.words import METHOD, check_words, given_of, in_python
from qverify.network import Network
from qverify.runs.problem import FamilyProblem, Problem
from qverify.text.shortened import listed
from qverify.verification import cascade
from qverify.verification.arguments import callbacks, checked, label_array
from qverify.verification.tally import Tally
from qverify.verification.verdict import Options, Verdict

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    import onnx
    import torch
    from typing_extensions import Unpack

    from qverify.library.words import Words
    from qverify.runs.given import Given

_DATA = "the data"
"""What samples are called that came without a name."""
_EVERY = 2.0
"""Seconds between two plain lines of progress; a notebook shows them as they come."""


def verify(
    network: str | os.PathLike[str] | onnx.ModelProto | torch.nn.Module | Network,
    x: Any = None,
    y: Any = None,
    radii: Radii | int | str | os.PathLike[str] | None = None,
    options: Options | None = None,
    on_verdict: Callable[[Verdict], None] | None = None,
    stop: threading.Event | None = None,
    **words: Unpack[Words],
) -> Result:
    """The verdict on every sample: whether all members of its quantised family answer right.

    `network`: a path, an ONNX model, a torch module (its shape is that of the samples), or a `Network`. Samples: x (N,
    *input_shape) or (N, n_in) with y (N,) integers, of a model with several inputs also a dictionary of their arrays
    (N, ...) by name; or x alone, `datasets.Samples`, a name or the path of an .npz, also
    as `data`. `radii`: `Radii`, a number of bits, "W8A8", or the path of a radii file; none for a model that is
    quantised already. Further keywords are the options of `qverify verify` (words.py), all resolved as there; method,
    limits and the like may come as `options` instead. `progress=True` tells on stderr how far it is.

    `on_verdict` is called in this thread as soon as a sample is decided, in any order; the result is a list in the
    order of the samples, and knows more (result.py). `index` counts from the first sample of the data, also with
    `samples="20:40"`. Setting `stop` from another thread ends the run soon, and the result then holds what was decided.

    `verified` is proved up to the trust in the solver's bound (decide.py); `falsified` comes with a member that a
    plain float64 forward pass misclassifies. What a person should know before believing it, such as data in wrong
    units, is a QVerifyWarning. Raises ModelError, DataError, RadiiError, UsageError, SolverError, InternalError.
    """
    options = _given_options(options, words)
    callbacks(stop, on_verdict=on_verdict)
    asked = _asked(network, x, y, radii, dict(words), options)
    pace = Pace(len(asked.y), asked.options.method in ("auto", "exact"))
    tally, progress = Tally(), None
    if words.get("progress"):
        progress = Progress(pace, tally.lines, _EVERY)
    first, began = asked.about.asked.start, time.perf_counter()

    def tell(verdict: Verdict) -> None:
        tally.add(verdict.row())
        if on_verdict is not None:
            on_verdict(replace(verdict, index=first + verdict.index) if first else verdict)
        if progress is not None:
            progress.add(verdict.index, verdict.method == "exact")

    with progress or nullcontext():
        found = cascade.verify(asked.network, asked.x, asked.y, asked.radii, asked.options, tell, stop)
    if first:
        found = [replace(verdict, index=first + verdict.index) for verdict in found]
    return Result(found, replace(asked.about, seconds=time.perf_counter() - began))


class _Asked:
    """All that the cascade needs, and what the result says of it."""

    def __init__(self, network: Network, samples: tuple[Any, Any], radii: Radii, options: Options, about: About):
        self.network, self.radii, self.options, self.about = network, radii, options, about
        self.x, self.y = samples


def _given_options(options: Options | None, words: Any) -> Options | None:
    check_words(words, "qverify.verify")
    found = None if options is None else Options.given(options)
    if found is not None and (twice := [name for name in METHOD if name in words]):
        raise UsageError(f"options and {listed(twice)} both say how to verify; give one of them.")
    return found


def _asked(model: Any, x: Any, y: Any, radii: Any, words: dict[str, Any], options: Options | None) -> _Asked:
    """Everything resolved. Raises what is wrong with it."""
    if isinstance(model, Network) and isinstance(radii, Radii) and not words.keys() - {"progress"} and y is not None:
        flat, labels = checked(model, x, y)
        options = Options.given(options)
        about = About(model, radii, _DATA, range(len(labels)), options)
        return _Asked(model, (flat, labels), radii, options, about)
    given = given_of(words, radii)
    if is_module(model):  # which reads what the samples are
        everything = _samples(x, y, given, None)
        network = network_of(model, everything.shape, given.output)
    else:
        network = network_of(model, (), given.output)
        everything = _samples(x, y, given, network)
    given = replace(given, model=network.source, data=everything.name)
    if options is not None:
        given = replace(given, clip_input=options.clip)
    with in_python():
        options = options or given.options()
        if isinstance(radii, Radii):
            problem: Problem = Problem.of(given, network, everything)
        else:
            problem = FamilyProblem.of(given, network, everything)
            radii = problem.radii
    about = About(network, radii, everything.name, problem.indices, options)
    return _Asked(network, (problem.inputs(), problem.samples.y), radii, options, about)


def _samples(x: Any, y: Any, given: Given, network: Network | None) -> Samples:
    """The whole data set for a network, or for a module, its inputs scaled as asked. Raises DataError, UsageError."""
    if given.data is not None and x is not None:
        raise UsageError("x and data exclude each other; give the samples once.")
    data, scale = x if given.data is None else given.data, given.input_scale
    if isinstance(data, (str, os.PathLike, Samples)):
        if y is not None:
            raise UsageError("y goes with an array x; a data set has its own labels, so leave it out.")
        parts = None if network is None else network.parts
        return datasets.scaled(data if isinstance(data, Samples) else datasets.load(data, parts), scale)
    if x is None or y is None:
        raise UsageError("The samples are missing; give x and y, or data, such as data='digits'.")
    x = numbers(x, "The samples") if network is None else network.joined(x)
    labels = label_array(y)
    labels = labels[:, 0] if labels.shape[1:] == (1,) else labels
    if x.ndim < 2 or not x.size or not np.isfinite(x).all():
        raise DataError(f"The samples have shape {x.shape}; give (N, ...), at least one, finite numbers.")
    if labels.shape != (len(x),) or labels.dtype.kind not in "ui" or (labels < 0).any() or (labels >= 2**31).any():
        raise DataError(
            f"The labels have shape {labels.shape} and type {labels.dtype}; give ({len(x)},) integers from 0."
        )
    return datasets.scaled(Samples(_DATA, x, labels.astype(np.int64), "", "memory"), scale)
