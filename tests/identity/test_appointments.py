"""One admin is not everybody: two give the power to decide, and what one did alone says so."""

from datetime import timedelta

import pytest
from bootstrap import ROOT
from sqlalchemy import select, update

from components.audit import log
from components.audit.log import Actor
from components.identity import appointments, people, tokens
from components.identity.access import Forbidden, Grant
from components.identity.appointments import AppointmentRefused
from components.identity.people import PersonRefused
from components.storage import tables

ADA, EVE, CAROL = (Actor(name, assured=True, how="signed in at https://idp") for name in ("ada", "eve", "carol"))
SUBJECT = "https://idp|carol"


@pytest.fixture
def two(db):
    """Two admins, so that nobody appoints alone; and Carol, who has an account and no role."""
    with db.begin() as connection:
        people.add(connection, "eve", actor=ROOT)
        people.grant(connection, "eve", "admin", actor=ROOT)
        people.add(connection, "carol", subject=SUBJECT, actor=ROOT)
    return db


def appoint(db, who, role, actor=ADA, reason="knows the data", site="*"):
    with db.begin() as connection:
        return appointments.appoint(connection, who, role, site, actor=actor, reason=reason)


def answer(db, made, actor=EVE, *, accept=True):
    with db.begin() as connection:
        return appointments.answer(connection, made.id, accept=accept, actor=actor, reason="agreed")


def entries(db, action):
    with db.read() as connection:
        return [entry for entry in log.entries(connection) if entry.action == action]


@pytest.mark.parametrize("role", ["approver", "admin"])
def test_power_is_given_by_two_admins(two, role):
    person, made = appoint(two, SUBJECT, role)
    assert (person.grants, made.state) == ((), "open")
    with pytest.raises(AppointmentRefused, match="another admin has to"):
        answer(two, made, ADA)
    assert answer(two, made).state == "accepted"
    with two.read() as connection:
        assert people.get(connection, "carol").grants == (Grant(role, "*"),)
    told = entries(two, "role.granted")[-1]
    assert (told.actor.name, told.details["appointment"], told.details["alone"]) == ("eve", made.id, None)
    assert entries(two, "appointment.proposed")[-1].actor.name == "ada"


@pytest.mark.parametrize("role", ["submitter", "engineer", "auditor"])
def test_other_roles_are_given_by_one(two, role):
    person, made = appoint(two, SUBJECT, role, reason="")
    assert (made, person.grants) == (None, (Grant(role, "*"),))


def test_a_proposal_needs_a_reason_and_ends_once(two):
    with pytest.raises(AppointmentRefused, match="needs a reason"):
        appoint(two, SUBJECT, "approver", reason=" ")
    _, made = appoint(two, SUBJECT, "approver")
    assert answer(two, made, ADA, accept=False).state == "refused"
    with pytest.raises(AppointmentRefused, match="refused already"):
        answer(two, made)
    with two.read() as connection:
        assert people.get(connection, "carol").grants == ()


def test_who_is_no_admin_any_more_proposed_for_nothing(two):
    with two.begin() as connection:
        people.add(connection, "zoe", actor=ROOT)
        people.grant(connection, "zoe", "admin", actor=ROOT)
    _, made = appoint(two, SUBJECT, "approver", Actor("zoe", assured=True, how="token 1"))
    with two.begin() as connection:
        people.disable(connection, "zoe", actor=ADA, reason="left")
    with pytest.raises(AppointmentRefused, match=r"zoe, who proposed .* is no admin any more"):
        answer(two, made)


def test_the_first_admin_appoints_alone_until_there_is_a_second(db):
    with db.begin() as connection:
        people.add(connection, "eve", actor=ADA)
        people.add(connection, "bob", actor=ADA)
    _, made = appoint(db, "bob", "approver", reason="")
    assert made is None
    assert entries(db, "role.granted")[-1].details["alone"] == "bootstrap"
    assert appoint(db, "eve", "admin", reason="")[1] is None
    _, made = appoint(db, "bob", "admin")
    assert made.state == "open", "there are two admins now"
    with db.begin() as connection:
        people.disable(connection, "eve", actor=ADA, reason="left")
    assert appoint(db, "bob", "admin", reason="again")[1] is not None, "one who shuts the other out stays one of two"
    with db.begin() as connection:
        assert not appointments.bootstrapping(connection)


def test_the_exception_ends_by_itself(db):
    with db.begin() as connection:
        people.add(connection, "bob", actor=ADA)
        assert appointments.bootstrapping(connection)
        earlier = people.get(connection, "ada").created_at - appointments.BOOTSTRAP
        connection.execute(update(tables.people).where(tables.people.c.name == "ada").values(created_at=earlier))
        assert not appointments.bootstrapping(connection)
        later = earlier + appointments.BOOTSTRAP + timedelta(days=3)
        connection.execute(update(tables.people).where(tables.people.c.name == "ada").values(created_at=later))
        assert not appointments.bootstrapping(connection), "nor by a clock that went back"
    assert appoint(db, "bob", "approver")[1].state == "open"


