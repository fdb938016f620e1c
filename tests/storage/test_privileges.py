"""On PostgreSQL each process works under an account of its own, and can do nothing of another's."""

import shutil
from datetime import timedelta

import pytest
import trial_deeds
from promotion_state import BOB, CAROL, SITE
from sqlalchemy import delete, insert, select, text, update

from components.audit import keyring, log
from components.audit.log import SYSTEM, Actor
from components.audit.verify import verify_database
from components.identity import people, sessions, tokens
from components.promotion import (
    approvals,
    candidates,
    champion,
    policy,
    replicas,
    serving_watch,
    trial_statements,
)
from components.promotion.approvals import NotLowRisk
from components.promotion.automatic import promote_waiting
from components.registry.outbox import apply_outbox, enqueue, pending
from components.registry.registry import Registry
from components.settings import (
    ApprovalSettings,
    AuditSettings,
    PolicySettings,
    RegistrySettings,
    Settings,
    StorageSettings,
)
from components.storage import leases, privileges, results, rounds, tables
from components.storage.database import AccountRefused
from components.storage.privilege_checks import check_privileges
from components.tasks import queue
from lcia.instance import Instance
from lcia.server import ROUNDS, tell
from lcia.worker.rounds import Rounds

POLICY = PolicySettings()


def approve(state, version=1, actor=BOB):
    return approvals.approve(
        state.db, state.store, assistant="a", version=version, actor=actor, reason="fine", policy=POLICY
    )


def promote(state, version=1):
    return champion.promote(
        state.db, state.store, assistant="a", version=version, actor=CAROL, policy=POLICY, reason="go"
    )


def count(state, table) -> int:
    with state.db.read() as connection:
        return len(connection.execute(select(table)).all())


def test_each_account_can_do_its_own_work(accounts, registry: Registry):
    worker, service, promoter, keeper = (accounts[name] for name in privileges.ACCOUNTS)
    for state in accounts.values():
        state.db.migrate()  # nothing to do, and nothing that needs the right to create tables
    lease = leases.acquire(worker.db, "lineage:a", "w", 60)
    leases.renew(worker.db, lease)
    first = worker.candidate("news", None)
    with worker.db.begin() as connection:
        results.record(connection, lease, "k" * 64, "tune", "1" * 64)
    assert [one.kind for one in apply_outbox(worker.db, worker.store, registry)] == ["candidate"]

    with service.db.begin() as connection:
        for name, role in [("ada", "admin"), ("bob", "approver"), ("carol", "approver")]:
            people.add(connection, name, actor=SYSTEM)
            people.grant(connection, name, role, actor=SYSTEM)
        people.grant(connection, "ada", "auditor", actor=SYSTEM)
        people.withdraw_grant(connection, "ada", "auditor", actor=SYSTEM)
        token, secret = tokens.create(
            connection, "ada", "ci", timedelta(days=1), actor=Actor("ada", assured=True, how="console")
        )
    assert tokens.check(service.db, secret)[0].name == "ada"
    with service.db.begin() as connection:
        tokens.revoke(connection, token.id, actor=SYSTEM, reason="over")
        people.add(connection, "eve", actor=SYSTEM)
        people.disable(connection, "eve", actor=SYSTEM, reason="left")
    approve(service)
    approvals.revoke(service.db, assistant="a", version=1, actor=BOB, reason="once more")
    approve(service)

    assert promote(promoter).epoch == 1
    assert all(one.ok for one in apply_outbox(promoter.db, promoter.store, registry))
    with service.db.read() as connection:
        assert champion.current(connection, "a").served == first.digest

    second, third = worker.candidate("mail", first.digest), worker.candidate("poem", first.digest)
    approvals.reject(service.db, assistant="a", version=second.number, actor=CAROL, reason="no")
    with service.db.begin() as connection:
        queue.move(connection, None, second.item, "submitted", "tried again", actor=SITE)
    assert worker.candidate("mail", first.digest).attempt == 2  # of what was rejected, made again
    approve(service, 3)
    promote(promoter, 3)
    with service.db.read() as connection:
        assert candidates.get(connection, "a", 2).state == "superseded"
    champion.rollback(promoter.db, promoter.store, assistant="a", version=1, actor=CAROL, reason="worse")
    apply_outbox(promoter.db, promoter.store, registry)
    with service.db.read() as connection:
        assert pending(connection, "a") == 0
        assert champion.current(connection, "a").served == first.digest
    leases.release(worker.db, lease)

    lease = leases.acquire(keeper.db, "lineage:a", "k", 60)
    with keeper.db.begin() as connection:
        leases.check(connection, lease)
        connection.execute(delete(tables.results))
        enqueue(connection, "a", "forget", {"digest": third.digest, "number": 3})
        log.append(connection, "retention.swept", SYSTEM, "objects", {})
        queue.move(connection, None, third.item, "withdrawn", "asked for", actor=SITE)
        for table in (tables.candidates, tables.promotions):
            assert connection.execute(update(table).values(marks=["rows withdrawn"])).rowcount
    leases.release(keeper.db, lease)
    assert count(keeper, tables.results) == 0
    with accounts["owner"].db.read() as connection:
        assert verify_database(connection).ok


