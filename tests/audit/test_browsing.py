"""Reading the log backwards: every page against a plain filter of all entries, with bounded work."""

from datetime import UTC, datetime, timedelta

import pytest

from components.audit import browsing, log
from components.audit.browsing import EntryFilter, EntryUnknown
from components.audit.log import Actor, Entry
from components.storage.database import Database
from components.storage.tables import moment_text

NAMES = ("ada", "Bob", "eve")
ACTIONS = ("task.submitted", "task.learning", "candidate.approved", "taskless.thing")


@pytest.fixture
def filled(database: Database) -> Database:
    """60 entries, two at each moment, in turns of actions, people and subjects."""
    with database.begin() as connection:
        for number in range(60):
            who = Actor(NAMES[number % 3], assured=number % 2 == 0)
            log.append(connection, ACTIONS[number % 4], who, f'thing {number % 7} "quoted" {chr(233)}', {"n": number})
    return database


def _plain(entries: list[Entry], wanted: EntryFilter) -> list[int]:
    def fits(entry: Entry) -> bool:
        return (
            (not wanted.kind or entry.action == wanted.kind or entry.action.startswith(wanted.kind + "."))
            and (not wanted.person or entry.actor.name.lower() == wanted.person.lower())
            and entry.subject.startswith(wanted.subject)
            and (wanted.since is None or datetime.fromisoformat(entry.at) >= wanted.since)
            and (wanted.until is None or datetime.fromisoformat(entry.at) <= wanted.until)
        )

    return [entry.index for entry in reversed(entries) if fits(entry)]


def _all_pages(db: Database, wanted: EntryFilter, limit: int) -> list[int]:
    found: list[int] = []
    before: int | None = None
    with db.read() as connection:
        for _ in range(100):
            page = browsing.page(connection, wanted, before, limit)
            assert len(page.entries) <= limit
            found += [entry.index for entry in page.entries]
            before = page.before
            if before is None:
                return found
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize("limit", [1, 7, 100])
@pytest.mark.parametrize(
    "wanted",
    [
        EntryFilter(),
        EntryFilter(kind="task"),
        EntryFilter(kind="candidate.approved"),
        EntryFilter(kind="cand"),
        EntryFilter(person="BOB"),
        EntryFilter(subject='thing 3 "quo'),
        EntryFilter(subject='thing 3 "quoted" \u00e9', person="ada", kind="task"),
        EntryFilter(subject="nothing"),
    ],
)
def test_pages_together_are_what_a_plain_filter_finds(
    filled: Database, wanted: EntryFilter, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "BATCH", 5)
    monkeypatch.setattr(browsing, "MOST", 13)
    with filled.read() as connection:
        expected = _plain(log.entries(connection), wanted)
    assert _all_pages(filled, wanted, limit) == expected


def test_times_bound_the_pages_at_both_ends(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsing, "BATCH", 5)
    with filled.read() as connection:
        entries = log.entries(connection)
    for first, last in ((0, 59), (10, 40), (30, 30), (59, 59)):
        since, until = (datetime.fromisoformat(entries[index].at) for index in (first, last))
        wanted = EntryFilter(since=since, until=until)
        assert _all_pages(filled, wanted, 9) == _plain(entries, wanted)
    later = datetime.fromisoformat(entries[-1].at) + timedelta(seconds=1)
    assert _all_pages(filled, EntryFilter(since=later), 9) == []
    assert _all_pages(filled, EntryFilter(until=datetime.fromisoformat(entries[0].at) - timedelta(seconds=1)), 9) == []


def test_a_page_looks_at_a_bounded_number_of_entries(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsing, "BATCH", 4)
    monkeypatch.setattr(browsing, "MOST", 12)
    with filled.read() as connection:
        page = browsing.page(connection, EntryFilter(person="nobody"))
        assert browsing.page(connection, EntryFilter(kind="no.such")).before is None, "the index knows"
    assert (page.entries, page.before, page.full) == ([], 48, False)


def test_one_entry_comes_with_the_bytes_that_its_hash_is_made_of(filled: Database) -> None:
    from components.audit.merkle import leaf_hash

    with filled.read() as connection:
        entry, body = browsing.entry(connection, 17)
        with pytest.raises(EntryUnknown, match="has no entry 60; it has 60"):
            browsing.entry(connection, 60)
    assert leaf_hash(body).hex() == entry.hash
    assert entry.details == {"n": 17}


def test_an_earlier_head_is_the_one_that_was(database: Database) -> None:
    with database.begin() as connection:
        log.append(connection, "a.b", Actor("ada", assured=True), "x")
        then = log.head(connection)
        log.append(connection, "a.b", Actor("ada", assured=True), "y")
        assert browsing.head_of(connection, 1) == then
        assert browsing.head_of(connection, 2) == log.head(connection)
        for never in (0, 3):
            with pytest.raises(EntryUnknown):
                browsing.head_of(connection, never)


def test_days_are_whole() -> None:
    assert browsing.day("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert moment_text(browsing.day("2026-01-31", end=True)) == "2026-01-31T23:59:59.999999Z"
    with pytest.raises(ValueError, match="31"):
        browsing.day("31.1.2026")
