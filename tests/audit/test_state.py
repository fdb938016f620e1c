"""The state is compared with the log: whatever a table holds that no entry explains is named, and not served."""

import contextlib
import re
from datetime import UTC, datetime, timedelta

import pytest
from promotion_state import BOB, CAROL, State
from sqlalchemy import delete, insert, select, update

from components.audit import decisions, keyring, log, statement
from components.audit.decisions import ChampionUnexplained
from components.audit.ledger import Ledger
from components.audit.log import SYSTEM, Actor
from components.audit.verify import verify_database
from components.identity import people, tokens
from components.promotion import approvals, candidates, champion, policy, statements
from components.promotion.quorum import QuorumMissing
from components.settings import PolicySettings
from components.storage import tables
from components.storage.database import AccountRefused, now

POLICY = PolicySettings()
LAX = PolicySettings.model_validate({"approval": {"four_eyes": False}, "gate": {"enforce": False}})
ADA = Actor("ada", assured=True, how="console")


def decide(state: State, version: int) -> None:
    told = {"assistant": "a", "version": version, "policy": POLICY}
    approvals.approve(state.db, state.store, actor=BOB, reason="fine", **told)
    champion.promote(state.db, state.store, actor=CAROL, reason="go", **told)


@pytest.fixture
def full(state: State) -> State:
    """Three decisions, a candidate that waits with one approval, a policy, people, roles and tokens."""
    first = state.candidate("news", None)
    decide(state, 1)
    second = state.candidate("mail", first.digest)
    decide(state, 2)
    champion.rollback(state.db, state.store, assistant="a", version=1, actor=CAROL, reason="worse")
    state.candidate("poem", first.digest)
    approvals.approve(state.db, state.store, assistant="a", version=3, actor=BOB, reason="fine", policy=POLICY)
    approvals.revoke(state.db, assistant="a", version=3, actor=BOB, reason="once more")
    approvals.approve(state.db, state.store, assistant="a", version=3, actor=BOB, reason="now", policy=POLICY)
    with state.db.begin() as connection:
        policy.install(connection, "a", POLICY, actor=SYSTEM)
        for name in ("ada", "bob", "eve"):
            people.add(connection, name, actor=SYSTEM)
        people.grant(connection, "ada", "admin", actor=SYSTEM)
        people.grant(connection, "bob", "approver", actor=SYSTEM)
        people.disable(connection, "eve", actor=ADA, reason="left")
        bob = Actor("bob", assured=True, how="console")
        token, _ = tokens.create(connection, "bob", "ci", timedelta(days=1), ["decide"], actor=bob)
        tokens.revoke(connection, token.id, actor=ADA, reason="over")
        tokens.create(connection, "ada", "mine", timedelta(days=1), actor=ADA)
        made = policy.propose(connection, "a", {"approval": {"quorum": 2}}, actor=ADA, reason="more")
        policy.accept(connection, "a", made.id, actor=BOB, reason="yes")
    assert second.number == 2
    return state


def verified(state: State):
    with state.db.read() as connection:
        return verify_database(connection)


def write(connection, *statements) -> None:
    for one in statements:
        connection.execute(one)


def another_champion(connection) -> None:
    other = candidates.get(connection, "a", 2).digest
    write(connection, update(tables.champion).values(version=other))


def another_history(connection) -> None:
    """The champion and the row of its decision, alike."""
    other = candidates.get(connection, "a", 2).digest
    write(
        connection,
        update(tables.champion).values(version=other),
        update(tables.promotions).where(tables.promotions.c.epoch == 3).values(version=other),
    )


def earlier_champion(connection) -> None:
    """The state of two decisions ago, every row of it true once."""
    write(
        connection,
        update(tables.champion).values(epoch=1),
        delete(tables.promotions).where(tables.promotions.c.epoch > 1),
    )


def no_champion(connection) -> None:
    write(connection, delete(tables.champion))


def pin_of_another(connection) -> None:
    write(connection, update(tables.promotions).where(tables.promotions.c.epoch == 3).values(entry=0))


def no_pin(connection) -> None:
    write(connection, update(tables.promotions).where(tables.promotions.c.epoch == 3).values(entry=None))


def lax_policy(connection) -> None:
    moment = now(connection)
    values = {"assistant": "a", "content": LAX.model_dump(mode="json"), "proposed_by": "ada", "accepted_by": "bob"}
    write(connection, insert(tables.policies).values(**values, proposed_at=moment, reason="", ended_at=moment))


