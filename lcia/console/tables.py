"""Tables that can be sorted, filtered, paged and linked to: what the address asks for, and the rows that answer it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

Row = TypeVar("Row")
PAGE = 25
"""Rows on a page."""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column of a table."""

    key: str
    """In addresses."""
    title: str
    """A message, translated where it is shown."""
    of: Callable[[Row], Any] | None = None
    """What its cells are sorted and searched by; None: they are not."""
    number: bool = False
    """Numbers stand to the right."""
    pick: bool = False
    """Readers may pick one of its values."""
    wide: bool = False
    """Left out on narrow screens."""
    hint: str = ""
    """What the title means, a message."""


@dataclass(frozen=True)
class Asked:
    """What an address asks of one of the tables of its page; names are prefixed with the table's."""

    name: str
    params: Mapping[str, str]
    """Every parameter of the address, those of other tables too."""
    first: str = ""
    """How the table is sorted when nothing is asked: a column's key, after `-` from the top."""

    def get(self, what: str, default: str = "") -> str:
        """One parameter of this table."""
        return self.params.get(f"{self.name}.{what}", default)

    @property
    def sort(self) -> str:
        """Key of the column that is sorted by."""
        return self.get("sort", self.first).removeprefix("-")

    @property
    def falling(self) -> bool:
        """From the greatest to the least."""
        return self.get("sort", self.first).startswith("-")

    @property
    def text(self) -> str:
        """What rows have to contain."""
        return self.get("text").strip()

    @property
    def page(self) -> int:
        """Page, from 1."""
        asked = self.get("page", "1")
        return max(1, int(asked)) if asked.isdecimal() and len(asked) < 8 else 1

    def link(self, **changes: str | int | None) -> str:
        """The same page with this table asked otherwise; None takes a parameter away."""
        kept = {name: value for name, value in self.params.items() if value}
        for what, value in changes.items():
            kept.pop(f"{self.name}.{what}", None)
            if value not in (None, ""):
                kept[f"{self.name}.{what}"] = str(value)
        return "?" + urlencode(kept)


@dataclass(frozen=True)
class Table(Generic[Row]):
    """A page of rows."""

    asked: Asked
    columns: Sequence[Column[Row]]
    rows: Sequence[Row]
    total: int
    """Rows that fit the filters."""
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Values that may be picked, by column."""

    @property
    def name(self) -> str:
        """Identifies it on its page."""
        return self.asked.name

    @property
    def pages(self) -> int:
        """How many there are; at least one."""
        return max(1, -(-self.total // PAGE))

    @property
    def page(self) -> int:
        """The page shown."""
        return min(self.asked.page, self.pages)

    @property
    def filtered(self) -> bool:
        """Whether rows may be hidden by what was asked."""
        return bool(self.asked.text) or any(self.asked.get(key) for key in self.choices)

    def sort_link(self, column: Column[Row]) -> str:
        """Sorted by a column; by the one already sorted by, the other way round."""
        falls = not self.asked.falling if column.key == self.asked.sort else column.number
        return self.asked.link(sort=f"-{column.key}" if falls else column.key, page=None)

    def order(self, column: Column[Row]) -> str:
        """`aria-sort` of a column."""
        if column.key != self.asked.sort:
            return "none"
        return "descending" if self.asked.falling else "ascending"

    def others(self) -> dict[str, str]:
        """Parameters that the filter's form has to carry on."""
        mine = {f"{self.name}.{what}" for what in ("text", "page", *self.choices)}
        return {name: value for name, value in self.asked.params.items() if name not in mine and value}


def arranged(asked: Asked, columns: Sequence[Column[Row]], rows: Sequence[Row]) -> Table[Row]:
    """The rows that fit, in order, as far as they are on the page that was asked for."""
    sorted_by = {column.key: column.of for column in columns if column.of}
    picks = {column.key: column.of for column in columns if column.pick and column.of}
    choices = {key: sorted({str(of(row)) for row in rows if of(row) not in (None, "")}) for key, of in picks.items()}
    needle = asked.text.casefold()
    fitting = [
        row
        for row in rows
        if (not needle or any(needle in str(of(row)).casefold() for of in sorted_by.values()))
        and all(not asked.get(key) or str(of(row)) == asked.get(key) for key, of in picks.items())
    ]
    by = sorted_by.get(asked.sort)
    if by is not None:
        known = [row for row in fitting if by(row) is not None]
        unknown = [row for row in fitting if by(row) is None]
        fitting = [*sorted(known, key=by, reverse=asked.falling), *unknown]
    table = Table(asked, columns, fitting, len(fitting), choices)
    start = (table.page - 1) * PAGE
    return Table(asked, columns, fitting[start : start + PAGE], len(fitting), choices)
