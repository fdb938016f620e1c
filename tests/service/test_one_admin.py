"""What one admin tries alone: tokens of others, appointments, accounts, policies; and sites that are not one's own."""

import pytest

from components.audit import log
from components.audit.log import SYSTEM
from components.identity import people
from components.promotion import candidates


@pytest.fixture
def server(serve, pending):
    """Two admins; nobody appoints alone."""
    found = serve(pending)
    found.person("second", "admin")
    return found


def refused(got, *words, status=(400, 403)):
    assert got.status_code in status, got.text
    for word in words:
        assert word in got.json()["message"]


def test_an_admin_does_not_become_carol(server):
    """Mint a token for her, or make somebody up: neither decides."""
    server.person("carol", "approver")
    refused(server.ask("admin", "create-token", person="carol", label="mine"), "nobody else may hold a token of theirs")
    assert server.ask("admin", "add-person", person="puppet").status_code == 200
    server.tokens["puppet"] = server.ask("admin", "create-token", person="puppet", label="mine").json()["token"]
    got = server.ask("admin", "grant", person="puppet", role="approver", reason="trust me").json()
    assert (got["roles"], got["proposal"]["state"]) == ([], "open")
    refused(
        server.ask("admin", "answer-grant", proposal=got["proposal"]["id"], accept=True, reason="I agree"), "another"
    )
    assert (
        server.ask("second", "answer-grant", proposal=got["proposal"]["id"], accept=True, reason="ok").status_code
        == 200
    )
    refused(server.ask("puppet", "approve", version="1", reason="read"), "made by admin", status=(403,))
    refused(server.ask("puppet", "create-token", person="puppet", label="own"), "made by somebody else", status=(403,))
    assert server.ask("carol", "status").json()["champion"] is None


def test_an_admin_alone_moves_no_policy(server):
    with server.place.db.begin() as connection:
        from components.promotion import policy

        policy.install(connection, server.place.assistant, server.place.settings.policy, actor=SYSTEM)
    made = server.ask("admin", "propose-policy", changes={"approval": {"four_eyes": False}}, reason="faster").json()
    refused(server.ask("admin", "answer-policy", proposal=made["id"], accept=True, reason="I agree"), "another admin")
    server.person("puppet")
    with server.place.db.begin() as connection:
        people.grant(connection, "puppet", "admin", actor=SYSTEM)  # however it came about
    server.tokens["puppet"] = minted(server, "puppet")
    refused(server.ask("puppet", "answer-policy", proposal=made["id"], accept=True, reason="ok"), "made by admin")


def minted(server, name):
    """A token that the admin made for somebody before they had power."""
    from datetime import timedelta

    from components.audit.log import Actor
    from components.identity import tokens

    with server.place.db.begin() as connection:
        people.withdraw_grant(connection, name, "admin", actor=SYSTEM)
        admin = Actor("admin", assured=True, how="token 1")
        _, text = tokens.create(connection, name, "x", timedelta(days=1), actor=admin)
        people.grant(connection, name, "admin", actor=SYSTEM)
    return text


def test_people_make_and_end_their_own_tokens_whatever_their_role(server):
    made = server.ask("auditor", "create-token", person="auditor", label="laptop").json()
    server.tokens["laptop"] = made["token"]
    assert server.ask("laptop", "status").status_code == 200
    own = server.ask("auditor", "tokens", person="auditor").json()["tokens"]
    assert {one["label"] for one in own} == {"test", "laptop"}
    refused(server.ask("auditor", "tokens"), status=(403,))
    refused(server.ask("auditor", "tokens", person="admin"), status=(403,))
    assert server.ask("auditor", "revoke-token", token=made["id"], reason="done").status_code == 200
    assert server.ask("laptop", "status").status_code == 401


def test_a_limited_token_makes_no_wider_one(server):
    server.person("bot", "approver", only=("look",))
    refused(server.ask("bot", "create-token", person="bot", label="wide"), "limited to look", status=(403,))


def test_every_assertion_says_how_the_person_was_known(server):
    token = server.tokens["approver"].split("_")[1]
    assert server.ask("approver", "approve", version="1", reason="read").status_code == 200
    with server.place.db.read() as connection:
        entries = {entry.action: entry for entry in log.entries(connection)}
    assert entries["candidate.approved"].actor.how == f"token {token}"
    (given,) = entries["champion.promoted"].details["approvals"]
    assert (given["how"], given["assured"]) == (f"token {token}", True)
    (shown,) = server.ask("auditor", "candidates").json()["candidates"][0]["approvals"]
    assert (shown["how"], shown["why_not"]) == (f"token {token}", "")


def test_an_admin_takes_back_a_yes_and_those_who_left_are_told(serve, pending):
    server = serve(pending, "policy.approval.quorum=2")
    server.person("carol", "approver")
    for name in ("approver", "carol"):
        server.person(name + "2", "approver")
    assert server.ask("approver", "approve", version="1", reason="read").json()["epoch"] is None
    assert server.ask("admin", "disable-person", person="approver", reason="left").status_code == 200
    shown = server.ask("carol", "show", version="1").json()
    assert shown["not_counted"] == [{"person": "approver", "why": "shut out"}]
    (pending_one,) = server.ask("carol", "status").json()["candidates"]
    assert pending_one["not_counted"] == [{"person": "approver", "why": "shut out"}]
    assert server.ask("carol", "approve", version="1", reason="read").json()["epoch"] is None, "one of two"
    got = server.ask("admin", "revoke", version="1", person="carol", reason="conflict of interest").json()
    assert (got["person"], got["revoked"]) == ("carol", True)
    refused(server.ask("engineer", "revoke", version="1", person="carol", reason="x"), status=(403,))


def test_one_sites_people_do_not_decide_for_others(serve, champion):
    server = serve(champion)
    with server.place.db.read() as connection:
        owners = candidates.owners(connection, server.place.assistant)
        (last,) = [one for one in candidates.listed(connection, server.place.assistant) if one.number == 3]
    assert owners[last.task]
    server.person("there", "approver", "engineer", "admin", site="elsewhere")
    for operation, params in {
        "rollback": {"version": "1", "reason": "mine"},
        "sync": {},
        "sweep": {},
        "break-lease": {"lease": "lineage:assistant", "reason": "mine"},
        "propose-policy": {"changes": {}, "reason": "mine"},
        "grant": {"person": "there", "role": "admin"},
        "disable-person": {"person": "admin", "reason": "mine"},
        "create-token": {"person": "engineer", "label": "mine"},
    }.items():
        refused(server.ask("there", operation, **params), "there has", status=(403,))
    seen = server.ask("there", "flips", version="2").json()
    everything = server.ask("approver", "flips", version="2").json()
    assert (seen["flips"], seen["other_sites"]) == ([], len(everything["flips"]) + everything["held_back"])
    assert everything["other_sites"] == 0
    server.person("here", "approver", site=owners[last.task])
    assert server.ask("here", "rollback", version="2", reason="complaints").status_code == 200


def test_going_forward_again_takes_new_approvals(serve, champion):
    server = serve(champion)
    assert server.ask("approver", "rollback", version="1", reason="harm").status_code == 200
    refused(server.ask("approver", "rollback", version="3", reason="back"), "rolled away from", "lcia approve 3")
    submitter = server.ask("approver", "show", version="3").json()["version"]["submitted_by"]
    server.person(submitter, "approver")
    refused(server.ask(submitter, "approve", version="3", reason="mine"), "can't approve it")
    got = server.ask("approver", "approve", version="3", reason="the complaints were wrong").json()
    assert (got["epoch"], got["state"]) == (5, "promoted")
