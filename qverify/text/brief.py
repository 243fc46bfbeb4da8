"""A short `repr` for objects that hold arrays, networks or modules: what is in them, not the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import fields
from enum import Enum
from typing import Any

from qverify.text.escapes import shown

_VALUE, _WHOLE = 60, 400
"""Characters that one field, and all of them, may take."""


class Brief:
    """Base of dataclasses (`repr=False`): fields with shapes and counts, in fewer than 500 characters."""

    def __repr__(self) -> str:
        parts: list[str] = []
        room = _WHOLE
        for field in fields(self):  # type: ignore[arg-type]
            part = f"{field.name}={_brief(getattr(self, field.name, None))}"
            room -= len(part) + 2
            if room < 0:
                parts.append("...")
                break
            parts.append(part)
        return f"{type(self).__name__}({', '.join(parts)})"


def _brief(value: Any) -> str:
    """A value in short: a number or text as Python writes it, of anything larger its type and size."""
    if isinstance(value, Enum):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return shown(value, _VALUE)
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        return f"{kind} {tuple(shape)} {value.dtype}" if len(shape) else shown(value, _VALUE)
    if isinstance(value, tuple) and len(value) <= 4 and all(isinstance(one, (int, float, str)) for one in value):
        return shown(value, _VALUE)
    if isinstance(value, (tuple, list, set, frozenset, Mapping)) and isinstance(value, Sized):
        return f"{kind} of {len(value)}" if len(value) else f"{kind}()"
    return f"{kind}(...)"
