"""Values of a data set's columns: looking them up in a row, and writing them as text."""

import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from components.tasks.records import Record

MOST_DIGITS = 400
"""Most digits of a decimal number that is written out: one with a large exponent would have billions."""


class NoColumn(LookupError):
    """A column that a row does not have."""


def value_of(row: Record, column: str) -> Any:  # noqa: ANN401 - any value of a column
    """The value of a column; `a.b` is the field `b` of the object in `a`.

    Raises:
        NoColumn: the row has none of that name.
    """
    value: Any = row
    for part in (column,) if column in row else column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise NoColumn(column)
        value = value[part]
    return value


def as_text(value: Any) -> Any:  # noqa: ANN401 - whatever a column holds; what is no text is refused later
    """Numbers, true and false, dates and times as JSON and ISO 8601 write them; anything else unchanged."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else value
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() and abs(value.adjusted()) <= MOST_DIGITS else value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value


def kind_of(value: object) -> str:
    """A word for a value that is no text."""
    if isinstance(value, bool):
        return "truth value"
    return "number" if isinstance(value, int | float | Decimal) else "date or time"
