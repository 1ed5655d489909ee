"""Checks of single values in annotation files, which may hold anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeGuard

_LARGEST_ID = 2**63 - 1  # what NumPy, and so pycocotools, can hold


def is_id(value: Any) -> TypeGuard[int]:
    """An integer of 64 bits; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_ID


def is_size(value: Any) -> bool:
    """A whole number of pixels above 0."""
    number = finite(value)
    return number is not None and number > 0 and number == int(number)


def finite(value: Any) -> float | None:
    """A finite number as a float, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def number(text: str | None) -> float | None:
    """A finite number that is written in a text file, or None."""
    try:
        return finite(float(text)) if text is not None and "_" not in text else None
    except ValueError:
        return None


def whole(text: str) -> int | None:
    """A whole number that is written in a text file, `3` or `3.0`, or None."""
    value = number(text)
    return int(value) if value is not None and value == int(value) else None


def member(record: Any, key: str) -> Any:
    """A value of a JSON object; None if `record` is no object or has no such key."""
    return record.get(key) if isinstance(record, dict) else None


def shown(value: Any) -> str:
    """A value for a message, on one line of bounded length; never fails."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a nest of lists
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:79] + "…"
