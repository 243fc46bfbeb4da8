"""`qverify.verify_property`: does a property of the outputs hold over a quantised family?"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.arrays import numbers
from qverify.datasets.regions import Regions, load_regions, regions_of
from qverify.errors import DataError, UsageError
from qverify.family.radii import Radii
from qverify.kinds import described
from qverify.library.models import network_of
from qverify.library.words import check_words, given_of, in_python
from qverify.properties.kinds import Holds, Property
from qverify.properties.reading import read_property
from qverify.properties.samples import PropertyRow, decide_subjects
from qverify.runs.property import PropertyProblem

if TYPE_CHECKING:
    import onnx
    import torch
    from typing_extensions import Unpack

    from qverify.library.words import Words
    from qverify.network import Network

_DATA = "the data"


def verify_property(
    network: str | os.PathLike[str] | onnx.ModelProto | torch.nn.Module | Network,
    wanted: Property | str | os.PathLike[str],
    x: Any = None,
    y: Any = None,
    radii: Radii | int | str | os.PathLike[str] | None = None,
    stop: threading.Event | None = None,
    **words: Unpack[Words],
) -> list[PropertyRow]:
    """A row for every sample, or box of inputs: whether all members of its quantised family have a property.

    `wanted`: a property of `qverify.properties.kinds`, the comparisons of a formula as text, such as
    "y[label] - y[3] >= 0.5", or the path of a property file, which may have boxes of its own. What it is asked about:
    samples x (N, *input_shape), boxes as a pair of their lower and upper ends, each of that shape, or the name or path
    of a data set; y: labels (N,) or targets (N, count), where the property is about them. Radii and keywords are those
    of `qverify.verify`. Setting `stop` from another thread ends it soon, with the rows that are there.

    `holds` is proved for all members, up to the trust in the solver's bound; `violated` is shown by one in a plain
    float64 forward pass. Raises ModelError, DataError, RadiiError, UsageError, SolverError, InternalError.
    """
    check_words(words, "qverify.verify_property")
    given = given_of({name: value for name, value in words.items() if name != "progress"}, radii)
    asked, boxes = _property(wanted)
    if boxes is not None and (x is not None or given.data is not None):
        raise UsageError("The property file has boxes of its own; leave x and data out.")
    everything = _regions(x, y, given.data, given.input_scale) if boxes is None else boxes
    read = network_of(network, everything.shape, given.output)
    given = replace(given, model=read.source, data=everything.name)
    rows: list[PropertyRow] = []
    with in_python():
        stated = radii if isinstance(radii, Radii) else None
        problem = PropertyProblem.of(given, read, everything, asked, stated)
        family, first = problem.family, problem.family.indices.start
        decide_subjects(
            family.network,
            problem.subjects,
            family.radii,
            asked,
            family.options(),
            lambda row: rows.append(replace(row, index=first + row.index)),
            threading.Event() if stop is None else stop,
        )
    return rows


def _property(wanted: Any) -> tuple[Property, Regions | None]:
    if isinstance(wanted, os.PathLike) or (isinstance(wanted, str) and Path(wanted).suffix == ".toml"):
        return read_property(os.fspath(wanted))
    if isinstance(wanted, str):
        return Holds(((wanted,),)), None
    if not all(callable(getattr(wanted, name, None)) for name in ("clauses", "words")):
        raise UsageError(
            f"The property is {described(wanted)}; give one of qverify.properties.kinds, a formula as text, or the path"
            " of a property file."
        )
    return wanted, None


def _regions(x: Any, y: Any, data: Any, factor: float | None) -> Regions:
    if data is not None and x is not None:
        raise UsageError("x and data exclude each other; give the samples once.")
    if x is None and data is None:
        raise UsageError("The samples are missing; give x, or data, such as data='digits'.")
    named = x if data is None else data
    if isinstance(named, (str, os.PathLike)):
        if y is not None:
            raise UsageError("y goes with an array x; a data set has its own, so leave it out.")
        return load_regions(named, factor)
    ends = list(x) if isinstance(x, tuple) else [x]
    if len(ends) not in (1, 2):
        raise DataError(
            f"The inputs are a tuple of {len(ends)}; give an array, or the pair of a box's lower and upper ends."
        )
    if factor is not None:
        raise UsageError("input_scale multiplies the inputs of a data set; scale arrays yourself.")
    about = None if y is None else np.asarray(numbers(y, "y"))
    if about is not None and np.asarray(y).dtype.kind in "ui":
        about = np.asarray(y)
    return regions_of(_DATA, [numbers(end, "The inputs") for end in ends], about)