def automatic(reader, promoter):
    """One round of what is promoted without a person."""
    auto = PolicySettings(approval=ApprovalSettings(auto=True))
    return promote_waiting(reader.db, promoter.db, promoter.store, "a", auto)


def test_the_service_promotes_automatically_what_the_worker_may_not(accounts):
    """With the accounts of the manifests: the worker leaves it, and the service's rounds do it with the promoter's."""
    worker, service, promoter = (accounts[name] for name in ("worker", "service", "promoter"))
    worker.candidate("news", None)
    (left,) = automatic(worker, worker)
    assert left.promotion is None
    assert "waits for `lcia serve`" in left.words
    with service.db.read() as connection:
        assert candidates.get(connection, "a", 1).state == "pending"
    (done,) = automatic(service, promoter)
    assert (done.promotion.epoch, done.promotion.marks) == (1, ["automatic approval"])
    assert automatic(service, promoter) == []


def test_a_round_of_the_service_promotes_and_has_mlflow_serve_it(accounts, postgresql, tmp_path, empty_mlflow):
    accounts["worker"].candidate("news", None)
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    name = accounts["owner"].db.engine.url.database
    home = tmp_path / "home"
    settings = Settings(
        assistant="a",
        storage=StorageSettings(
            database=postgresql.url(name, "lcia_service"),
            promoter=postgresql.url(name, "lcia_promoter"),
            objects=accounts["worker"].store.url,
        ),
        registry=RegistrySettings(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", artifacts=str(tmp_path / "files")),
        audit=AuditSettings(heads_to=()),
        policy=PolicySettings(approval=ApprovalSettings(auto=True)),
    )
    instance = Instance.open(home, settings)
    tell(instance, {}, Rounds(instance.db, instance.home, "service", 30, ROUNDS))
    with instance.db.read() as connection:
        now = champion.current(connection, "a")
        entry = next(e for e in log.entries(connection) if e.action == "champion.promoted")
    assert (now.epoch, now.served) == (1, now.version)
    assert (entry.actor.how, entry.details["automatic"]) == ("system", True)


def test_what_waits_is_left_when_the_server_has_switched_it_off(accounts):
    worker, service, promoter = (accounts[name] for name in ("worker", "service", "promoter"))
    worker.candidate("news", None)
    with service.db.begin() as connection:
        policy.install(connection, "a", PolicySettings(), actor=SYSTEM)
    assert automatic(service, promoter) == []
    with pytest.raises(NotLowRisk, match="auto is false"):
        champion.promote(
            promoter.db,
            promoter.store,
            assistant="a",
            version=1,
            actor=SYSTEM,
            policy=PolicySettings(approval=ApprovalSettings(auto=True)),
            automatic=True,
        )


def test_every_account_proves_by_trying_that_it_can_do_nothing_else(accounts):
    accounts["worker"].candidate("news", None)
    before = {table.name: count(accounts["owner"], table) for table in tables.metadata.sorted_tables}
    for account in privileges.ACCOUNTS:
        found = check_privileges(accounts[account].db)
        assert (found.user, found.account) == (f"lcia_{account}", account)
        assert found.ok, found.words()
        assert f"can do the {account}'s work" in found.words()
        refused = {attempt.action for attempt in found.attempts if not attempt.can}
        assert {"change an entry of the log", "delete an entry of the log", "empty the log"} <= refused
    owner = check_privileges(accounts["owner"].db)
    assert (owner.ok, owner.account, [attempt.can for attempt in owner.attempts]) == (True, None, [True] + [False] * 5)
    assert "owns the tables" in owner.words()
    assert before == {table.name: count(accounts["owner"], table) for table in tables.metadata.sorted_tables}


def test_a_right_too_many_or_too_few_is_told(accounts):
    with accounts["owner"].db.begin() as connection:
        connection.execute(text("GRANT INSERT ON approvals TO lcia_worker"))
        connection.execute(text("CREATE POLICY more ON approvals FOR INSERT TO lcia_worker WITH CHECK (true)"))
        connection.execute(text("REVOKE INSERT ON results FROM lcia_worker"))
    found = check_privileges(accounts["worker"].db)
    assert not found.ok
    assert found.words().startswith("lcia_worker can't record a result (permission denied for table results); can app")


def test_the_guard_of_the_log_is_proven_on_every_database(database):
    found = check_privileges(database)
    assert found.ok
    assert len(found.attempts) == 6
    with database.begin() as connection:
        assert log.count(connection) == 0
        sqlite = connection.dialect.name == "sqlite"
        connection.execute(text("DROP TRIGGER log_no_delete" if sqlite else "ALTER TABLE log DISABLE TRIGGER USER"))
    found = check_privileges(database)
    assert not found.ok
    assert "can delete an entry of the log" in found.words()


def run(state, statement) -> int:
    with state.db.begin() as connection:
        return connection.execute(text(statement) if isinstance(statement, str) else statement).rowcount


def test_what_others_decided_is_out_of_reach(accounts):
    """Not an error but nothing: rows that an account may not change are not there for it."""
    worker, service, promoter = (accounts[name] for name in ("worker", "service", "promoter"))
    first = worker.candidate("news", None)
    approve(service)
    assert run(worker, update(tables.candidates).values(launched_by="somebody")) == 0
    approvals.revoke(service.db, assistant="a", version=1, actor=BOB, reason="no")
    for state in (worker, service):
        assert run(state, update(tables.approvals).values(revoked_at=None)) == 0
    approve(service)
    promote(promoter)
    assert run(service, update(tables.candidates).values(state="rejected")) == 0
    told = tables.outbox.c.kind == "promote"
    assert run(worker, update(tables.outbox).where(told).values(error="quiet")) == 0
    assert run(promoter, update(tables.queue).where(tables.queue.c.id == first.item).values(state="submitted")) == 0


def test_a_canary_needs_two_and_the_key_the_promoters_account(accounts, tmp_path):
    worker, service, promoter, keeper = (accounts[name] for name in privileges.ACCOUNTS)
    first = worker.candidate("news", None)
    approve(service)
    promote(promoter)
    worker.candidate("mail", first.digest)
    trial_deeds.start(service, "canary", 0.1)
    own = {"state": "under_way", "approved_by": "Erin "}
    for values in ({"state": "under_way"}, own):
        with pytest.raises(AccountRefused):
            run(service, update(tables.trials).values(**values))
    trial_deeds.yes(service, 1)
    key = keyring.current(promoter.db, tmp_path / "keys")
    with pytest.raises(AccountRefused):
        run(service, update(tables.trials).values(statement="x"))
    assert [one.id for one in trial_statements.sign_owed(promoter.db, promoter.store, key, "a")] == [1]
    changed = [{"id": "c1", "champion": "yes", "candidate": "no"}]
    trial_deeds.record(service, trial_deeds.report(1, trial_deeds.arm(9), trial_deeds.arm(9), changed=changed))
    for state in (worker, promoter, keeper):
        with pytest.raises(AccountRefused):
            trial_deeds.stop(state, 1)
    assert trial_deeds.stop(service, 1).answers is not None
    assert run(service, update(tables.trials).values(why="otherwise")) == 0, "what ended is out of reach"
    with accounts["owner"].db.read() as connection:
        assert verify_database(connection).ok


EVERYBODY = [
    lambda state: run(state, update(tables.log).values(hash="x")),
    lambda state: run(state, delete(tables.log)),
    lambda state: run(state, "CREATE TABLE mine (a INTEGER)"),
    lambda state: run(state, "SET ROLE postgres"),
    lambda state: run(state, "DELETE FROM alembic_version"),
]
FORBIDDEN = {
    "worker": [
        lambda state: approve(state, actor=CAROL),
        promote,
        lambda state: run(state, update(tables.approvals).values(expires_at=None)),
        lambda state: run(state, update(tables.queue).values(state="promoted")),
        lambda state: run(state, update(tables.queue).values(submitted_by="x")),
        lambda state: run(state, delete(tables.results)),
        lambda state: run(state, select(tables.tokens)),
        lambda state: run(state, insert(tables.grants).values(person="x", role="admin", site="*")),
        lambda state: run(state, select(tables.trial_answers)),
    ],
    "service": [
        promote,
        lambda state: state.candidate("mail", None),
        lambda state: leases.acquire(state.db, "lineage:a", "s", 60),
        lambda state: leases.acquire(state.db, "outbox:a", "s", 60),
        lambda state: run(state, update(tables.candidates).values(verdict="pass")),
        lambda state: run(state, update(tables.approvals).values(person="x")),
        lambda state: run(state, update(tables.people).values(name="x")),
    ],
    "promoter": [
        lambda state: approve(state, actor=CAROL),
        lambda state: approvals.reject(state.db, assistant="a", version=1, actor=BOB, reason="x"),
        lambda state: leases.acquire(state.db, "lineage:a", "p", 60),
        lambda state: state.candidate("mail", None),
        lambda state: run(state, update(tables.promotions).values(by="x")),
        lambda state: run(state, select(tables.tokens)),
    ],
    "keeper": [
        lambda state: approve(state, actor=CAROL),
        promote,
        lambda state: run(state, delete(tables.candidates)),
        lambda state: run(state, update(tables.promotions).values(version="x")),
        lambda state: leases.acquire(state.db, "outbox:a", "k", 60),
    ],
}


@pytest.mark.parametrize("account", privileges.ACCOUNTS)
def test_deeds_of_others_are_refused(accounts, account):
    accounts["worker"].candidate("news", None)
    approve(accounts["service"])
    before = facts(accounts["owner"])
    for deed in [*FORBIDDEN[account], *EVERYBODY]:
        with pytest.raises(AccountRefused, match=f"lcia_{account}"):
            deed(accounts[account])
    assert facts(accounts["owner"]) == before


def facts(state):
    with state.db.read() as connection:
        return [connection.execute(select(table)).all() for table in tables.metadata.sorted_tables]


def test_the_script_may_be_repeated_and_names_every_table(accounts, postgresql):
    name = accounts["owner"].db.engine.url.database
    with accounts["owner"].db.begin() as connection:
        connection.execute(text("GRANT ALL ON champion TO lcia_worker"))
    postgresql.execute(privileges.script(), name)
    assert check_privileges(accounts["worker"].db).ok
    touched = {right.table for rights in privileges.RIGHTS.values() for right in rights}
    assert touched | privileges.OWNERS == set(tables.metadata.tables), (
        "a new table needs rights in components/storage/privileges.py"
    )
    for bad in ["Lcia", "a b", "x; DROP TABLE log", ""]:
        with pytest.raises(privileges.NameRefused):
            privileges.script(bad)


def test_what_replicas_report_is_written_by_the_service_alone(accounts):
    def report(state, replica):
        with state.db.begin() as connection:
            nothing = {"traffic": {}, "latency": {}, "trial": None, "actor": SYSTEM}
            replicas.record(connection, "a", replica, engine="e", version=None, ready=True, problem="", **nothing)

    report(accounts["service"], "one")
    report(accounts["service"], "one")
    for account in ("worker", "promoter", "keeper"):
        for replica in ("one", "two"):
            with pytest.raises(AccountRefused, match=f"lcia_{account}"):
                report(accounts[account], replica)
        with accounts[account].db.read() as connection:
            assert [one.replica for one in replicas.fleet(connection, "a").replicas] == ["one"]


def test_sign_ins_are_the_services_and_each_process_notes_its_own_rounds(accounts):
    worker, service, promoter, keeper = (accounts[name] for name in privileges.ACCOUNTS)
    with service.db.begin() as connection:
        people.add(connection, "ada", actor=SYSTEM)
        sign_in = sessions.begin(connection, "ada", timedelta(hours=1))
        assert sessions.stands(connection, sign_in, "ada")
        sessions.end(connection, sign_in)
        assert not sessions.stands(connection, sign_in, "ada")
        rounds.record(connection, "mlflow", "service/h", "away")
    with worker.db.begin() as connection:
        rounds.record(connection, "work", "worker/h", "stuck")
        assert {one.process for one in rounds.failing(connection)} == {"service/h", "worker/h"}
    for state, write in (
        (worker, lambda connection: rounds.record(connection, "mlflow", "service/other", None)),
        (worker, lambda connection: sessions.begin(connection, "ada", timedelta(hours=1))),
        (worker, lambda connection: sessions.stands(connection, sign_in, "ada")),
        (promoter, lambda connection: sessions.stands(connection, sign_in, "ada")),
        (keeper, lambda connection: rounds.record(connection, "mlflow", "service/h", None)),
        (service, lambda connection: connection.execute(update(tables.sessions).values(ended_at=None))),
        (service, lambda connection: connection.execute(update(tables.sessions).values(person="ada"))),
    ):
        with pytest.raises(AccountRefused), state.db.begin() as connection:
            write(connection)
    with worker.db.begin() as connection:  # of another's row nothing is there to change
        assert (
            connection.execute(
                update(tables.rounds).where(tables.rounds.c.name == "mlflow").values(failures=0)
            ).rowcount
            == 0
        )


def test_what_was_told_too_late_is_told_again_by_the_promoters_account(accounts, registry: Registry, monkeypatch):
    """Stopped before the alias; the worker's own account, which may tell of no champion, is not troubled by it."""
    worker, service, promoter, _ = (accounts[name] for name in privileges.ACCOUNTS)
    first = worker.candidate("news", None)
    approve(service)
    promote(promoter)
    apply_outbox(promoter.db, promoter.store, registry)
    second = worker.candidate("mail", first.digest)
    approve(service, 2)
    promote(promoter, 2)
    serve = registry._serve

    def stood_still(client, version, digest):
        """Meanwhile others took over, decided for 1 again and told it."""
        monkeypatch.setattr(registry, "_serve", serve)
        with accounts["owner"].db.begin() as connection:
            leases.break_lease(connection, "outbox:a", force=True)
        champion.rollback(promoter.db, promoter.store, assistant="a", version=1, actor=CAROL, reason="2 was wrong")
        apply_outbox(promoter.db, promoter.store, registry)
        assert registry.champion() == first.digest
        return serve(client, version, digest)

    monkeypatch.setattr(registry, "_serve", stood_still)
    apply_outbox(promoter.db, promoter.store, registry)
    assert registry.champion() == first.digest != second.digest
    registry.rollback(second.digest)
    assert second.digest[:12] in str(serving_watch.watch(promoter.db, registry))
    apply_outbox(promoter.db, promoter.store, registry)
    assert (registry.champion(), serving_watch.watch(promoter.db, registry)) == (first.digest, None)
    registry.rollback(second.digest)
    with pytest.raises(AccountRefused):
        serving_watch.watch(worker.db, registry)
