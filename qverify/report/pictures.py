"""Falsified samples as pictures: the sample, and the witness's input with what the witness answers.

Where a run kept no witness, one is sought again by attack for as many samples as are shown; a network that fails is
one whoever finds it, and what it answers is evaluated here either way.
"""

from __future__ import annotations

import base64
import struct
import zipfile
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify import datasets
from qverify.errors import DataError, QVerifyError
from qverify.files.paths import inside
from qverify.network import margins
from qverify.report import replay
from qverify.report.sources import Sources, clipping, same_radii
from qverify.runs.verify import WITNESSES
from qverify.text.brief import Brief
from qverify.verification.cascade import verdicts
from qverify.verification.row import Row, Status
from qverify.verification.verdict import Options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qverify.arrays import Array
    from qverify.runs.reading import StoredCase

MOST = 60
"""Pictures on one page, shared among its cases."""

_WIDEST = 64
_SLACK = 1e-7
"""How far the margins that two programs evaluate may be apart, as a part of the largest output."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of a witness, evaluated afresh on its own input: a class, and the margin of the true one over others.

    `again`: the run kept none, and another attack found it. `recorded`: the margin that the run kept for it, where
    that is another one.
    """

    picture: str
    predicted: int
    margin: float
    again: bool = False
    recorded: float | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A falsified sample; `picture` is a data URI. `answer` is None where no whole witness was kept or found again.

    `damaged`: a witness was kept, and cannot be believed.
    """

    row: Row
    picture: str
    answer: Answer | None
    damaged: bool = False


@dataclass(frozen=True, repr=False)
class Gallery(Brief):
    """The pictures of one case, out of `falsified` samples; `missing` says why there are fewer than that."""

    case: StoredCase
    falsified: int
    pictures: list[Picture]
    missing: str = ""


def galleries(cases: Sequence[StoredCase], sources: Sources) -> list[Gallery]:
    """The galleries of cases with falsified samples, at most `MOST` pictures in all: witnesses first, worst first."""
    found = [(case, [row for row in case.rows if row.status is Status.FALSIFIED]) for case in cases]
    found = [(case, rows) for case, rows in found if rows]
    shares, left = [0] * len(found), MOST
    by_need = sorted(range(len(found)), key=lambda k: len(found[k][1]))
    for done, k in enumerate(by_need):  # what a case does not need is left to the others
        shares[k] = min(len(found[k][1]), left // (len(found) - done))
        left -= shares[k]
    return [_gallery(case, rows, share, sources) for (case, rows), share in zip(found, shares, strict=True)]


def _gallery(case: StoredCase, rows: list[Row], most: int, sources: Sources) -> Gallery:
    def place(row: Row) -> tuple[bool, float]:
        return not _kept(case, row.index), row.margin_upper or 0.0

    try:
        samples = sources.samples(case)
    except DataError as error:
        return Gallery(case, len(rows), [], f"No pictures: {str(error).rstrip('.')}.")
    if _pixels(samples.x[0]) is None:
        return Gallery(case, len(rows), [], f"No pictures: samples of shape {samples.shape} are no images.")
    pictures, damaged, strange = [], [], False
    for row in sorted(rows, key=place)[:most]:
        if row.index >= len(samples) or samples.y[row.index] != row.label:
            strange = True
            continue
        sample = samples.x[row.index]
        try:
            answer = _answer(case, row, sample)
        except DataError:
            answer = None
            damaged.append(row.index)
        pictures.append(Picture(row=row, picture=data_uri(sample), answer=answer, damaged=row.index in damaged))
    said = [_damage(damaged)] if damaged else []
    said += ["Some rows do not fit the data set and have no picture."] if strange else []
    return Gallery(case, len(rows), _sought_again(case, pictures, sources), " ".join(said))


def _damage(indices: list[int]) -> str:
    """The note on witnesses that cannot be believed."""
    if len(indices) == 1:
        return f"The witness of sample {indices[0]} is damaged, so its answer is missing."
    return f"The witnesses of samples {', '.join(map(str, indices))} are damaged, so their answers are missing."


def _files(case: StoredCase, index: int) -> tuple[Path, Path]:
    """Input and network of a witness, inside the run whatever the case is called. Raises DataError."""
    case = case.source(index)
    folder = inside(case.run.folder, WITNESSES)
    return inside(folder, case.name, f"{index}.npz"), inside(folder, case.name, f"{index}.onnx")


def _kept(case: StoredCase, index: int) -> bool:
    """Whether the run has a witness of this sample."""
    try:
        return all(path.is_file() for path in _files(case, index))
    except (DataError, OSError):  # outside the run, or no name for a file
        return False


def _answer(case: StoredCase, row: Row, sample: Array) -> Answer | None:
    """The witness evaluated by onnxruntime on the input stored with it; None if it was not kept. Raises DataError."""
    if not _kept(case, row.index):
        return None
    stored, model = _files(case, row.index)
    x, margin = _stored(stored, row.label, sample)
    outputs = replay.outputs(model, x)
    if row.label >= len(outputs):
        raise DataError(f"{model.name} has no output for the label.")
    own = float(margins(outputs[None], [row.label])[0])
    slack = _SLACK * float(np.abs(outputs).max())
    others = [value for value in (row.margin_upper, margin) if value is not None and abs(value - own) > slack]
    return Answer(
        picture=data_uri(x), predicted=_answered(outputs, row.label), margin=own, recorded=others[0] if others else None
    )


def _answered(outputs: Array, label: int) -> int:
    """The class of the largest output; of several that are equal, one that is not the label's."""
    best = np.flatnonzero(outputs == outputs.max())
    return int(max(best, key=lambda one: one != label))


