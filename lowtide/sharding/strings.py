"""Python strings as Arrow columns, whatever they hold."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa


def string_array(values: Sequence[str | None]) -> pa.Array:
    """The values as a column. A half of a surrogate pair, which Arrow cannot carry, becomes a question mark."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([value if value is None else whole(value) for value in values], pa.string())


def whole(value: str) -> str:
    """The value, with a question mark for each half of a surrogate pair."""
    return value.encode("utf-8", "replace").decode()
