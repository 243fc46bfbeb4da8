"""Bit-widths as people say them: 8, or W4A8."""

from __future__ import annotations

import re
from typing import Any

from qverify.errors import UsageError
from qverify.text.shortened import quoted


def widths(bits: Any) -> dict[str, Any]:
    """What `bits` says, by the fields of a quantiser: a number `bits`; W4A8 those of weights and of activations.

    What is no text is left as it is. Raises UsageError for text that says neither.
    """
    if not isinstance(bits, str):
        return {"bits": bits}
    match = re.fullmatch(r"(\d{1,9})|W(\d{1,9})A(\d{1,9})", bits.strip(), re.ASCII | re.IGNORECASE)
    if match is None:
        raise UsageError(f"The bit-width {quoted(bits)} is none; write a number such as 8, or W4A8.")
    if match[1]:
        return {"bits": int(match[1])}
    return {"bits": int(match[3]), "weight_bits": int(match[2]), "activation_bits": int(match[3])}
