"""Hashes of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from qverify.errors import DataError
from qverify.files.hashes import file_sha256


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\0\r\nabc")
    assert file_sha256(str(tmp_path / "file")) == hashlib.sha256(b"\0\r\nabc").hexdigest()


def test_a_file_that_has_gone_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not move it during a run"):
        file_sha256(str(tmp_path / "gone"))