def test_whoever_runs_the_server_appoints_and_it_is_marked(two):
    for how in ("os-user", "asserted"):
        with two.begin() as connection:
            people.add(connection, how, actor=ROOT)
        assert appoint(two, how, "admin", Actor("root", assured=how == "os-user", how=how), reason="")[1] is None
        assert entries(two, "role.granted")[-1].details["alone"] == "operator"


def test_a_name_alone_does_not_name_who_signs_in(two):
    """Whoever signed in first as carol chose the name; a role is for the account."""
    with pytest.raises(PersonRefused, match=rf"carol signs in as {SUBJECT.replace('|', '.')}.*lcia people grant"):
        appoint(two, "carol", "submitter")
    with pytest.raises(PersonRefused, match="signs in as"):
        appoint(two, "carol", "approver")
    with two.read() as connection:
        assert people.get(connection, "carol").grants == ()


def test_a_role_agreed_on_is_for_the_account_of_then(two):
    _, made = appoint(two, SUBJECT, "approver")
    assert made.subject == SUBJECT
    with two.begin() as connection:
        people.set_subject(connection, "carol", "https://idp|other", actor=ROOT)
    with pytest.raises(AppointmentRefused, match=r"signs in as https://idp.other, and as https://idp.carol when"):
        answer(two, made)


def test_another_account_takes_two_admins(two):
    def connect(name, subject, actor=ADA):
        with two.begin() as connection:
            return appointments.connect(connection, name, subject, actor=actor, reason="new account")

    with two.begin() as connection:
        people.add(connection, "bob", actor=ROOT)
        people.add(connection, "dan", actor=ROOT)
        people.grant(connection, "dan", "approver", actor=ROOT)
    person, made = connect("bob", "https://idp|bob")
    assert (person.subject, made) == ("https://idp|bob", None), "he has no power yet"
    for name in ("carol", "dan"):
        _, made = connect(name, f"https://idp|mine-{name}")
        with pytest.raises(AppointmentRefused, match="another admin"):
            answer(two, made, ADA)
        answer(two, made)
        with two.read() as connection:
            assert people.get(connection, name).subject == f"https://idp|mine-{name}"
    with pytest.raises(PersonRefused, match="signs in as bob already"):
        connect("dan", "https://idp|bob")
    for bad in ("no-issuer", "|x", "https://idp|", "https://idp|a\u200bb"):
        with pytest.raises(PersonRefused, match="no account"):
            connect("dan", bad)


def mint(db, person, actor):
    with db.begin() as connection:
        return tokens.create(connection, person, "laptop", timedelta(days=1), actor=actor)


@pytest.mark.parametrize("role", ["approver", "admin"])
def test_nobody_holds_the_token_of_somebody_who_decides(two, role):
    with two.begin() as connection:
        people.grant(connection, "carol", role, actor=ROOT)
    with pytest.raises(Forbidden, match="nobody else may hold a token of theirs"):
        mint(two, "carol", ADA)
    made, _ = mint(two, "carol", CAROL)
    assert (made.made_by, made.assured, made.foreign) == ("carol", True, False)
    assert made.words == f"token {made.id}"


def test_a_token_made_before_the_power_came_gives_none_of_it(two):
    made, _ = mint(two, "carol", ADA)
    assert (made.assured, made.foreign) == (False, True)
    assert made.words == f"token {made.id}, made by ada"


def test_the_first_token_may_come_from_the_servers_machine_and_is_not_assured(two):
    with two.begin() as connection:
        people.grant(connection, "carol", "approver", actor=ROOT)
    made, _ = mint(two, "carol", ROOT)
    assert (made.assured, made.foreign) == (False, False)
    assert entries(two, "token.created")[-1].details["assured"] is False


def test_a_token_of_a_release_before_stays_what_it_was(two):
    made, text = mint(two, "carol", ADA)
    with two.begin() as connection:
        old = {"made_by": None, "how": None, "assured": None}
        connection.execute(update(tables.tokens).where(tables.tokens.c.id == made.id).values(**old))
    _, found = tokens.check(two, text)
    assert (found.foreign, found.assured) == (False, None)


def test_groups_give_and_take_what_they_gave(two):
    north, south = Grant("approver", "north"), Grant("engineer", "*")

    def follow(**wanted):
        with two.begin() as connection:
            by_name = {"north": north, "south": south}
            groups = {by_name[name]: group for name, group in wanted.items()}
            return set(people.follow_groups(connection, "carol", groups, actor=ROOT).grants)

    assert follow(north="readers", south="crew") == {north, south}
    assert entries(two, "role.granted")[-1].details == {"role": "engineer", "site": "*", "group": "crew"}
    appoint(two, SUBJECT, "engineer")
    assert follow() == {south}, "given by hand meanwhile"
    assert entries(two, "role.withdrawn")[-1].details == {"role": "approver", "site": "north", "group": True}
    with two.read() as connection:
        rows = connection.execute(select(tables.grants.c.by_group).where(tables.grants.c.person == "carol")).all()
    assert [row.by_group for row in rows] == [False]


@pytest.mark.parametrize("name", ["\uff42ob", " BOB "])
def test_a_name_of_another_width_is_the_same_name(two, name):
    with two.begin() as connection:
        people.add(connection, "bob", actor=ROOT)
        assert people.get(connection, name).name == "bob"
        assert people.free_name(connection, name) == f"{name} (2)"
