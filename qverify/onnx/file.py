"""Reading a file as an ONNX model with its external data, as written, and whether a model is a valid one.

Files may be compressed by gzip. Raises ModelError for whatever is missing, damaged, or no ONNX file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, checker, external_data_helper

from qverify.errors import ModelError
from qverify.files import user as user_files
from qverify.files.user import Kind
from qverify.text.shortened import first_line, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

_KIND = Kind("the .onnx file", "check the path of the model", ModelError)
_MOST_BYTES = 1 << 31
"""Of a compressed file when it is unpacked: protobuf reads no more."""

_ADVICE = {
    "a .npy array": "the model comes first, as in `qverify verify MODEL.onnx --data DATA.npz`",
    "an .npz archive": "the model comes first, as in `qverify verify MODEL.onnx --data DATA.npz`",
    "a PyTorch file": "write one with torch.onnx.export",
    "a Keras file": "convert it, for example with tf2onnx",
    "an HDF5 file": "convert it, for example with tf2onnx",
    "a TensorFlow Lite model": "qverify.load and qverify.tflite.load read it",
    "a model in ORT format": "give the .onnx file that it was made from",
}


def read_model(path: Path) -> onnx.ModelProto:
    """The model in a file, with all its numbers in memory."""
    shown = user_files.shown_path(path)
    content = _plain(user_files.read(path, _KIND), shown)
    if not content:
        raise ModelError(f"{shown} is empty; export or download the model again.")
    kind = user_files.recognised(content)
    if kind is not None:
        advice = "unpack it first" if "archive" in kind else "give an .onnx file"
        raise ModelError(f"{shown} is {kind}, not an ONNX file; {_ADVICE.get(kind, advice)}.")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        torch = path.suffix in (".pt", ".pth")
        how = "write one with torch.onnx.export" if torch else "export or download the model again"
        raise ModelError(f"{shown} is truncated or not an ONNX file; {how}.") from error
    _load_external(model, path, shown)
    return model


def _plain(content: bytes, shown: str) -> bytes:
    try:
        return user_files.unzipped(content, _MOST_BYTES)
    except OverflowError:
        raise ModelError(f"{shown} unpacks to more than 2 GiB, which ONNX cannot read; give the .onnx file.") from None
    except OSError as error:
        raise ModelError(f"{shown} is damaged or was cut short ({first_line(error)}); download it again.") from error


def _load_external(model: onnx.ModelProto, path: Path, shown: str) -> None:
    """Read what the model keeps in other files; onnx itself refuses those outside the model's folder."""
    try:
        _refuse_pointers(model, path, shown)
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, checker.ValidationError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"{shown} keeps weights in another file that is missing or damaged ({first_line(error)}); "
            "put that file beside it, or save the model as a single file."
        ) from error


def _refuse_pointers(model: onnx.ModelProto, path: Path, shown: str) -> None:
    """Refuse a pointer of Git LFS, which is long enough to pass for the weights of a small layer."""
    places = {entry.value for tensor in external(model) for entry in tensor.external_data if entry.key == "location"}
    for place in sorted(places):
        beside = path.parent / place
        if Path(place).name != place or not beside.is_file():
            continue
        with beside.open("rb") as file:
            if file.read(len(user_files.LFS_POINTER)) == user_files.LFS_POINTER:
                raise ModelError(
                    f"{shown} keeps weights in {quoted(place)}, which is a pointer of Git LFS, not the file itself; "
                    "run `git lfs pull` in that repository."
                )


def external(model: onnx.ModelProto) -> list[TensorProto]:
    """The tensors whose numbers lie in another file."""
    parts = [model.graph, *model.functions]
    return [t for part in parts for t in _tensors(part) if t.data_location == TensorProto.EXTERNAL]


def _tensors(part: onnx.GraphProto | onnx.FunctionProto) -> Iterator[TensorProto]:
    if isinstance(part, onnx.GraphProto):
        yield from part.initializer
    for attribute in (attribute for node in part.node for attribute in node.attribute):
        yield from [attribute.t, *attribute.tensors]
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors(graph)


def checked(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model, if it is valid; raises ModelError."""
    if external(model):
        raise ModelError(f"{name} keeps weights in another file; give its path, or read them with onnx.load.")
    try:
        checker.check_model(model)
    except (checker.ValidationError, UnicodeDecodeError) as error:
        if isinstance(error, UnicodeDecodeError) or not str(error):  # a message that cannot be decoded may be lost
            raise ModelError(f"{name} is damaged (a name in it is not text); export or download it again.") from error
        raise ModelError(f"{name} is not a valid ONNX model ({first_line(error)}); export it again.") from error
    except (ValueError, EncodeError) as error:
        raise ModelError(f"{name} is larger than the 2 GB that ONNX can check ({first_line(error)}).") from error
    return model
