"""Tables that can be sorted, filtered, paged and linked to: the query in an address, and the rows that answer it."""

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
    """Value that its cells are sorted and searched by; None: they are not."""
    number: bool = False
    """Numbers stand to the right."""
    pick: bool = False
    """Readers may pick one of its values."""
    wide: bool = False
    """Left out on narrow screens."""
    hint: str = ""
    """Explanation of the title, a message."""


@dataclass(frozen=True)
class TableQuery:
    """The part of an address that is about one table of its page; its names are prefixed with the table's."""

    name: str
    params: Mapping[str, str]
    """Every parameter of the address, those of other tables too."""
    first: str = ""
    """Default order: a column's key, after `-` from the greatest to the least."""

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
        """Text that rows have to contain."""
        return self.get("text").strip()

    @property
    def page(self) -> int:
        """Page, from 1."""
        text = self.get("page", "1")
        return max(1, int(text)) if text.isdecimal() and len(text) < 8 else 1

    def link(self, **changes: str | int | None) -> str:
        """The same page with another query of this table; None takes a parameter away."""
        params = {name: value for name, value in self.params.items() if value}
        for what, value in changes.items():
            params.pop(f"{self.name}.{what}", None)
            if value not in (None, ""):
                params[f"{self.name}.{what}"] = str(value)
        return "?" + urlencode(params)


@dataclass(frozen=True)
class Table(Generic[Row]):
    """A page of rows."""

    query: TableQuery
    columns: Sequence[Column[Row]]
    rows: Sequence[Row]
    total: int
    """Rows that fit the filters."""
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Values that may be picked, by column."""

    @property
    def name(self) -> str:
        """Identifies it on its page."""
        return self.query.name

    @property
    def pages(self) -> int:
        """Number of pages; at least one."""
        return max(1, -(-self.total // PAGE))

    @property
    def page(self) -> int:
        """The page shown."""
        return min(self.query.page, self.pages)

    @property
    def is_filtered(self) -> bool:
        """True if the query may hide rows."""
        return bool(self.query.text) or any(self.query.get(key) for key in self.choices)

    def sort_link(self, column: Column[Row]) -> str:
        """Sorted by a column; by the one already sorted by, the other way round."""
        falls = not self.query.falling if column.key == self.query.sort else column.number
        return self.query.link(sort=f"-{column.key}" if falls else column.key, page=None)

    def order(self, column: Column[Row]) -> str:
        """`aria-sort` of a column."""
        if column.key != self.query.sort:
            return "none"
        return "descending" if self.query.falling else "ascending"

    def others(self) -> dict[str, str]:
        """Parameters that the filter's form has to carry on."""
        mine = {f"{self.name}.{what}" for what in ("text", "page", *self.choices)}
        return {name: value for name, value in self.query.params.items() if name not in mine and value}


def arrange(query: TableQuery, columns: Sequence[Column[Row]], rows: Sequence[Row]) -> Table[Row]:
    """The rows that match, in order, as far as they are on the page of the query."""
    keys = {column.key: column.of for column in columns if column.of}
    picks = {column.key: column.of for column in columns if column.pick and column.of}
    choices = {key: sorted({str(of(row)) for row in rows if of(row) not in (None, "")}) for key, of in picks.items()}
    needle = query.text.casefold()
    matches = [
        row
        for row in rows
        if (not needle or any(needle in str(of(row)).casefold() for of in keys.values()))
        and all(not query.get(key) or str(of(row)) == query.get(key) for key, of in picks.items())
    ]
    by = keys.get(query.sort)
    if by is not None:
        present = [row for row in matches if by(row) is not None]
        absent = [row for row in matches if by(row) is None]
        matches = [*sorted(present, key=by, reverse=query.falling), *absent]
    table = Table(query, columns, matches, len(matches), choices)
    start = (table.page - 1) * PAGE
    return Table(query, columns, matches[start : start + PAGE], len(matches), choices)
