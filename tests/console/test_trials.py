"""Trials on a version's page: what it shows, whom it lets start, approve and stop, and who reads changed answers."""

import pytest
from small_service import Server, served_loop
from trial_deeds import arm, report


@pytest.fixture
def server(fourth) -> Server:
    return served_loop(fourth, "gateway.keep=masked")


def read(server: Server, name: str, address: str):
    server.sign_in(name)
    return server.client.get(address)


def do(server: Server, name: str, operation: str, **fields: str):
    csrf = server.sign_in(name)
    headers = {"hx-request": "true", "sec-fetch-site": "same-origin"}
    return server.client.post(f"/do/{operation}", data={"csrf": csrf, "back": "/versions/4", **fields}, headers=headers)


def start(server: Server, kind: str, share: str, name: str = "engineer"):
    return do(server, name, "start-trial", version="4", kind=kind, share=share, reason="how does it do")


def tell(server: Server, value) -> None:
    answer = server.ask("serve", "report", replica="gw-1", engine="embedded", ready=True, trial=value)
    assert answer.status_code == 200, answer.text


def test_a_shadow_from_its_form_to_its_record(server):
    assert "Start a shadow" in read(server, "engineer", "/versions/4").text
    assert start(server, "shadow", "0.5").status_code == 204
    page = server.client.get("/versions/4").text
    assert "Trial 1 has begun." in page
    assert "Answers copies of 50.0 % of the requests" in page or "Answers copies of 50 % of the requests" in page
    changed = [{"id": "q1", "champion": "<b>yes", "candidate": "no"}]
    tell(server, report(1, arm(9), arm(9, errors=1), {"compared": 9, "agreed": 8, "errors": [1, 0]}, changed=changed))
    page = read(server, "approver", "/versions/4").text
    assert "Same answer in 8 of 9 requests" in page
    assert "Trial 1 is under way. At its end approvals given before count no more." in page
    answers = server.client.get("/trials/1/answers").text
    assert "&lt;b&gt;yes" in answers
    assert "Trial 1" in read(server, "auditor", "/").text
    assert do(server, "engineer", "stop-trial", trial="1", reason="enough").status_code == 204
    page = server.client.get("/versions/4").text
    assert "Trial 1 is stopped; every caller gets the champion." in page
    assert "stopped by a person" in page


def test_a_canary_is_approved_by_an_approver_and_by_nobody_else(server):
    assert start(server, "canary", "0.05").status_code == 204
    assert "Trial 1 waits for approval by somebody else." in server.client.get("/versions/4").text
    assert "/do/approve-trial" not in read(server, "engineer", "/versions/4").text
    assert do(server, "engineer", "approve-trial", trial="1", reason="mine").status_code == 403
    server.person("of one site", "approver", site="elsewhere")
    assert do(server, "of one site", "approve-trial", trial="1", reason="mine").status_code == 403
    assert "Approve trial 1" in read(server, "approver", "/versions/4").text
    assert do(server, "approver", "approve-trial", trial="1", reason="go on").status_code == 204
    assert "Trial 1 has begun." in server.client.get("/versions/4").text
    trial = server.ask("serve", "serving").json()["trial"]
    assert (trial["kind"], trial["share"], trial["number"]) == ("canary", 0.05, 4)
    assert trial["statement"]


@pytest.mark.parametrize("name", ["submitter", "approver", "auditor", "admin"])
def test_others_start_and_stop_nothing(server, name):
    assert start(server, "shadow", "1", name).status_code == 403
    assert "/do/start-trial" not in read(server, name, "/versions/4").text
    start(server, "shadow", "1")
    assert do(server, name, "stop-trial", trial="1", reason="no").status_code == 403


@pytest.mark.parametrize("name", ["submitter", "engineer", "auditor", "admin"])
def test_changed_answers_are_for_those_who_read_rows(server, name):
    start(server, "shadow", "1")
    assert "/trials/1/answers" not in read(server, name, "/versions/4").text
    assert server.client.get("/trials/1/answers").status_code == 403


def test_an_approval_on_the_page_is_bound_to_the_trials_it_shows(server):
    start(server, "shadow", "1")
    do(server, "engineer", "stop-trial", trial="1", reason="enough")
    shown = server.ask("approver", "show", version="4").json()
    fields = {"version": "4", "evidence": shown["version"]["evidence"], "reason": "read"}
    refused = do(server, "approver", "approve", **fields, trials="0" * 64)
    assert "a trial of version 4 ended meanwhile" in refused.text
    assert f'name="trials" value="{shown["decision"]["trials"]}"' in read(server, "approver", "/versions/4").text
    assert do(server, "approver", "approve", **fields, trials=shown["decision"]["trials"]).status_code == 204


def test_the_page_speaks_japanese(server):
    start(server, "shadow", "1")
    server.client.headers["accept-language"] = "ja"
    page = server.client.get("/versions/4").text
    assert "試行 1" in page
