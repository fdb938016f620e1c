"""People and roles: who may do what is the table, and every change is in the log."""

from typing import get_args

import pytest
from bootstrap import ROOT
from hypothesis import given
from hypothesis import strategies as st

from components.audit import log
from components.audit.log import Actor, ActorUnnamed
from components.audit.verify import verify_database
from components.identity import people
from components.identity.access import ROLES, TABLE, Forbidden, Grant, Permission, need, permits
from components.identity.people import PersonRefused, PersonUnknown

ADA = Actor("ada", assured=True, how="token")


@pytest.mark.parametrize("permission", get_args(Permission))
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("site", ["*", "north"])
def test_every_role_has_what_the_table_says(role, permission, site):
    expected = role in TABLE[permission]
    assert permits([Grant(role, site)], permission) is expected
    assert permits([Grant(role, site)], permission, "north") is expected
    assert permits([Grant(role, site)], permission, "south") is (expected and site == "*")


def test_duties_are_separate():
    """Nobody decides, administers and submits by one role."""
    for role in ROLES:
        held = {permission for permission, roles in TABLE.items() if role in roles}
        assert len(held & {"decide", "administer", "submit"}) <= 1, role


def test_every_permission_is_somebodys():
    assert set(TABLE) == set(get_args(Permission))
    assert all(TABLE.values())


@given(st.lists(st.builds(Grant, st.sampled_from(ROLES), st.sampled_from(["*", "a", "b"]))), st.sampled_from(ROLES))
def test_more_grants_never_allow_less(grants, role):
    for permission in TABLE:
        if permits(grants, permission, "a"):
            assert permits([*grants, Grant(role, "b")], permission, "a")


def test_a_refusal_names_what_would_do():
    with pytest.raises(Forbidden, match=r"sam has submitter at north; `decide` at north needs one of approver"):
        need("sam", [Grant("submitter", "north")], "decide", "north")
    with pytest.raises(Forbidden, match="no role"):
        need("sam", [], "look")


def test_grants_are_given_and_withdrawn_and_logged(db):
    with db.begin() as connection:
        people.add(connection, "Bob", actor=ADA, subject="https://idp|1")
        people.grant(connection, "bob", "approver", "north", actor=ADA)
        assert people.grant(connection, "bob", "approver", "north", actor=ADA).grants == (Grant("approver", "north"),)
        assert people.by_subject(connection, "https://idp|1").name == "Bob"
        assert people.withdraw_grant(connection, "bob", "approver", "north", actor=ADA).grants == ()
        done = [(entry.action, entry.subject) for entry in log.entries(connection, start=2)]
        assert done == [("person.added", "Bob"), ("role.granted", "Bob"), ("role.withdrawn", "Bob")]
        assert [person.name for person in people.everybody(connection)] == ["Bob", "ada"]
    with db.read() as connection:
        assert verify_database(connection).ok


def test_a_name_is_never_given_twice(db):
    with db.begin() as connection:
        people.add(connection, "bob", actor=ADA, subject="https://idp|1")
        assert people.add(connection, " BOB ", actor=ADA).name == "bob"
        with pytest.raises(PersonRefused, match="another account"):
            people.add(connection, "Bob", actor=ADA, subject="https://idp|2")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 201])
def test_names_can_be_read(db, name):
    with pytest.raises(ActorUnnamed), db.begin() as connection:
        people.add(connection, name, actor=ADA)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: people.grant(c, "nobody", "admin", actor=ROOT), "nobody goes by 'nobody'"),
        (lambda c: people.grant(c, "ada", "king", actor=ROOT), "'king' is no role"),
        (lambda c: people.grant(c, "ada", "approver", " ", actor=ROOT), "is no site"),
        (lambda c: people.withdraw_grant(c, "ada", "approver", actor=ROOT), "is not approver at"),
        (lambda c: people.withdraw_grant(c, "ada", "admin", actor=ROOT), "the last admin"),
        (lambda c: people.disable(c, "ada", actor=ROOT, reason="left"), "the last admin"),
    ],
)
def test_what_cannot_be_is_refused(db, call, words):
    with pytest.raises((PersonRefused, PersonUnknown), match=words), db.begin() as connection:
        call(connection)


def test_with_a_second_admin_the_first_may_go(db):
    with db.begin() as connection:
        people.add(connection, "eve", actor=ADA)
        people.grant(connection, "eve", "admin", actor=ADA)
        assert people.disable(connection, "ada", actor=ADA, reason="left").disabled_at is not None
        assert people.admins(connection) == 1
