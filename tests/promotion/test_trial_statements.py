"""Statements of trials: signed by the log's key, about one start, and never mistaken for a promotion's."""

import pytest
from promotion_state import BOB, CAROL
from sqlalchemy import update
from trial_deeds import approve, promote, serving, start, stop, two, yes

from components.audit import keyring, statement
from components.audit.keys import KeyUnusable
from components.audit.log import LogDamaged
from components.audit.statement import StatementRefused
from components.promotion import statements, trial_rows, trial_statements
from components.storage import tables


def sign(state):
    key = keyring.current(state.db, state.folder / "keys")
    return key, trial_statements.sign_owed(state.db, state.store, key, "a")


def test_a_gateway_hears_a_statement_that_says_what_the_log_says(state):
    candidate = two(state)
    start(state, share=0.25)
    assert serving(state)["statement"] is None
    key, (signed,) = sign(state)
    content = serving(state)["statement"].encode()
    read = statement.read_trial(content, key.public, candidate.digest)
    told = {name: read.predicate[name] for name in ("assistant", "trial", "kind", "share", "number")}
    assert told == {"assistant": "a", "trial": 1, "kind": "shadow", "share": 0.25, "number": 2}
    assert read.predicate["log"]["entry"] == signed.entry
    assert sign(state)[1] == []


def test_a_statement_that_is_damaged_keeps_gateways_from_the_trial_alone(state):
    two(state)
    start(state)
    (signed,) = sign(state)[1]
    with state.db.read() as connection:
        digest = trial_rows.get(connection, "a", signed.id).statement
    state.damage(digest)
    assert serving(state)["statement"] is None
    state.damage(digest)
    assert serving(state)["statement"]


def test_any_changed_byte_is_refused(state):
    two(state)
    start(state)
    key, _ = sign(state)
    content = serving(state)["statement"].encode()
    for place in range(0, len(content), 7):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        with pytest.raises(StatementRefused):
            statement.read_trial(changed, key.public)


def test_a_trial_is_no_promotion_and_a_promotion_no_trial(state):
    two(state)
    start(state)
    key, _ = sign(state)
    statements.sign_owed(state.db, state.store, key, "a")
    of_trial = serving(state)["statement"].encode()
    with state.db.read() as connection:
        first = connection.execute(tables.champion.select()).mappings().one()["version"]
        of_promotion = state.store.get(statements.newest(connection, "a", first))
    assert statement.read(of_promotion, key.public, first).version == first
    with pytest.raises(StatementRefused, match="holds 'urn:lcia:trial:v1', expected urn:lcia:promotion:v1"):
        statement.read(of_trial, key.public)
    with pytest.raises(StatementRefused, match="holds 'urn:lcia:promotion:v1', expected urn:lcia:trial:v1"):
        statement.read_trial(of_promotion, key.public)


@pytest.mark.parametrize("column", ["share", "kind", "entry", "candidate"])
def test_a_row_that_the_log_does_not_explain_is_never_signed(state, column):
    other = state.candidate("chat", two(state).parent)
    start(state, share=0.25)
    values = {
        "share": {"share": 1.0},
        "kind": {"kind": "canary"},
        "entry": {"entry": 0},
        "candidate": {"candidate": other.digest, "evidence": other.evidence},
    }
    with state.db.begin() as connection:
        connection.execute(update(tables.trials).values(values[column]))
    with pytest.raises(LogDamaged, match="no entry for the start of trial 1"):
        sign(state)


def test_a_canary_is_signed_once_somebody_else_approved_it(state):
    two(state)
    start(state, "canary", 0.1)
    assert sign(state)[1] == []
    yes(state, 1)
    assert [one.id for one in sign(state)[1]] == [1]
    with state.db.read() as connection:
        assert trial_rows.get(connection, "a", 1).signed_by == keyring.newest(connection)


def test_an_ended_trial_is_not_signed_and_a_new_key_signs_again(state):
    two(state)
    start(state)
    key, _ = sign(state)
    new = keyring.rotate(state.db, state.folder / "keys", BOB, "a year has passed")
    assert [one.id for one in trial_statements.sign_owed(state.db, state.store, new, "a")] == [1]
    content = serving(state)["statement"].encode()
    assert statement.read_trial(content, key.public).key == new.id
    assert statement.read_trial(content, new.public).key == new.id
    stop(state, 1)
    start(state)
    stop(state, 2)
    assert trial_statements.sign_owed(state.db, state.store, new, "a") == []


def test_signing_goes_with_that_of_decisions_and_waits_for_the_key(state):
    two(state)
    start(state)

    def absent():
        raise KeyUnusable("the key is not here")

    (failure,) = statements.attest(state.db, state.store, "a", absent, [], {})
    assert not failure.ok
    assert serving(state)["statement"] is None
    key = keyring.current(state.db, state.folder / "keys")
    assert statements.attest(state.db, state.store, "a", lambda: key, [], {}) == []
    assert statement.read_trial(serving(state)["statement"].encode(), key.public).predicate["trial"] == 1


def test_the_promotions_statement_names_the_trials(state):
    candidate = two(state)
    start(state)
    ended = stop(state, 1)
    approve(state, 2, CAROL)
    promote(state, 2)
    key = keyring.current(state.db, state.folder / "keys")
    statements.sign_owed(state.db, state.store, key, "a")
    with state.db.read() as connection:
        digest = statements.newest(connection, "a", candidate.digest)
    assert statement.read(state.store.get(digest), key.public).predicate["trials"] == [ended.record]
