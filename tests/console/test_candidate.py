"""A version's page: what it says, whom it lets decide, and what it never lets through."""

import pytest
from small_service import Server, csrf_of, served_loop

from components.audit import log
from components.promotion import candidates


@pytest.fixture
def server(pending) -> Server:
    return served_loop(pending)


def read(server: Server, name: str, address: str):
    server.sign_in(name)
    return server.client.get(address)


def do(server: Server, name: str, operation: str, **fields: str):
    """Send a form of a page as a browser does that runs scripts."""
    csrf = server.sign_in(name)
    headers = {"hx-request": "true", "sec-fetch-site": "same-origin"}
    return server.client.post(f"/do/{operation}", data={"csrf": csrf, **fields}, headers=headers)


def evidence_of(server: Server, number: int = 1) -> str:
    with server.instance.db.read() as connection:
        return candidates.get(connection, server.instance.assistant, number).evidence


def test_a_candidate_is_told_in_short_with_every_rule(server):
    page = read(server, "approver", "/versions/1")
    assert page.status_code == 200
    assert "It learnt movie_sentiment@1." in page.text
    assert "There was no earlier task to forget." in page.text
    assert "Approve version 1" in page.text
    rules = {row["rule"] for row in server.ask("auditor", "show", version="1").json()["gate"]["rows"]}
    assert {"new task", "routing"} <= rules
    assert "of its test rows reach its group" in page.text


def test_a_yes_promotes_and_says_so_once(server):
    answer = do(
        server, "approver", "approve", version="1", evidence=evidence_of(server), reason="read", back="/versions/1"
    )
    assert (answer.status_code, answer.headers["hx-redirect"]) == (204, "/versions/1")
    page = server.client.get("/versions/1").text
    assert "Version 1 is the champion now." in page
    assert "Version 1 is the champion now." not in server.client.get("/versions/1").text
    with server.instance.db.read() as connection:
        entry = next(e for e in log.entries(connection) if e.action == "candidate.approved")
    token = server.tokens["approver"].split("_")[1]
    assert (entry.actor.name, entry.actor.assured, entry.actor.how) == ("approver", True, f"console, token {token}")


def test_evidence_that_is_not_what_was_read_is_refused_in_place(server):
    answer = do(server, "approver", "approve", version="1", evidence="0" * 64, reason="read", back="/versions/1")
    assert answer.status_code == 400
    assert answer.text.startswith('<p class="refused">'), "a part of the page, so that what was typed stays"
    assert "the approval was meant for" in answer.text


def test_a_decision_needs_a_reason(server):
    answer = do(server, "approver", "approve", version="1", evidence=evidence_of(server), reason="", back="/")
    assert answer.status_code == 400
    assert "reason" in answer.text


def test_whoever_brought_the_task_in_is_told_and_refused(server):
    with server.instance.db.read() as connection:
        brought = candidates.get(connection, server.instance.assistant, 1).submitted_by
    server.person(brought, "approver")
    assert "somebody else has to approve it" in read(server, brought, "/versions/1").text
    answer = do(server, brought, "approve", version="1", evidence=evidence_of(server), reason="mine", back="/")
    assert "can&#39;t approve it" in answer.text
    flips = server.client.get("/versions/1/flips")
    assert "test rows are for those who approve" in flips.text


@pytest.mark.parametrize("role", ["submitter", "engineer", "auditor", "admin"])
def test_others_read_and_do_not_decide(server, role):
    page = read(server, role, "/versions/1").text
    assert "Deciding needs the role approver" in page
    assert "/do/approve" not in page
    assert do(server, role, "approve", version="1", reason="me", back="/").status_code == 403


def test_forms_from_elsewhere_are_refused(server):
    csrf = server.sign_in("approver")
    fields = {"version": "1", "reason": "read", "back": "/"}
    for sent, headers in (
        (fields, {}),
        ({**fields, "csrf": "guessed"}, {}),
        ({**fields, "csrf": csrf}, {"sec-fetch-site": "cross-site"}),
    ):
        answer = server.client.post("/do/approve", data=sent, headers=headers)
        assert answer.status_code == 400
        assert "not sent by a page of this sign-in" in answer.text
    assert server.ask("auditor", "status").json()["champion"] is None


def test_nothing_but_operations_that_change_something_is_done(server):
    for name in ("status", "keys", "no-such-thing"):
        assert "nothing that can be done here" in do(server, "approver", name, back="/").text


def test_the_browser_is_sent_to_this_server_alone(server):
    for address in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"):
        answer = do(server, "approver", "reject", version="1", reason="no", back=address)
        if answer.status_code == 204:
            assert answer.headers["hx-redirect"] == "/"
            break
    else:
        pytest.fail("nothing was done")


def test_looks_at_rows_are_logged_and_only_for_those_who_decide(champion):
    server = served_loop(champion)
    page = read(server, "approver", "/versions/2/flips")
    assert page.status_code == 200
    with server.instance.db.read() as connection:
        assert log.entries(connection)[-1].action == "flips.seen"
    assert read(server, "auditor", "/versions/2/flips").status_code == 403


def test_parts_come_as_pages_of_their_own_without_script(champion):
    server = served_loop(champion)
    for part in ("changed", "matrix"):
        page = read(server, "auditor", f"/versions/3/{part}")
        assert "<html" in page.text
        assert "<html" not in server.client.get(f"/versions/3/{part}", headers={"hx-request": "true"}).text
    assert "Avg.ACC" in page.text


def test_an_earlier_champion_can_be_returned_to(champion):
    server = served_loop(champion)
    assert "Roll back to version 2" in read(server, "approver", "/versions/2").text
    assert "Roll back" not in server.client.get("/versions/3").text
    do(server, "approver", "rollback", version="2", reason="complaints", back="/versions/2")
    assert "Version 2 is the champion again." in server.client.get("/versions/2").text


def test_reports_are_shut_off_from_the_page_around_them(champion):
    server = served_loop(champion)
    server.sign_in("auditor")
    for name in ("validation", "drift", "evidently", "grouping", "tuning", "evaluation", "gate"):
        report = server.client.get(f"/versions/3/reports/{name}")
        policy = report.headers["content-security-policy"]
        assert report.status_code == 200, name
        assert policy.startswith("sandbox")
        assert "default-src 'none'" in policy
        assert "allow-same-origin" not in policy
        assert ("allow-scripts" in policy) is (name == "evidently")
    assert server.client.get("/versions/3/reports/nothing").status_code == 400
    assert server.client.get("/versions/3/reports/heat_map").headers["content-type"] == "image/png"


def test_a_version_that_is_not_there_is_said(server):
    page = read(server, "auditor", "/versions/99")
    assert page.status_code == 404
    assert "99" in page.text


def test_pages_run_nothing_inline_and_reach_nothing_outside(champion):
    server = served_loop(champion)
    server.sign_in("admin")
    for address in ("/", "/tasks", "/tasks/1", "/versions/1", "/versions/3"):
        page = server.client.get(address)
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert " style=" not in page.text
        assert "<style" not in page.text
        assert " onclick=" not in page.text
        assert 'src="http' not in page.text
    assert csrf_of(page.text)