def edited_policy(connection) -> None:
    write(connection, update(tables.policies).values(content=LAX.model_dump(mode="json")))


def admin_more(connection) -> None:
    write(connection, insert(tables.grants).values(person="bob", role="admin", site="*"))


def admin_less(connection) -> None:
    write(connection, delete(tables.grants).where(tables.grants.c.person == "ada"))


def person_more(connection) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    write(connection, insert(tables.people).values(name="mallory", folded="mallory", created_at=moment))


def person_back(connection) -> None:
    write(connection, update(tables.people).where(tables.people.c.name == "eve").values(disabled_at=None))


def subject_taken(connection) -> None:
    write(connection, update(tables.people).where(tables.people.c.name == "ada").values(subject="https://idp|mallory"))


def token_minted(connection) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    values = {"id": "abc", "secret": "0" * 64, "person": "ada", "label": "x", "permissions": [], "created_at": moment}
    write(connection, insert(tables.tokens).values(**values, expires_at=datetime(2099, 1, 1, tzinfo=UTC)))


def token_back(connection) -> None:
    write(connection, update(tables.tokens).values(revoked_at=None))


def token_of_another(connection) -> None:
    write(connection, update(tables.tokens).where(tables.tokens.c.person == "ada").values(secret="0" * 64))


def token_for_more(connection) -> None:
    write(connection, update(tables.tokens).values(permissions=[]))


def token_for_longer(connection) -> None:
    write(connection, update(tables.tokens).values(expires_at=datetime(2099, 1, 1, tzinfo=UTC)))


def approval_more(connection) -> None:
    row = dict(connection.execute(select(tables.approvals).order_by(tables.approvals.c.id.desc())).mappings().first())
    write(connection, insert(tables.approvals).values(**{**row, "id": row["id"] + 1, "person": "carol"}))


def approval_back(connection) -> None:
    write(connection, update(tables.approvals).values(revoked_at=None))


def approval_gone(connection) -> None:
    write(connection, delete(tables.approvals).where(tables.approvals.c.revoked_at.is_(None)))


def approval_longer(connection) -> None:
    write(connection, update(tables.approvals).values(expires_at=datetime(2099, 1, 1, tzinfo=UTC)))


def approval_of_other_evidence(connection) -> None:
    write(connection, update(tables.approvals).values(evidence="0" * 64))


def other_evidence(connection) -> None:
    write(connection, update(tables.candidates).where(tables.candidates.c.number == 3).values(evidence="0" * 64))


def verdict_changed(connection) -> None:
    write(connection, update(tables.candidates).where(tables.candidates.c.number == 3).values(verdict="fail"))


def other_bringer(connection) -> None:
    write(connection, update(tables.candidates).where(tables.candidates.c.number == 3).values(launched_by="nobody"))


def candidate_back(connection) -> None:
    write(connection, update(tables.candidates).where(tables.candidates.c.number == 2).values(state="pending"))


def other_site(connection) -> None:
    write(connection, update(tables.queue).values(owner="elsewhere"))


