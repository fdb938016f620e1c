"""What one admin, one site or one submitter tries alone is refused; what they may do works."""

from datetime import timedelta

import insiders
import pytest

from components.audit import log
from components.audit.log import SYSTEM, Actor
from components.identity import people, tokens
from components.promotion import candidates, policy


@pytest.fixture
def server(serve, pending):
    """Two admins, so that nobody appoints alone, and a policy of the server."""
    return peopled(serve(pending))


@pytest.fixture
def grown(serve, champion):
    """The same with three champions behind it."""
    return peopled(serve(champion))


def peopled(server):
    server.person("second", "admin")
    server.person("carol", "approver")
    server.person("bot", "approver", only=("look",))
    server.person("there", "approver", "engineer", "admin", site="elsewhere")
    instance = server.instance
    with instance.db.begin() as connection:
        policy.install(connection, instance.assistant, instance.settings.policy, actor=SYSTEM)
        brought = candidates.get(connection, instance.assistant, 1).submitted_by
    server.person(brought, "approver")
    return server


@pytest.mark.parametrize("attack", insiders.WAITING.values(), ids=insiders.WAITING)
def test_an_attack_while_a_version_waits_is_refused(server, attack):
    answers = attack(server)
    assert [got.status_code for got in answers if got.status_code not in (400, 403)] == []
    assert server.ask("carol", "status").json()["champion"] is None
    with server.instance.db.read() as connection:
        assert people.get(connection, "admin").grants == (people.Grant("admin", "*"),)
        assert people.get(connection, "carol").subject is None


@pytest.mark.parametrize("attack", insiders.LEARNT.values(), ids=insiders.LEARNT)
def test_an_attack_on_what_was_learnt_is_refused(grown, attack):
    answers = attack(grown)
    assert [got.status_code for got in answers if got.status_code not in (400, 403)] == []
    assert grown.ask("carol", "status").json()["champion"]["version"] in (1, 3)


def test_a_token_of_before_the_power_came_says_why_it_decides_nothing(server):
    refused = insiders.puppet(server)[1]
    assert "made by admin" in refused.json()["message"]


def test_an_admin_by_somebody_elses_token_accepts_no_policy(server):
    with server.instance.db.begin() as connection:
        people.add(connection, "puppet", actor=SYSTEM)
        admin = Actor("admin", assured=True, how="token 1")
        _, server.tokens["puppet"] = tokens.create(connection, "puppet", "x", timedelta(days=1), actor=admin)
        people.grant(connection, "puppet", "admin", actor=SYSTEM)  # however it came about
    made = server.ask("admin", "propose-policy", changes={"approval": {"quorum": 2}}, reason="more care").json()
    refused = server.ask("puppet", "answer-policy", proposal=made["id"], accept=True, reason="ok")
    assert (refused.status_code, "made by admin" in refused.json()["message"]) == (403, True)


def test_people_make_and_end_their_own_tokens_whatever_their_role(server):
    made = server.ask("auditor", "create-token", person="auditor", label="laptop").json()
    server.tokens["laptop"] = made["token"]
    assert server.ask("laptop", "status").status_code == 200
    own = server.ask("auditor", "tokens", person="auditor").json()["tokens"]
    assert {one["label"] for one in own} == {"test", "laptop"}
    assert server.ask("auditor", "revoke-token", token=made["id"], reason="done").status_code == 200
    assert server.ask("laptop", "status").status_code == 401


def test_a_token_made_after_a_sign_in_is_assured_and_so_is_the_next(server):
    first = server.ask("carol", "create-token", person="carol", label="laptop").json()
    server.tokens["laptop"] = first["token"]
    second = server.ask("laptop", "create-token", person="carol", label="second laptop").json()
    assert [(one["assured"], one["foreign"]) for one in (first, second)] == [(True, False)] * 2


def test_every_assertion_says_how_the_person_was_known(server):
    token = server.tokens["approver"].split("_")[1]
    assert server.ask("approver", "approve", version="1", reason="read").status_code == 200
    with server.instance.db.read() as connection:
        entries = {entry.action: entry for entry in log.entries(connection)}
    assert entries["candidate.approved"].actor.how == f"token {token}"
    (given,) = entries["champion.promoted"].details["approvals"]
    assert (given["how"], given["assured"]) == (f"token {token}", True)
    (shown,) = server.ask("auditor", "candidates").json()["candidates"][0]["approvals"]
    assert (shown["how"], shown["why_not"]) == (f"token {token}", "")


def test_a_token_from_the_servers_machine_decides_and_is_marked(server):
    with server.instance.db.begin() as connection:
        root = Actor("root", assured=True, how="os-user")
        _, server.tokens["carol"] = tokens.create(connection, "carol", "first", timedelta(days=1), actor=root)
    assert server.ask("carol", "approve", version="1", reason="read").json()["epoch"] == 1
    assert "asserted identity" in server.ask("carol", "status").json()["champion"]["marks"]


def test_a_yes_of_who_left_does_not_count_and_an_admin_takes_one_back(serve, pending):
    server = serve(pending, "policy.approval.quorum=2")
    server.person("carol", "approver")
    assert server.ask("approver", "approve", version="1", reason="read").json()["epoch"] is None
    assert server.ask("admin", "disable-person", person="approver", reason="left").status_code == 200
    void = [{"person": "approver", "why": "shut out"}]
    assert server.ask("carol", "show", version="1").json()["not_counted"] == void
    (waiting,) = server.ask("carol", "status").json()["candidates"]
    assert waiting["not_counted"] == void
    assert server.ask("carol", "approve", version="1", reason="read").json()["epoch"] is None, "one of two"
    assert server.ask("engineer", "revoke", version="1", person="carol", reason="x").status_code == 403
    got = server.ask("admin", "revoke", version="1", person="carol", reason="conflict of interest").json()
    assert (got["person"], got["revoked"]) == ("carol", True)


def test_rows_of_other_sites_are_counted_and_not_shown(grown):
    seen = grown.ask("there", "flips", version="2").json()
    everything = grown.ask("approver", "flips", version="2").json()
    assert (seen["flips"], seen["other_sites"]) == ([], len(everything["flips"]) + everything["held_back"])
    assert everything["other_sites"] == 0


def test_the_site_that_loses_its_task_goes_back(grown):
    with grown.instance.db.read() as connection:
        owner = candidates.owners(connection, grown.instance.assistant)[grown.instance.champion().task]
    grown.person("here", "approver", site=owner)
    assert grown.ask("here", "rollback", version="2", reason="complaints").status_code == 200


def test_new_approvals_go_forward_again(grown):
    insiders.forward_again(grown)
    got = grown.ask("approver", "approve", version="3", reason="the complaints were wrong").json()
    assert (got["epoch"], got["state"]) == (5, "promoted")
