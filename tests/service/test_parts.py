"""Gateways at the service: what a token of the role `serve` gets, and all that it and one of `answer` do not get."""

import threading
from typing import get_args

import pytest

from components.audit import log
from components.identity.access import TABLE
from components.roles import Role
from components.serving import bundle
from components.storage import tables
from components.storage.objects import digest_of
from lcia.operations.table import OPERATIONS
from lcia.service import parts


@pytest.fixture
def server(serve, champion):
    return serve(champion)


def fetch(server, name, version, digest):
    headers = {"authorization": f"Bearer {server.tokens[name]}"} if name else {}
    return server.client.get("/v1/part", params={"version": version, "digest": digest}, headers=headers)


def test_a_gateway_fetches_a_version_by_what_the_service_says_of_it(server):
    version = server.ask("serve", "serving").json()["champion"]["digest"]
    for digest in bundle.digests(server.instance.store, version):
        answer = fetch(server, "serve", version, digest)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
        assert digest_of(answer.content) == digest
        assert int(answer.headers["content-length"]) == len(answer.content)


def test_only_the_role_serve_fetches_parts_and_denials_are_logged(server):
    version = server.instance.champion().digest
    assert fetch(server, None, version, version).status_code == 401
    for role in get_args(Role):
        assert fetch(server, role, version, version).status_code == (200 if role == "serve" else 403), role
    with server.instance.db.read() as connection:
        denied = [one for one in log.entries(connection) if one.action == "access.denied" and one.subject == "part"]
    assert {one.actor.name for one in denied} == set(get_args(Role)) - {"serve"}


def test_a_gateways_token_opens_no_rows_by_their_digest(server):
    """Rows of tasks, packages as they came, predictions, reports: everything stored that is no part of the version."""
    store, version = server.instance.store, server.instance.champion().digest
    own = bundle.digests(store, version)
    rows = {
        split["object"]
        for task in own
        for value in [_header(store, task)]
        for split in value.get("splits", {}).values()
    }
    assert rows
    others = {one.name for one in store.objects()} - own
    assert rows < others
    answers = {digest: fetch(server, "serve", version, digest) for digest in sorted(others)[:100] + sorted(rows)}
    assert {answer.status_code for answer in answers.values()} == {404}
    assert {answer.json()["error"] for answer in answers.values()} == {"PartUnknown"}


def _header(store, digest):
    content = store.get(digest)
    return store.get_json(digest) if content[:1] == b"{" else {}


@pytest.mark.parametrize(
    ("version", "digest"),
    [("1", "0" * 64), ("0" * 64, "../lcia.db"), ("x" * 64, "0" * 64), ("0" * 64, "0" * 63), ("", ""), ("A" * 64, "")],
)
def test_what_is_no_digest_is_refused(server, version, digest):
    assert fetch(server, "serve", version, digest).status_code == 422


def test_a_version_that_does_not_exist_has_no_parts(server):
    answer = fetch(server, "serve", "0" * 64, "0" * 64)
    assert (answer.status_code, answer.json()["error"]) == (404, "CandidateUnknown")


def test_an_altered_part_is_not_sent(server):
    version = server.instance.champion().digest
    adapter = next(iter(bundle.parts(server.instance.store, version).folders.values()))
    file = next(iter(server.instance.store.folder_files(adapter).values()))
    path = server.loop.home / "objects" / "sha256" / file[:2] / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    answer = fetch(server, "serve", version, file)
    assert (answer.status_code, answer.json()["error"]) == (400, "ObjectCorrupt")


def test_one_program_fetches_a_few_parts_at_a_time_and_gives_places_back(server, monkeypatch):
    version = server.instance.champion().digest
    held, going, answers = threading.Semaphore(0), threading.Event(), []

    def wait(*arguments):
        held.release()
        going.wait(20)
        return b"part"

    monkeypatch.setattr(parts, "part", wait)
    threads = [
        threading.Thread(target=lambda: answers.append(fetch(server, "serve", version, version)))
        for _ in range(parts.EACH)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert held.acquire(timeout=20)
    assert fetch(server, "serve", version, version).status_code == 429
    going.set()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200}
    assert fetch(server, "serve", version, version).status_code == 200


def test_the_rate_of_requests_does_not_limit_parts(serve, champion):
    server = serve(champion, "serve.rate=2/minute")
    version = server.ask("serve", "serving").json()["champion"]["digest"]
    digests = bundle.digests(server.instance.store, version)
    assert len(digests) > 2
    assert {fetch(server, "serve", version, digest).status_code for digest in digests} == {200}
    assert [server.ask("serve", "serving").status_code for _ in range(2)] == [200, 429]


