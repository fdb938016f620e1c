"""Numbers for management: each against a plain count of what it is made of."""

import csv
import io
import statistics
from datetime import UTC, datetime

from components.promotion import candidates, champion
from components.tasks import queue
from lcia.console.views import statistics as numbers
from lcia.operations import figures
from lcia.operations import statistics as measures
from lcia.operations.statistics import Cost, measure


def test_the_history_is_that_of_the_accuracy_matrix(shown) -> None:
    matrix = figures.accuracy_matrix(shown.instance)
    points = measure(shown.instance).history
    assert [point.version for point in points] == [1, 2, 3]
    assert abs(points[-1].mean - matrix.avg_acc) < 1e-9
    assert points[-1].bwt is not None
    assert abs(points[-1].bwt - matrix.bwt) < 1e-9
    assert points[0].bwt is None


def test_times_and_costs_are_those_of_queue_promotions_and_cost_records(shown) -> None:
    found = measure(shown.instance)
    with shown.instance.db.read() as connection:
        items = queue.items(connection, shown.instance.assistant)
        made = champion.lineage(connection, shown.instance.assistant)
    waits = [(one.at - item.submitted_at).total_seconds() for one, item in zip(made, items, strict=True)]
    assert found.median_seconds == statistics.median(waits)
    assert found.slowest is not None
    assert found.slowest.seconds == max(waits)
    records = [shown.instance.store.get_json(item.reports["cost"])["actual"] for item in items]
    (spent,) = found.spent.values()
    assert abs(spent.cpu_hours - sum(record["cpu_hours"] for record in records)) < 1e-9
    assert found.runs == 3
    assert [one.score_then is not None for one in found.tasks] == [True] * 3


def test_verdicts_and_ends_count_every_version(serve, champion, visit) -> None:
    server = serve(champion)
    with server.instance.db.read() as connection:
        known = candidates.versions(connection, server.instance.assistant)
    found = measure(server.instance)
    assert sum(found.verdicts.values()) == len(known)
    assert found.ends == {"promoted": 3}
    assert server.ask("approver", "rollback", version="2", reason="slow").status_code == 200
    after = measure(server.instance)
    assert [point.version for point in after.history] == [1, 2]
    assert len(after.tasks) == 3  # a rollback learns nothing
    assert "3 tasks were learnt so far" in visit(server, "submitter").page("/numbers")


def test_what_waits_is_shown_with_how_long(serve, pending, visit) -> None:
    server = serve(pending)
    found = measure(server.instance)
    assert [version.number for version, _ in found.waits] == [1]
    page = visit(server, "submitter").page("/numbers")
    assert "Nothing was learnt yet" in page


def test_records_are_read_once_by_a_process(shown, monkeypatch) -> None:
    """But for the small ones that say which records there are."""
    first, store, kinds = measure(shown.instance), type(shown.instance.store), []
    get = store.get_json
    monkeypatch.setattr(store, "get_json", lambda *args: kinds.append((record := get(*args))["kind"]) or record)
    assert measure(shown.instance).history == first.history
    assert set(kinds) == {"evidence"}


def test_months_have_no_gaps_and_an_end() -> None:
    def learnt(year: int, month: int) -> measures.LearntTask:
        moment = datetime(year, month, 3, tzinfo=UTC)
        return measures.LearntTask("t@1", "", 1, None, moment, None, None, None, None, "", None, None)

    now = datetime(2026, 2, 1, tzinfo=UTC)
    assert measures._months([learnt(2025, 11), learnt(2025, 11), learnt(2026, 1)], now) == [
        ("2025-11", 2), ("2025-12", 0), ("2026-01", 1), ("2026-02", 0),
    ]  # fmt: skip
    assert len(measures._months([learnt(2001, 1)], now)) == measures.MONTHS
    assert measures._months([], now) == []


def test_money_of_one_currency_is_not_added_to_another() -> None:
    spent = measures._by_currency([Cost(1, 2, 3.0, "EUR"), Cost(1, 2, None, "EUR"), Cost(5, 0, 700.0, "JPY")])
    assert spent["EUR"] == Cost(2, 4, 3.0, "EUR")
    assert spent["JPY"] == Cost(5, 0, 700.0, "JPY")


def test_the_table_comes_as_csv_that_no_spreadsheet_works_out(shown, visit) -> None:
    got = visit(shown, "submitter").get("/numbers.csv")
    rows = list(csv.DictReader(io.StringIO(got.text)))
    assert [row["task"] for row in rows] == ["movie_sentiment@1", "product_sentiment@1", "passive_voice@1"]
    assert float(rows[0]["score_then"]) >= 0
    for hostile in ("=1+1", "+1", "-1", "@x", "\tx"):
        assert numbers._cell(hostile) == f"'{hostile}"
    assert numbers._cell(-0.5) == -0.5


def test_the_page_says_it_in_words(shown, visit) -> None:
    page = visit(shown, "submitter").page("/numbers")
    assert "3 tasks were learnt so far, 3 of them in the last 30 days." in page
    assert "no prices are set" in page
    assert "Every task learnt" in page
