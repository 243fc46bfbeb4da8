"""Reading a file that a user named, and what to say where it is missing or something else than was meant."""

from __future__ import annotations

import difflib
import gzip
import io
import itertools
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qverify.text.shortened import SENTENCE, quoted, shortened

if TYPE_CHECKING:
    from qverify.errors import QVerifyError

LFS_POINTER = b"version https://git-lfs"
"""How the small text begins that Git keeps in place of a large file."""

_GZIP = b"\x1f\x8b"
_MOST_NAMES = 10_000  # of a folder are compared with one that is missing
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Kind:
    """The kind of file wanted: its name in refusals (`a .onnx file`), the advice where it is missing, the error."""

    name: str
    advice: str
    error: type[QVerifyError]


def read(path: Path, kind: Kind) -> bytes:
    """The whole file; raises `kind.error` where it is missing, a directory, unreadable, or a pointer of Git LFS."""
    shown = shown_path(path)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise kind.error(f"{shown} does not exist; {kind.advice}{did_you_mean(path)}.") from None
    except IsADirectoryError:
        raise kind.error(f"{shown} is a directory; give {kind.name} in it.") from None
    except OSError as error:
        advice = "check its permissions" if isinstance(error, PermissionError) else "check the path and the disk"
        raise kind.error(f"{shown} cannot be read ({error.strerror}); {advice}.") from error
    except ValueError:  # a NUL in it
        raise kind.error(f"{shown} is not the path of a file; {kind.advice}.") from None
    if content.startswith(LFS_POINTER):
        raise kind.error(
            f"{shown} is a pointer of Git LFS, not the file itself; run `git lfs pull` in that repository."
        )
    return content


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path as messages show it."""
    return shortened(os.fspath(path), SENTENCE)


def did_you_mean(path: Path) -> str:
    """` (did you mean 'name'?)`, the file of that folder with a name most like this one; empty if none is like it.

    Endings are left aside: files of one kind share them, and people forget them.
    """
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in itertools.islice(entries, _MOST_NAMES)]
    except (OSError, ValueError):
        return ""
    longer = [name for name in names if name.startswith(f"{path.name}.")]
    by_stem = {Path(name).stem.lower(): name for name in names}
    near = [by_stem[stem] for stem in difflib.get_close_matches(path.stem.lower(), by_stem, n=1, cutoff=0.75)]
    return f" (did you mean {quoted([*longer, *near][0])}?)" if longer or near else ""


def unzipped(content: bytes, most: int) -> bytes:
    """Content without its gzip compression, if it has any: what counts are the bytes, not the name.

    Raises OSError where it is damaged, and OverflowError where it would be more than `most` bytes.
    """
    if not content.startswith(_GZIP):
        return content
    parts, size = list[bytes](), 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            while part := file.read(_CHUNK):
                size += len(part)
                if size > most:
                    raise OverflowError
                parts.append(part)
    except (EOFError, zlib.error) as error:
        raise OSError(str(error)) from error
    return b"".join(parts)


_BEGINNINGS = {
    b"\x93NUMPY": "a .npy array",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"MATLAB 5.0": "a MATLAB file",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF",
    b"PAR1": "a Parquet file",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
}

_FLATBUFFERS = {b"TFL3": "a TensorFlow Lite model", b"ORTM": "a model in ORT format"}


def recognised(content: bytes) -> str | None:
    """The kind of a file by its bytes, as in "a .npy array"; None if that does not show. A network in ONNX has no mark
    of its own."""
    for beginning, kind in _BEGINNINGS.items():
        if content.startswith(beginning):
            return kind
    if content[4:8] in _FLATBUFFERS:
        return _FLATBUFFERS[content[4:8]]
    if content.startswith(b"PK"):
        return _archive(content)
    if content[:1] == b"\x80" and content[1:2] in b"\2\3\4\5" and content.endswith(b"."):
        return "a pickle"
    return None


def _archive(content: bytes) -> str | None:
    """The kind of a zip archive by the names in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, LookupError):
        return None
    if any(name.endswith(("/data.pkl", "/constants.pkl")) for name in names):
        return "a PyTorch file"
    if "model.weights.h5" in names:
        return "a Keras file"
    if any(name.endswith(".npy") for name in names):
        return "an .npz archive"
    onnx = [name for name in names if name.endswith(".onnx")]
    return f"a zip archive with {quoted(onnx[0])} in it" if onnx else "a zip archive"
