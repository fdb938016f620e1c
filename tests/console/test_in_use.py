"""The page In use: gateways as they report themselves, in the figures that `lcia status` has too."""

import re
from datetime import timedelta

import pytest
from small_service import Server, served_loop
from sqlalchemy import update

from components.storage import tables
from lcia.cli.text import status as status_text
from tests.console.conftest import words


@pytest.fixture(scope="module")
def gateways(learnt, tmp_path_factory) -> Server:
    """Four gateways: one that serves the decision, one that does not follow, one not ready, one silent."""
    server = served_loop(learnt.loop.copy(tmp_path_factory.mktemp("gateways")))
    assert "No gateway has reported" in words(_page(server))
    champion = server.instance.champion().digest
    old = server.ask("serve", "serving", version="1").json()["version"]["digest"]

    def report(name, version, ready=True, **values):
        fields = {"replica": name, "engine": "embedded", "version": version, "ready": ready, **values}
        assert server.ask("serve", "report", **fields).status_code == 200

    counts = {"g1": {"requests": 4, "errors": 1}, "none": {"requests": 2, "errors": 0}}
    report("gone", champion, traffic={"g1": {"requests": 1000, "errors": 0}})
    with server.instance.db.begin() as connection:
        silent = server.instance.db.now(connection) - timedelta(minutes=3)
        connection.execute(update(tables.replicas).values(reported_at=silent))
    report("gw-1", champion, traffic=counts, latency={"p50": 0.25, "p99": 1.5})
    report("gw-2", old, traffic=counts, problem="<b>an altered byte</b>")
    report("gw-3", champion, ready=False)
    with server.instance.db.begin() as connection:
        earlier = server.instance.db.now(connection) - timedelta(minutes=50)
        connection.execute(update(tables.replicas).values(started_at=earlier))
        connection.execute(update(tables.champion).values(decided_at=earlier))
    return server


def _page(server: Server, path: str = "/in-use", role: str = "auditor", **headers: str) -> str:
    answer = server.client.get(path, headers={"authorization": f"Bearer {server.tokens[role]}", **headers})
    assert answer.status_code == 200
    return answer.text


@pytest.mark.parametrize("path", ["/in-use", "/in-use/live"])
def test_the_page_has_the_figures_of_the_operation(gateways, path):
    page, answer = _page(gateways, path), gateways.ask("auditor", "replicas").json()
    assert (answer["of"], answer["serving"]) == (3, 1)
    assert "Served by 1 of 3 gateways." in words(page)
    assert f"Decided: version {answer['decided']['number']}" in words(page)
    assert "Not served everywhere since" in words(page)
    assert answer["traffic"] == {"g1": {"requests": 8, "errors": 2}, "none": {"requests": 4, "errors": 0}}
    assert "g1 8 2" in words(page)
    assert "none 4 0" in words(page)
    assert "0.25 s 1.50 s \N{EN DASH} embedded" in words(page)


def test_each_gateway_shows_its_state(gateways):
    page = words(_page(gateways))
    rows = {name: page.split(name, 1)[1].split("embedded", 1)[0] for name in ("gone", "gw-1", "gw-2", "gw-3")}
    assert [name for name, row in rows.items() if " silent " in row] == ["gone"]
    assert [name for name, row in rows.items() if re.search("(?<!not) served ", row)] == ["gw-1"]
    assert [name for name, row in rows.items() if "not served yet" in row] == ["gw-2", "gw-3"]
    assert [name for name, row in rows.items() if "not ready" in row] == ["gw-3"]


def test_a_problem_is_text_and_never_markup(gateways):
    assert "&lt;b&gt;an altered byte&lt;/b&gt;" in _page(gateways)


def test_the_page_speaks_japanese(gateways):
    page = words(_page(gateways, **{"accept-language": "ja"}))
    assert "3 台のゲートウェイのうち 1 台が提供中。" in page


def test_status_says_the_same(gateways):
    value = gateways.ask("auditor", "status").json()
    number = value["gateways"]["decided"]["number"]
    lines = status_text.gateways(value["gateways"])
    assert lines[0] == f"  gateways: decided {number}, served by 1 of 3"
    assert lines[1].startswith("    gw-2 answers with version 1 since ")
    assert lines[1].endswith(" UTC: <b>an altered byte</b>")
    assert lines[2].startswith(f"    gw-3 is not ready with version {number} since ")
    assert len(lines) == 3
    assert lines[0] in status_text.status(value).splitlines()


def test_status_is_calm_where_no_gateway_reports():
    assert status_text.gateways(None) == []
    assert status_text.gateways({"decided": None, "of": 0, "serving": 0, "replicas": []}) == []
    gone = {"replica": "gw-1", "reported_at": "2026-11-30T10:00:00+00:00"}
    value = {"decided": None, "of": 0, "serving": 0, "differs_since": None, "replicas": [gone]}
    assert status_text.gateways(value) == ["  no gateway reports now; gw-1 was the last, at 2026-11-30 10:00 UTC"]


def test_metrics_say_the_same(gateways):
    lines = gateways.client.get("/metrics").text.splitlines()
    assert {"lcia_replicas 3", "lcia_replicas_serving 1"} <= set(lines)
    (seconds,) = [line.split()[1] for line in lines if line.startswith("lcia_replicas_differ_seconds ")]
    assert 3000 <= int(seconds) < 3300
