"""Tokens: hashed, limited, expiring, revocable; what refuses one never repeats it."""

from datetime import timedelta

import pytest
from bootstrap import ROOT
from sqlalchemy import select, update

from components.audit import log
from components.audit.log import Actor
from components.identity import people, tokens
from components.identity.tokens import TokenRefused, TokenUnknown
from components.storage import tables
from components.storage.objects import digest_of

DAY = timedelta(days=1)


def secret_of(text):
    return text.split("_", 2)[2]


def create(db, person="ada", label="ci", lifetime=DAY, permissions=()):
    with db.begin() as connection:
        return tokens.create(connection, person, label, lifetime, permissions, actor=ROOT)


def test_a_token_stands_for_its_person(db):
    made, text = create(db, permissions=["look", "look", "submit"])
    person, found = tokens.check(db, text)
    assert (person.name, found.id, found.permissions) == ("ada", made.id, ("look", "submit"))
    assert found.last_used_at is None
    assert tokens.check(db, text)[1].last_used_at is not None


def test_the_secret_is_kept_nowhere(db, tmp_path):
    _, text = create(db)
    secret = secret_of(text)
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes(), file
    with db.read() as connection:
        assert secret not in str(connection.execute(select(tables.log.c.body)).all())


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t + "x", lambda t: t[5:], lambda t: "lcia__" + t[-43:], str.upper]
)
def test_a_changed_token_is_refused_without_being_repeated(db, change):
    _, text = create(db)
    with pytest.raises(TokenRefused) as refused:
        tokens.check(db, change(text))
    assert secret_of(text)[:10] not in str(refused.value)


def test_one_token_does_not_open_with_anothers_secret(db):
    (_, first), (_, second) = create(db), create(db)
    mixed = first.replace(secret_of(first), secret_of(second))
    with pytest.raises(TokenRefused, match="unknown"):
        tokens.check(db, mixed)


def test_expired_revoked_and_shut_out(db):
    made, text = create(db)
    with db.begin() as connection:
        tokens.revoke(connection, made.id, actor=ROOT, reason="lost")
        before = log.count(connection)
        tokens.revoke(connection, made.id, actor=ROOT, reason="lost")
        assert log.count(connection) == before
    with pytest.raises(TokenRefused, match="was revoked"):
        tokens.check(db, text)
    made, text = create(db)
    with db.begin() as connection:
        mine = tables.tokens.c.id == made.id
        connection.execute(update(tables.tokens).where(mine).values(expires_at=made.created_at))
    with pytest.raises(TokenRefused, match="expired at"):
        tokens.check(db, text)
    with db.begin() as connection:
        people.add(connection, "bob", actor=ROOT)
    _, text = create(db, "bob")
    with db.begin() as connection:
        people.disable(connection, "bob", actor=ROOT, reason="left")
    with pytest.raises(TokenRefused, match="shut out"):
        tokens.check(db, text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"permissions": ["rule"]}, "'rule' is no permission"),
        ({"lifetime": timedelta(days=400)}, "at most 366"),
        ({"lifetime": timedelta(0)}, "more than 0"),
        ({"label": " "}, "needs a label"),
    ],
)
def test_what_cannot_be_is_refused(db, values, words):
    with pytest.raises(TokenRefused, match=words):
        create(db, **values)


def test_unknown_ids_are_said(db):
    with pytest.raises(TokenUnknown, match="no token has the id"), db.begin() as connection:
        tokens.revoke(connection, "abc", actor=ROOT, reason="lost")


def test_all_are_listed_without_secrets(db):
    create(db, label="one")
    create(db, label="two")
    with db.read() as connection:
        found = tokens.every(connection)
    assert {token.label for token in found} == {"one", "two"}
    assert not hasattr(found[0], "secret")


def test_a_token_made_on_a_clock_ahead_does_not_live_longer(db):
    made, text = create(db)
    with db.begin() as connection:
        later = made.created_at + timedelta(days=2)
        connection.execute(update(tables.tokens).values(created_at=later, expires_at=later + DAY))
    with pytest.raises(TokenRefused, match="still to come"):
        tokens.check(db, text)


EVERYBODYS = ("answer", "try")


def person(db, name, *roles):
    with db.begin() as connection:
        people.add(connection, name, actor=ROOT)
        for role in roles:
            people.grant(connection, name, role, actor=ROOT)
    return name


def checks(db):
    with db.read() as connection:
        return {one.token.id: one for one in tokens.checks(connection, EVERYBODYS)}


@pytest.mark.parametrize(
    ("roles", "limits", "gives"),
    [
        (["answer"], (), ("answer",)),
        (["answer"], ("answer",), ("answer",)),
        (["submitter"], ("answer",), ("answer",)),
        (["auditor"], (), ("answer",)),
        (["engineer"], (), ("answer", "try")),
        (["approver"], ("answer",), ("answer",)),
        (["approver"], ("try",), ("try",)),
        (["serve", "answer"], (), ("answer",)),
        (["serve"], (), None),
        ([], (), None),
        (["answer"], ("look",), None),
        (["engineer"], ("submit", "look"), None),
    ],
)
def test_a_gateway_gets_the_checks_of_tokens_that_may_ask(db, roles, limits, gives):
    made, text = create(db, person(db, "app", *roles), permissions=limits)
    one = checks(db).get(made.id)
    assert (one and one.permissions) == gives
    assert one is None or one.check == digest_of(secret_of(text).encode())


def test_tokens_that_do_not_count_are_not_handed_out(db):
    made = {name: create(db, person(db, name, "answer"))[0] for name in ("app", "gone", "late", "early", "lost")}
    with db.begin() as connection:
        people.disable(connection, "gone", actor=ROOT, reason="left")
        tokens.revoke(connection, made["lost"].id, actor=ROOT, reason="lost")
        for name, values in {
            "late": {"expires_at": made["late"].created_at},
            "early": {"created_at": made["early"].created_at + DAY},
        }.items():
            mine = tables.tokens.c.id == made[name].id
            connection.execute(update(tables.tokens).where(mine).values(**values))
    assert set(checks(db)) >= {made["app"].id}
    assert not set(checks(db)) & {one.id for name, one in made.items() if name != "app"}


def test_roles_that_decide_do_not_count_with_a_token_that_another_person_made(db):
    """Bob asks with his own roles, but nobody gets an approver's permission to try by a token that an admin made."""
    other = Actor("eve", assured=True, how="console")
    person(db, "bob", "submitter")
    with db.begin() as connection:
        made, _ = tokens.create(connection, "bob", "app", DAY, actor=other)
        people.grant(connection, "bob", "approver", actor=ROOT)
    assert checks(db)[made.id].permissions == ("answer",)