def test_openapi_describes_the_bytes(server):
    described = server.client.get("/openapi.json").json()["paths"]["/v1/part"]["get"]
    assert list(described["responses"]["200"]["content"]) == ["application/octet-stream"]
    assert {one["name"] for one in described["parameters"]} == {"version", "digest"}
    assert "404" in described["responses"]


PAGES = (
    "/",
    "/tasks",
    "/versions",
    "/versions/1",
    "/try",
    "/in-use",
    "/numbers",
    "/policy",
    "/log",
    "/people",
    "/tokens",
)


@pytest.mark.parametrize("role", ["serve", "answer"])
def test_programs_at_a_gateway_get_nothing_else_from_the_service(server, role):
    """Neither by an operation nor by a page; not even their own tokens, so that a stolen one makes no other."""
    allowed = {name for name, operation in OPERATIONS.items() if role in TABLE[operation.permission]}
    assert allowed == ({"serving", "report"} if role == "serve" else set())
    attacks = {
        "flips": {"version": "1"},
        "entries": {},
        "lines": {},
        "people": {},
        "tokens": {"person": role},
        "status": {},
        "replicas": {},
        "show": {"version": "1"},
        "create-token": {"person": role, "label": "wider"},
        "approve": {"version": "1", "reason": "r"},
        "rollback": {"version": "1", "reason": "r"},
        "grant": {"person": role, "role": "approver", "reason": "r"},
    }
    assert {name: server.ask(role, name, **params).status_code for name, params in attacks.items()} == dict.fromkeys(
        attacks, 403
    )
    headers = {"authorization": f"Bearer {server.tokens[role]}"}
    assert {page: server.client.get(page, headers=headers).status_code for page in PAGES} == dict.fromkeys(PAGES, 403)
    if role == "answer":
        assert server.ask(role, "serving").status_code == 403
        assert server.ask(role, "report", replica="gw", engine="e", ready=True).status_code == 403
    with server.instance.db.read() as connection:
        assert connection.execute(tables.replicas.select()).all() == []


def test_a_token_for_asking_alone_opens_nothing_of_an_approver(server):
    server.person("carol", "approver", "engineer", only=("answer",))
    for name in ("status", "flips", "serving", "approve", "create-token"):
        params = {
            "flips": {"version": "1"},
            "approve": {"version": "1", "reason": "r"},
            "create-token": {"person": "carol", "label": "wider"},
        }.get(name, {})
        answer = server.ask("carol", name, **params)
        assert (answer.status_code, "limited to answer" in answer.json()["message"]) == (403, True), name
    tokens = server.ask("serve", "serving").json()["tokens"]
    assert [one["permissions"] for one in tokens if one["person"] == "carol"] == [["answer"]]


REPORT = {"replica": "gw-1", "engine": "embedded", "ready": True}


@pytest.mark.parametrize(
    "change",
    [
        {"replica": "../../etc"},
        {"replica": "gw\x1b[2J"},
        {"replica": "x" * 81},
        {"replica": "<script>"},
        {"engine": "e" * 41},
        {"version": "1; DROP TABLE replicas"},
        {"problem": "x" * 10_001},
        {"traffic": {"a b": {"requests": 1, "errors": 0}}},
        {"traffic": {"g1": {"requests": -1, "errors": 0}}},
        {"traffic": {"g1": {"requests": 2**60, "errors": 0}}},
        {"traffic": {"g1": {"requests": 1, "errors": 0, "more": "x"}}},
        {"traffic": {f"g{number}": {"requests": 1, "errors": 0} for number in range(1001)}},
        {"latency": {"p50": "NaN"}},
        {"latency": {"p50": -1}},
        {"trial": {"id": 1, "counts": {"mallory": {}}, "latency": {}}},
        {"trial": {"id": 1, "counts": {}, "latency": {"champion": [1] * 12}}},
        {"assistant": "another"},
    ],
)
def test_hostile_reports_are_refused(server, change):
    assert server.ask("serve", "report", **{**REPORT, **change}).status_code == 422
    assert server.ask("auditor", "replicas").json()["replicas"] == []


def test_a_report_that_is_too_large_is_refused_before_it_is_read(server):
    answer = server.ask("serve", "report", **REPORT, problem="x" * (2 * 1024 * 1024))
    assert answer.status_code == 413


def test_two_programs_do_not_report_under_one_name(server):
    server.person("gateway-2", "serve")
    assert server.ask("serve", "report", **REPORT).status_code == 200
    answer = server.ask("gateway-2", "report", **REPORT)
    assert (answer.status_code, answer.json()["error"]) == (409, "ReportRefused")
    assert server.ask("auditor", "replicas").json()["replicas"][0]["reported_by"] == "serve"