def _stored(path: Path, label: int, sample: Array) -> tuple[Array, float | None]:
    """The witness's input, of the sample's shape, and its margin as stored. Raises DataError if it is another's."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: np.asarray(arrays[name], dtype=np.float64) for name in arrays.files}
        x = found["input"].reshape(sample.shape)
        same = np.array_equal(found.get("x", sample).reshape(sample.shape), sample)
        if not same or float(found.get("label", label)) != label or not np.isfinite(x).all():
            raise ValueError("of another sample, or not finite")
        margin = float(found["margin"]) if "margin" in found else None
    except (OSError, EOFError, KeyError, ValueError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path.name} does not hold the input of a witness.") from error
    return x, margin if margin is not None and np.isfinite(margin) else None


def _sought_again(case: StoredCase, pictures: list[Picture], sources: Sources) -> list[Picture]:
    """The pictures with answers of failing networks that another attack finds, where none was kept."""
    open_ = {picture.row.index: picture for picture in pictures if picture.answer is None}
    if not open_:
        return pictures
    try:
        network, samples = sources.network(case), sources.samples(case)
        x, y = datasets.fit(samples, network)
        radii, options = sources.radii(case), Options(method="ibp", clip=clipping(case))
        if not same_radii(case, network, radii):  # what fails would be of another family
            return pictures
        indices = list(open_)
        found = verdicts(network, x[indices], y[indices], radii, options)
    except QVerifyError:  # why they are missing is said by the layers, which need the same files
        return pictures
    for verdict in found:
        witness = verdict.witness() if verdict.status is Status.FALSIFIED else None
        if witness is not None:
            predicted = _answered(witness.network.evaluate(witness.input[None])[0], witness.label)
            picture = data_uri(witness.input.reshape(samples.shape))
            answer = Answer(picture=picture, predicted=predicted, margin=witness.margin, again=True)
            open_[indices[verdict.index]] = replace(open_[indices[verdict.index]], answer=answer)
    return [open_.get(picture.row.index, picture) for picture in pictures]


# -- pixels ---------------------------------------------------------------------------------------


def data_uri(x: Array) -> str:
    """A sample as a small PNG in a data URI. Values in [0, 1] are shown as they are, others stretched to it."""
    pixels = _pixels(x)
    assert pixels is not None
    low, high = min(0.0, float(pixels.min())), max(1.0, float(pixels.max()))
    step = -(-max(pixels.shape[:2]) // _WIDEST)
    grey = np.rint((pixels[::step, ::step] - low) / (high - low) * 255).astype(np.uint8)
    return "data:image/png;base64," + base64.b64encode(_png(grey)).decode()


def _pixels(x: Array) -> Array | None:
    """(height, width, 1 or 3) of a grey or colour image, channels first or last; None if it is none."""
    if x.ndim == 2:
        x = x[:, :, None]
    elif x.ndim == 3 and x.shape[0] in (1, 3):
        x = x.transpose(1, 2, 0)
    return x if x.ndim == 3 and x.shape[2] in (1, 3) and min(x.shape[:2]) > 1 else None


def _png(pixels: Any) -> bytes:
    """(height, width, 1 or 3) uint8 -> a PNG file."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