def key_named(connection) -> None:
    values = {
        "number": 0,
        "id": "k" * 64,
        "record": {"public": "x"},
        "entry": 0,
        "at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    write(connection, insert(tables.signing_keys).values(**values))


ATTACKS = [
    (another_champion, "champion of a has version"),
    (another_history, "champion of a has version"),
    (earlier_champion, "champion of a has epoch 1 in the database, 3 by the log"),
    (no_champion, "champion of a is in the log and not in the database"),
    (pin_of_another, "promotion a 3 has entry 0"),
    (no_pin, "promotion a 3 has entry None"),
    (lax_policy, "policy 3 is in the database, and no entry says so"),
    (edited_policy, "policy 1 has content"),
    (admin_more, "the role admin of bob at [*] is in the database"),
    (admin_less, "the role admin of ada at [*] is missing"),
    (person_more, "person mallory is in the database"),
    (person_back, "person eve has disabled False"),
    (subject_taken, "person ada has subject 'https://idp|mallory'"),
    (token_minted, "token abc is in the database"),
    (token_back, "has revoked False"),
    (token_of_another, "has check"),
    (token_for_more, "has permissions"),
    (token_for_longer, "has expires_at"),
    (approval_more, "by carol of .* no entry says so"),
    (approval_back, "counts in the database, and the log says otherwise"),
    (approval_gone, "the approval of .* by bob is in the log and not"),
    (approval_longer, "no entry says so"),
    (approval_of_other_evidence, "no entry says so"),
    (other_evidence, "candidate .* has evidence"),
    (verdict_changed, "candidate .* has verdict 'fail' in the database, 'pass' by the log"),
    (other_bringer, "candidate .* has launched_by"),
    (candidate_back, "candidate .* has state 'pending' in the database, 'promoted' by the log"),
    (other_site, "task 1 has owner 'elsewhere'"),
    (key_named, "key kkkkkkkkkkkk is in the database"),
]


def test_a_state_that_lcia_wrote_is_explained(full):
    found = verified(full)
    assert (found.ok, found.state) == (True, "the log explains the state")


class Undone(Exception):
    """Ends a transaction without a trace."""


def test_the_first_row_that_no_entry_explains_is_named(full):
    for attack, words in ATTACKS:
        with contextlib.suppress(Undone), full.db.begin() as connection:
            attack(connection)
            found = verify_database(connection)
            assert (found.ok, found.first_bad) == (False, None), attack.__name__
            assert re.search(words, found.message), (attack.__name__, found.message)
            raise Undone
    assert verified(full).ok


SERVED = [another_champion, another_history, earlier_champion, no_champion, pin_of_another, no_pin]


def test_a_champion_that_the_log_does_not_explain_is_refused(full):
    for attack in SERVED:
        with contextlib.suppress(Undone), full.db.begin() as connection:
            assert decisions.need_decision(connection, "a").details["epoch"] == 3
            attack(connection)
            with pytest.raises((ChampionUnexplained, log.LogDamaged)):
                decisions.need_decision(connection, "a")
            raise Undone


def test_nothing_is_built_on_it_or_rolled_back_from_it(full):
    with full.db.begin() as connection:
        no_pin(connection)
    told = {"assistant": "a", "actor": CAROL, "reason": "go"}
    with pytest.raises(ChampionUnexplained):
        champion.promote(full.db, full.store, version=3, policy=POLICY, **told)
    with pytest.raises(ChampionUnexplained):
        champion.rollback(full.db, full.store, version=2, **told)


def test_a_policy_is_in_force_by_its_entry_alone(full):
    with full.db.read() as connection:
        before = policy.in_force(connection, "a")
    assert before.settings.approval.quorum == 2
    for attack in (lax_policy, edited_policy):
        with full.db.begin() as connection:
            attack(connection)
            assert policy.in_force(connection, "a").settings == before.settings
    with pytest.raises(QuorumMissing):
        champion.promote(
            full.db, full.store, assistant="a", version=3, actor=CAROL, policy=before.settings, reason="go"
        )


def test_the_clock_does_not_decide_which_policy_is_in_force(full, monkeypatch):
    """It was two hours ahead when the policy in force was accepted."""
    with full.db.begin() as connection:
        ahead = now(connection) + timedelta(hours=2)
        connection.execute(update(tables.policies).values(ended_at=ahead, proposed_at=ahead))
        made = policy.propose(connection, "a", {"approval": {"quorum": 3}}, actor=ADA, reason="more")
        policy.accept(connection, "a", made.id, actor=BOB, reason="yes")
        assert policy.in_force(connection, "a").settings.approval.quorum == 3


def accepted_at_once(state: State) -> None:
    with state.db.begin() as connection:
        lax_policy(connection)


def accepted_alone(state: State) -> None:
    with state.db.begin() as connection:
        made = policy.propose(connection, "a", {"approval": {"quorum": 1}}, actor=ADA, reason="less")
        mine = tables.policies.c.id == made.id
        connection.execute(update(tables.policies).where(mine).values(accepted_by=" ADA", ended_at=now(connection)))


def reopened(state: State) -> None:
    with state.db.begin() as connection:
        values = {"accepted_by": "bob", "ended_at": now(connection)}
        assert connection.execute(update(tables.policies).values(**values)).rowcount


@pytest.mark.parametrize("attack", [accepted_at_once, accepted_alone], ids=lambda one: one.__name__)
def test_the_service_puts_no_policy_in_force_alone(accounts, attack):
    service = accounts["service"]
    with service.db.begin() as connection:
        policy.install(connection, "a", POLICY, actor=SYSTEM)
        made = policy.propose(connection, "a", {"approval": {"quorum": 2}}, actor=ADA, reason="more")
        policy.accept(connection, "a", made.id, actor=BOB, reason="yes")
    with pytest.raises(AccountRefused):
        attack(service)
    with service.db.read() as connection:
        assert policy.in_force(connection, "a").settings.approval.quorum == 2
    with pytest.raises(AssertionError, match="assert 0"):  # rows that ended are not there for it
        reopened(service)
    assert verified(accounts["owner"]).ok


def test_a_policy_that_the_service_writes_into_the_log_by_itself_has_no_effect(accounts):
    """Its own entry, in the name of nobody: a server begins with one such policy, and with no second."""
    service = accounts["service"]
    with service.db.begin() as connection:
        policy.install(connection, "a", POLICY, actor=SYSTEM)
        made = policy.propose(connection, "a", {"approval": {"four_eyes": False}}, actor=ADA, reason="less")
        told = {"assistant": "a", "policy": made.content, "proposed_by": "lcia", "reason": "", "changed": []}
        log.append(connection, "policy.accepted", SYSTEM, f"policy {made.id}", told)
        assert policy.in_force(connection, "a").settings == POLICY


def test_an_old_statement_of_the_same_version_holds_no_more(full, tmp_path):
    key = keyring.current(full.db, tmp_path / "keys")
    statements.sign_owed(full.db, full.store, key, "a")
    with full.db.read() as connection:
        version = candidates.get(connection, "a", 1)
        old, new = (statements.newest(connection, "a", version.digest, {"epoch": epoch}) for epoch in (1, 3))
    assert statement.read(full.store.get(old), key.public, version.digest).predicate["epoch"] == 1
    assert statements.need(full.db, full.store, "a", version, key.public).predicate["epoch"] == 3
    with full.db.begin() as connection:
        write(connection, update(tables.statements).where(tables.statements.c.epoch == 3).values(statement=old))
    with pytest.raises(statement.StatementRefused, match=r"is of epoch 1 .* the present decision is epoch 3"):
        statements.need(full.db, full.store, "a", version, key.public)
    assert new != old


def test_a_decision_that_is_not_signed_yet_is_not_covered_by_an_earlier_one(state, tmp_path):
    first = state.candidate("news", None)
    decide(state, 1)
    state.candidate("mail", first.digest)
    decide(state, 2)
    key = keyring.current(state.db, tmp_path / "keys")
    statements.sign_owed(state.db, state.store, key, "a")
    champion.rollback(state.db, state.store, assistant="a", version=1, actor=CAROL, reason="back")
    with state.db.read() as connection:
        version = candidates.get(connection, "a", 1)
        assert statements.newest(connection, "a", version.digest) is None
    with pytest.raises(statement.StatementRefused, match="no signed statement"):
        statements.need(state.db, state.store, "a", version, key.public)


def test_a_statement_speaks_of_the_entry_that_the_decision_was_written_with(full, tmp_path):
    """A later entry that says the same of other people, as any account could write before, changes nothing."""
    with full.db.begin() as connection:
        entry = decisions.need_decision(connection, "a")
        forged = {**entry.details, "approvals": [{"person": "mallory", "assured": True, "reason": "x"}]}
        log.append(connection, entry.action, CAROL, entry.subject, forged)
    key = keyring.current(full.db, tmp_path / "keys")
    statements.sign_owed(full.db, full.store, key, "a")
    with full.db.read() as connection:
        digest = statements.newest(connection, "a", entry.subject)
    told = statement.read(full.store.get(digest), key.public).predicate
    assert (told["log"]["entry"], told["approvals"]) == (entry.index, entry.details.get("approvals"))
    found = verified(full)
    assert "epoch 3 of a was decided before" in found.message
    with (
        pytest.raises(ChampionUnexplained, match=r"decided later on .*lcia audit disown"),
        full.db.read() as connection,
    ):
        decisions.need_decision(connection, "a")


def test_a_yes_taken_back_under_another_width_is_explained():
    """An earlier release took it for the same person, and its entry names no approval."""
    ledger = Ledger()
    yes = {"evidence": "e", "reason": "fine"}
    for index, (action, name, details) in enumerate(
        [("candidate.approved", "bob", yes), ("approval.revoked", "\uff42\uff4f\uff42", {"reason": "again"})]
    ):
        actor = {"name": name, "assured": True, "how": "console"}
        ledger.take({"index": index, "action": action, "actor": actor, "subject": "c", "details": details}, "")
    assert [one["revoked"] for one in ledger.approvals] == [True]


def test_an_entry_about_a_policy_of_no_possible_number_has_no_effect(full):
    with full.db.begin() as connection:
        before = policy.in_force(connection, "a")
        details = {"assistant": "a", "policy": LAX.model_dump(mode="json"), "proposed_by": "ada", "reason": "x"}
        log.append(connection, "policy.accepted", BOB, f"policy {'9' * 30}", details)
        assert policy.in_force(connection, "a") == before
