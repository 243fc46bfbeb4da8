"""Samples and labels: the digits that ship with qverify, three other sets by name, and any `.npz`.

Every array is checked when it is read, so that nothing further down has to: what `load` returns is
finite, of one shape, and labelled by integers >= 0. `data_sources` knows where the named sets lie,
`data_files` how they are stored.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.datasets import formats as data_files
from qverify.datasets import sources as data_sources
from qverify.errors import DataError, UsageError
from qverify.files.user import did_you_mean, shown_path
from qverify.kinds import NETWORK, SAMPLES, described, expected, is_number, path_like
from qverify.network import Network
from qverify.parts import joined
from qverify.text.brief import Brief
from qverify.text.shortened import listed, quoted, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.parts import Part

Array = np.ndarray[Any, np.dtype[np.float64]]
Labels = np.ndarray[Any, np.dtype[np.int64]]

NAMES = ("digits", *data_sources.LAYOUTS)
"""The data sets that `load` and `load_train` know by name."""

_DIGITS = Path(__file__).resolve().parent / "digits.npz"


@dataclass(frozen=True, eq=False, repr=False)
class Samples(Brief):
    """N labelled samples: x (N, *shape) float64, y (N,) int64 >= 0.

    `sha256` is that of the whole file read, whatever was selected from it since. Where a split lies in several
    files, it is that of their contents joined: IDX images, then labels; CIFAR batches by their numbers. `source`
    says where the file or the folder of files lay.
    """

    name: str
    x: Array
    y: Labels
    sha256: str
    source: str

    def __post_init__(self) -> None:
        x, y = (isinstance(one, np.ndarray) and one.ndim > 0 for one in (self.x, self.y))
        if not (x and y and self.x.dtype == np.float64 and self.y.dtype == np.int64 and len(self.x) == len(self.y)):
            raise DataError(
                f"The samples are {described(self.x)} with labels {described(self.y)}; give arrays (N, ...) float64 and"
                " (N,) int64."
            )

    def __len__(self) -> int:
        return len(self.y)

    @functools.cached_property
    def arrays_sha256(self) -> str:
        """sha256 of x and y themselves: one file may be read in several ways (`load`)."""
        digest = hashlib.sha256(repr(self.x.shape).encode())
        for array in (self.x, self.y):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.x.shape[1:])


def load(name_or_path: str | os.PathLike[str], parts: Sequence[Part] | None = None) -> Samples:
    """The samples to verify: the test split of one of `NAMES`, or the path of an `.npz`.

    The `.npz` holds `x_test, y_test` or, failing these, `x, y`; labels are (N,) or (N, 1). For a network of several
    inputs, whose `Network.parts` are given as `parts`, it may hold an array for each by its name, beside `y_test` or
    `y`: the samples are these joined. Integer pixels (0 to 255) are divided by 255, those of `digits` (0 to 16) by 16;
    floats are taken as they are. Images of `cifar10` are (3, 32, 32); a `cifar10.npz` whose colours come last is
    transposed, an `.npz` given by its path is not.

    Raises DataError if the file is missing, damaged, or holds anything but finite samples and labels.
    """
    return _read(name_or_path, train=False, parts=parts)


def load_at(name: str, path: Path) -> Samples:
    """The test split of a named data set that lies at `path`, as `load(name)` reads it. Raises DataError."""
    for _, stored in data_sources.LAYOUTS[name]:
        if stored.present(path):
            return _checked(name, stored.read(path, False), str(path))
    raise DataError(f"{path} does not hold {name}; name the place where it lies.")


def load_train(name_or_path: str | os.PathLike[str]) -> Samples:
    """The samples to train on: the training split, which for `NAMES` shares no sample with that of `load`; of an `.npz`
    `x_train, y_train`. Raises DataError as `load` does."""
    return _read(name_or_path, train=True)


def scaled(samples: Samples, factor: float | None) -> Samples:
    """The samples with their inputs multiplied by a factor above 0; None changes nothing. Raises UsageError."""
    expected(samples, Samples, "The data set", SAMPLES, DataError)
    if factor is None:
        return samples
    if not is_number(factor) or not 0 < factor < math.inf:
        raise UsageError(f"The factor on the inputs is {described(factor)}; give a number above 0, such as 1/255.")
    with np.errstate(over="ignore"):
        x = samples.x * factor
    if not np.isfinite(x).all():
        raise UsageError(f"The factor on the inputs is {factor:g}, with which they overflow; give a smaller one.")
    return replace(samples, x=x)


def select(samples: Samples, text: str | None) -> tuple[Samples, range]:
    """The samples `A:B` (from A up to but without B, counted from 0), or the first `N`, and their indices; None
    selects all.

    Either number may be left out. Raises UsageError if `text` is not such a range, is empty, reversed or
    negative, and DataError if it reaches beyond the set.
    """
    expected(samples, Samples, "The data set", SAMPLES, DataError)
    expected(text, (str, NoneType), "The sample range", 'text such as "0:100"')
    size = len(samples)
    if text is None:
        return samples, range(size)
    what = f"The sample range {quoted(text)}"
    if re.fullmatch(r"\s*-\s*\d+\s*(:.*)?|[^:]*:\s*-\s*\d+\s*", text, re.ASCII):
        raise UsageError(f"{what} is negative; count from 0, for example 0:{size}.")
    match = re.fullmatch(r"(?:\s*(\d{0,18})\s*:)?\s*(\d{0,18})\s*", text, re.ASCII)
    if match is None or not (":" in text or match[2]):
        raise UsageError(f"{what} is not of the form A:B; write for example 0:{size}, or N for the first N samples.")
    start, stop = int(match[1] or 0), int(match[2] or size)
    if start >= size or stop > size:
        raise DataError(f"{what} reaches beyond {samples.name}, which has {size} samples (0:{size}).")
    if start >= stop:
        raise UsageError(f"{what} is empty; the first number must be smaller than the second, as in 0:{size}.")
    return replace(samples, x=samples.x[start:stop], y=samples.y[start:stop]), range(start, stop)


def flatten(samples: Samples, network: Network) -> Array:
    """The samples as (N, n_in) for `network`.

    Axes of length 1 do not matter, and neither does flattening in C order: (28, 28) fits (1, 28, 28) and
    (784,). Axes in another order are refused although the number of elements agrees, because reshaping
    would scramble every image. Raises DataError.
    """
    expected(samples, Samples, "The data set", SAMPLES, DataError)
    expected(network, Network, "The network", NETWORK, DataError)
    have, want = samples.shape, network.input_shape
    if samples.x[0].size != network.input_size:
        names = listed([quoted(part.name) for part in network.parts or ()], 5)
        way = f"give one array for each of its inputs, {names}" if names else "use its data"
        raise DataError(f"The samples of {samples.name} have shape {have}, but the network reads {want}; {way}.")
    core, wanted_core = ([n for n in shape if n != 1] for shape in (have, want))
    if core != wanted_core and len(core) > 1 and len(wanted_core) > 1:
        raise DataError(
            f"The samples of {samples.name} have shape {have}, but the network reads {want};"
            f" bring the axes into its order{_transposition(have, want)}."
        )
    return samples.x.reshape(len(samples), network.input_size)


def _transposition(have: tuple[int, ...], want: tuple[int, ...]) -> str:
    """The advice to bring colours from the end to the front, or the other way round; empty where that does not help."""
    axes = tuple(range(1, len(have) + 1))
    for order in ((axes[-1], *axes[:-1]), (*axes[1:], axes[0])):
        if tuple(have[axis - 1] for axis in order) == want:
            return f", by x.transpose{(0, *order)}"
    return ""


def fit(samples: Samples, network: Network) -> tuple[Array, Labels]:
    """The samples flattened for `network`: x (N, n_in) and y (N,).

    Raises DataError as `flatten` does, and if a label has no output or there is no rival output.
    """
    x = flatten(samples, network)
    largest = int(samples.y.max())
    if network.output_size < 2:
        logit = (
            ": where the sign of one number z tells two classes apart, give the last layer two outputs, -z and z, by"
            " its weights and biases with both signs"
        )
        raise DataError(
            f"The network has {network.output_size} output; a classifier needs at least 2{logit if largest else ''}."
        )
    if largest >= network.output_size:
        raise DataError(
            f"The largest label of {samples.name} is {largest}, but the network has {network.output_size} outputs;"
            " labels count from 0."
        )
    return x, samples.y


def _read(name_or_path: str | os.PathLike[str], train: bool, parts: Sequence[Part] | None = None) -> Samples:
    path_like(name_or_path, "The data set", f"{', '.join(map(repr, NAMES))}, or the path of an .npz file", DataError)
    name = os.fspath(name_or_path)
    if name == "digits":
        return _checked(name, data_files.read_npz(_DIGITS, train), "shipped with qverify", 16)
    if name in NAMES:
        path, stored = data_sources.find(name)
        return _checked(name, stored.read(path, train), str(path))
    path = Path(name)
    if path.suffix != ".npz" and _is_missing(path):
        several = "; a plan for `qverify batch` takes several" if "," in name else ""
        raise DataError(
            f"There is no data set or file {shown_path(name)!r}; name {', '.join(map(repr, NAMES))}, or the path of"
            f" an .npz file{did_you_mean(path)}{several}."
        )
    inputs = tuple(part.name for part in parts or ())
    return _checked(shortened(path.stem), data_files.read_npz(path, train, inputs), str(path), parts=parts)


def _is_missing(path: Path) -> bool:
    try:
        return not path.exists()
    except OSError:  # its folder may not be searched, or the name is too long; reading the file says so
        return False


def _checked(
    name: str, raw: data_files.RawSamples, source: str, scale: int = 255, parts: Sequence[Part] | None = None
) -> Samples:
    """Check one pair of arrays; `scale` is what integer pixels are divided by, and their largest value."""
    if parts is not None and raw.named is not None:
        arrays = {part.name: _part(part, raw.named[part.name], shown_path(raw.path), scale) for part in parts}
        x = joined(parts, arrays, f"The samples of {shown_path(raw.path)}")
    else:
        x = real_numbers(raw.x_name, raw.x, scale)
    y = class_numbers(raw.y_name, raw.y)
    if len(x) != len(y):
        shown = shown_path(raw.path)
        raise DataError(f"{shown} holds {len(x)} samples but {len(y)} labels; store one label for each sample.")
    return Samples(name, x, y, raw.sha256, source)


def real_numbers(what: str, x: Any, scale: int) -> Array:
    """(N, *shape) of any real number type -> float64."""
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "uifb":
        raise DataError(f"{what} is not an array of real numbers; store floats, or integers from 0 to {scale}.")
    if x.ndim < 2:
        raise DataError(f"{what} has shape {x.shape}; store the samples along the first of at least two axes.")
    if not x.size:
        raise DataError(f"{what} is empty, of shape {x.shape}; store at least one sample.")
    if x.dtype.kind in "ui":
        if x.min() < 0 or x.max() > scale:
            raise DataError(
                f"{what} holds integers from {x.min()} to {x.max()}, but integer pixels go from 0 to {scale};"
                " store floats in the units of the network."
            )
        values = x.astype(np.float64)
        values /= scale  # in place: CIFAR-10 takes more than a gigabyte
        return values
    values = x.astype(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        first = tuple(int(i) for i in bad[0])
        raise DataError(f"{what} holds {len(bad)} NaN or infinite values, the first at index {first}; repair the data.")
    return values


def _part(part: Part, x: Any, shown: str, scale: int) -> Array:
    """The array of one of several inputs; of one number a sample also (N,)."""
    column = isinstance(x, np.ndarray) and x.ndim == 1 and part.size == 1
    return real_numbers(f"{shortened(part.name)} of {shown}", x[:, None] if column else x, scale)


def class_numbers(what: str, y: Any) -> Labels:
    """(N,) or (N, 1) of any integer type -> (N,) int64."""
    if isinstance(y, np.ndarray) and y.shape[1:] == (1,):
        y = y[:, 0]
    if isinstance(y, np.ndarray) and y.ndim != 1 and y.dtype.kind in "uifb":
        how = ": y.argmax(1)" if _is_one_hot(y) else ""
        raise DataError(
            f"{what} has shape {y.shape}; store one class number for each sample (argmax, if one-hot){how}."
        )
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "ui":
        kind = y.dtype if isinstance(y, np.ndarray) else type(y).__name__
        whole = isinstance(y, np.ndarray) and y.dtype.kind == "f" and bool((y == np.rint(y)).all())
        how = ", here y.astype(int)" if whole else ""
        raise DataError(f"{what} is of type {kind}; labels must be integers that number the classes from 0{how}.")
    labels = y.astype(np.int64)
    if len(labels) and labels.min() < 0:
        first = int(np.argmax(labels < 0))
        raise DataError(f"{what} holds the negative label {labels[first]} at index {first}; number the classes from 0.")
    return labels


def _is_one_hot(y: Any) -> bool:
    """Whether each row (N, classes) is 0 but for one 1."""
    return bool(y.ndim == 2 and len(y) and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all())
