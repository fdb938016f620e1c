"""People, roles, tokens, approvals and policies of the release before go on after the migration, on both databases."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from old_tables import at_revision
from sqlalchemy import text

from components.audit.log import Actor, append
from components.identity import appointments, people, tokens
from components.identity.access import Grant
from components.promotion import policy
from components.settings import PolicySettings
from components.storage.objects import canonical, digest_of
from components.storage.tables import moment_text

ACTOR = Actor("root", assured=True, how="os-user")
NOW = datetime.now(UTC)
SECRET = "s" * 43
ROWS = {
    "people": [
        {"name": "ada", "folded": "ada", "subject": None, "created_at": moment_text(NOW - timedelta(days=90))},
        {"name": "\uff42ob", "folded": "\uff42ob", "subject": "https://idp|7", "created_at": moment_text(NOW)},
        {"name": "eve", "folded": "eve", "subject": None, "created_at": moment_text(NOW)},
        {"name": "\uff45ve", "folded": "\uff45ve", "subject": None, "created_at": moment_text(NOW)},
    ],
    "grants": [
        {"person": "ada", "role": "admin", "site": "*"},
        {"person": "\uff42ob", "role": "approver", "site": "north"},
    ],
    "tokens": [
        {
            "id": "0123456789ab",
            "secret": digest_of(SECRET.encode()),
            "person": "\uff42ob",
            "label": "laptop",
            "permissions": "[]",
            "created_at": moment_text(NOW - timedelta(hours=1)),
            "expires_at": moment_text(NOW + timedelta(days=1)),
        }
    ],
    "policies": [
        {
            "assistant": "a",
            "content": canonical(PolicySettings().model_dump(mode="json")).decode(),
            "proposed_by": "lcia",
            "proposed_at": moment_text(NOW - timedelta(days=2)),
            "reason": "the policy this server began with",
            "accepted_by": "lcia",
            "ended_at": moment_text(NOW - timedelta(days=2)),
        },
        {
            "assistant": "a",
            "content": canonical(PolicySettings().model_dump(mode="json") | {"approval": {"quorum": 2}}).decode(),
            "proposed_by": "ada",
            "proposed_at": moment_text(NOW - timedelta(days=1)),
            "reason": "complaints",
        },
    ],
}


@pytest.fixture
def old(empty_database):
    """As the release before left it."""
    db = at_revision(empty_database, "0005_parked_rows")
    with db.begin() as connection:
        for table, rows in ROWS.items():
            for row in rows:
                names = ", ".join(row)
                values = ", ".join(f":{name}" for name in row)
                connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)
    db.migrate()
    first, second = (row["content"] for row in ROWS["policies"])
    with db.begin() as connection:
        for action, number, content, by in (("accepted", 1, first, "lcia"), ("proposed", 2, second, "ada")):
            details = {"policy": json.loads(content), "changed": [], "reason": "so", "proposed_by": by}
            if action == "proposed":
                del details["proposed_by"]  # as the release before wrote it
            append(connection, f"policy.{action}", Actor(by, assured=True), f"policy {number}", details)
    return db


def test_who_had_a_role_has_it_by_hand(old):
    with old.begin() as connection:
        assert people.by_hand(connection, "\uff42ob") == {Grant("approver", "north")}
        assert people.follow_groups(connection, "\uff42ob", {}, actor=ACTOR).grants == (Grant("approver", "north"),)


def test_a_name_is_found_whatever_its_width_unless_two_have_it(old):
    with old.read() as connection:
        assert people.get(connection, "BOB").name == "\uff42ob"
        assert people.get(connection, "eve").name == "eve"


def test_a_token_goes_on_as_what_it_was(old):
    person, token = tokens.check(old, f"lcia_0123456789ab_{SECRET}")
    assert (person.name, token.foreign, token.assured, token.made_by) == ("\uff42ob", False, None, None)


def test_an_old_admin_appoints_nobody_alone(old):
    with old.begin() as connection:
        assert not appointments.bootstrapping(connection), "the first week is over"
        ada = Actor("ada", assured=True, how="token 1")
        _, made = appointments.appoint(connection, "eve", "approver", actor=ada, reason="knows the data")
        assert made.state == "open"


def test_an_open_policy_proposal_can_be_answered(old):
    with old.begin() as connection:
        assert policy.in_force(connection, "a").settings.approval.quorum == 1
        eve = Actor("eve", assured=True, how="token 1")
        wanted = next(one for one in policy.proposals(connection, "a") if one.state == "open")
        assert policy.accept(connection, "a", wanted.id, actor=eve, reason="agreed").state == "accepted"
        assert policy.in_force(connection, "a").settings.approval.quorum == 2
