"""Tables: what an address asks for is what is shown, whatever else the address says."""

from hypothesis import given
from hypothesis import strategies as st

from lcia.console.tables import PAGE, Column, TableQuery, arrange

COLUMNS = (
    Column("name", "Name", lambda row: row[0], pick=True),
    Column("size", "Size", lambda row: row[1], number=True),
    Column("note", "", None),
)
ROWS = [("pear", 3, ""), ("Apple", None, ""), ("fig", 1, "hidden"), ("apple", 2, "")]


def shown(**params: str):
    return [row[:2] for row in arrange(TableQuery("t", {f"t.{k}": v for k, v in params.items()}), COLUMNS, ROWS).rows]


def test_sorted_by_what_is_asked_with_the_unknown_last():
    assert shown(sort="size") == [("fig", 1), ("apple", 2), ("pear", 3), ("Apple", None)]
    assert shown(sort="-size") == [("pear", 3), ("apple", 2), ("fig", 1), ("Apple", None)]


def test_text_is_found_in_any_letter_case_and_only_in_what_can_be_sorted():
    assert shown(text=" APPLE ") == [("Apple", None), ("apple", 2)]
    assert shown(text="hidden") == []


def test_one_value_is_picked():
    assert shown(name="apple") == [("apple", 2)]


@given(st.dictionaries(st.sampled_from(["t.sort", "t.page", "t.text", "t.name", "u.page"]), st.text(max_size=9)))
def test_whatever_an_address_asks_rows_are_rows(params):
    table = arrange(TableQuery("t", params, "name"), COLUMNS, ROWS)
    assert set(table.rows) <= set(ROWS)
    assert len(table.rows) <= PAGE
    assert 1 <= table.page <= table.pages


@given(st.integers(0, 3 * PAGE), st.integers(-5, 9))
def test_pages_hold_every_row_once(count, asked):
    rows = [(f"{i:03}", i, "") for i in range(count)]
    pages = [arrange(TableQuery("t", {"t.page": str(p)}, "size"), COLUMNS, rows) for p in range(1, 5)]
    seen = [row for table in pages[: pages[0].pages] for row in table.rows]
    assert seen == rows
    assert arrange(TableQuery("t", {"t.page": str(asked)}, "size"), COLUMNS, rows).total == count


def test_links_keep_what_other_tables_are_asked():
    asked = TableQuery("t", {"t.sort": "name", "t.page": "3", "u.page": "2"})
    table = arrange(asked, COLUMNS, ROWS)
    assert table.sort_link(COLUMNS[0]) == "?u.page=2&t.sort=-name"
    assert asked.link(page=2) == "?t.sort=name&u.page=2&t.page=2"
    assert table.order(COLUMNS[0]) == "ascending"
    assert table.order(COLUMNS[1]) == "none"
