"""Random histories of operators, approvers, admins and crashes, against a plain model of who may do what.

The policy changes under way, people are shut out, and versions that were rolled away from are gone forward to again.

LCIA_HISTORIES makes it as long as one likes.
"""

import contextlib
import os
import shutil
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule
from promotion_state import State
from sqlalchemy import select, update

from components.audit.log import SYSTEM, Actor
from components.audit.verify import verify_database
from components.errors import LciaError
from components.identity import people
from components.promotion import approvals, candidates, champion, policy, train
from components.promotion.automatic import promote_waiting
from components.settings import ApprovalSettings, PolicySettings
from components.storage.database import Database, now
from components.storage.objects import ObjectStore
from components.storage.tables import approvals as approvals_table
from components.tasks import queue

HISTORIES = int(os.environ.get("LCIA_HISTORIES", "12"))
POLICY = PolicySettings(approval=ApprovalSettings(quorum=2))
PEOPLE = ("ann", "bob", "cleo", "site", "lena")
"""The last two brought every task in: they may not say yes."""
ELIGIBLE = {"ann", "bob", "cleo"}
person = st.sampled_from(PEOPLE)


class Crash(Exception):
    """The process ends here."""


class Undone(Exception):
    """Ends a transaction without a trace."""


class History(RuleBasedStateMachine):
    """Real database and store; `model` says what should be."""

    versions = Bundle("versions")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        db = Database(f"sqlite:///{self.folder}/state.db")
        db.migrate()
        self.state = State(self.folder, db, ObjectStore(f"file://{self.folder}/objects"))
        self.parent: dict[str, str | None] = {}
        self.verdict: dict[str, str] = {}
        self.name: dict[str, str] = {}
        self.number: dict[str, int] = {}
        self.queued: set[str] = set()
        """Tasks whose version was set aside."""
        self.yes: dict[str, set[str]] = {}
        """Who said yes since the champion moved last, and it did not expire."""
        self.given: dict[str, set[str]] = {}
        """Who said yes ever, and did not take it back."""
        self.ended: dict[str, str] = {}
        self.line: list[str] = []
        """Champions, in order."""
        self.quorum = 2
        self.shut_out: set[str] = set()
        self.made = 0
        self.expired: dict[int, datetime] = {}
        """By approval: what stood there before the test let its time pass, which the log knows."""
        with self.state.db.begin() as connection:
            policy.install(connection, "a", POLICY, actor=SYSTEM)
            for name in (*PEOPLE, "ada", "eve"):
                people.add(connection, name, actor=SYSTEM)
                role = "admin" if name in ("ada", "eve") else "approver"
                people.grant(connection, name, role, actor=SYSTEM)

    def teardown(self) -> None:
        self.state.db.engine.dispose()
        shutil.rmtree(self.folder)

    def where(self, version: str) -> dict:
        return {"assistant": "a", "version": version}

    def attempt(self, do, *, should: bool):
        """Do it; it works exactly when the model says so."""
        done, refusal = None, None
        try:
            done = do()
        except LciaError as error:
            refusal = error
        assert (refusal is None) is should, refusal or done
        return done

    def pending(self, version: str) -> bool:
        return version not in self.ended

    def now(self) -> str | None:
        return self.line[-1] if self.line else None

    @rule(target=versions, verdict=st.sampled_from(["pass", "pass", "pass", "fail"]), on_train=st.booleans())
    def learn(self, verdict: str, on_train: bool) -> str:
        self.made += 1
        return self.register(f"task-{self.made}", self.train_end() if on_train else self.now(), verdict)

    @precondition(lambda self: "superseded" in self.ended.values())
    @rule(target=versions)
    def carry_over(self) -> str:
        """What stood on a version that was passed over is made again on what stands now."""
        before = next(one for one, end in self.ended.items() if end == "superseded" and self.is_queued(one))
        return self.register(self.name[before], self.train_end(), self.verdict[before])

    def register(self, name: str, parent: str | None, verdict: str) -> str:
        made = self.state.candidate(name, parent, verdict)
        self.parent[made.digest], self.verdict[made.digest] = parent, verdict
        self.name[made.digest], self.number[made.digest] = name, made.number
        self.yes[made.digest], self.given[made.digest] = set(), set()
        self.ended.pop(made.digest, None)
        self.queued.discard(name)
        return made.digest

    def is_queued(self, version: str) -> bool:
        return self.name[version] in self.queued

    def in_order(self) -> list[str]:
        return sorted((one for one in self.parent if self.pending(one)), key=self.number.__getitem__)

    def train_end(self) -> str | None:
        """The newest undecided version that passed, reached from the champion by such versions alone."""
        end = self.now()
        while on_it := [one for one in self.in_order() if self.parent[one] == end and self.verdict[one] == "pass"]:
            end = on_it[-1]
        return end

    def set_aside(self) -> None:
        """What does not lead back to the champion by undecided versions goes on elsewhere."""
        for version in self.in_order():
            base = self.parent[version]
            if base != self.now() and not (base is not None and self.pending(base)):
                self.ended[version] = "superseded"
                self.queued.add(self.name[version])

    def above(self, version: str | None) -> set[str]:
        """What a version was made on, itself included."""
        found: set[str] = set()
        while version is not None:
            found.add(version)
            version = self.parent[version]
        return found

    def away(self, version: str) -> bool:
        """It was champion, and the present one was not made on it."""
        return version in self.line and version not in self.above(self.now())

    def undecided(self, version: str) -> bool:
        return self.pending(version) or self.away(version)

    def counted(self, version: str) -> set[str]:
        return self.yes[version] - self.shut_out

    def approve_as(self, version: str, name: str) -> None:
        able = name in ELIGIBLE - self.shut_out
        should = self.undecided(version) and able and self.verdict[version] == "pass"
        actor = Actor(name, assured=True, how="token")
        told = self.where(version) | {"actor": actor, "reason": "read", "policy": POLICY}
        if self.attempt(lambda: approvals.approve(self.state.db, self.state.store, **told), should=should):
            self.yes[version].add(name)
            self.given[version].add(name)

    @rule(version=versions, name=person)
    def approve(self, version: str, name: str) -> None:
        self.approve_as(version, name)

    @rule(version=versions)
    def approve_by_both(self, version: str) -> None:
        for name in sorted(ELIGIBLE):
            self.approve_as(version, name)

    @rule(version=versions, name=person)
    def revoke(self, version: str, name: str) -> None:
        told = self.where(version) | {"actor": Actor(name, assured=True, how="token"), "reason": "again"}
        should = self.undecided(version) and name in self.given[version]
        if self.attempt(lambda: approvals.revoke(self.state.db, **told), should=should):
            self.yes[version].discard(name)
            self.given[version].discard(name)

    @rule(quorum=st.sampled_from([1, 2, 2, 3]))
    def policy_changed(self, quorum: int) -> None:
        """Two admins change it; a quorum of another number decides from that moment."""
        if quorum != self.quorum:
            with self.state.db.begin() as connection:
                changes = {"approval": {"quorum": quorum}}
                made = policy.propose(connection, "a", changes, actor=Actor("ada", assured=True), reason="more care")
                policy.accept(connection, "a", made.id, actor=Actor("eve", assured=True), reason="agreed")
            self.quorum = quorum

    @rule(name=st.sampled_from(["cleo", "bob"]))
    def person_disabled(self, name: str) -> None:
        with self.state.db.begin() as connection:
            people.disable(connection, name, actor=SYSTEM, reason="left")
        self.shut_out.add(name)

    @rule(version=versions)
    def expire(self, version: str) -> None:
        if self.pending(version):
            with self.state.db.begin() as connection:
                mine = approvals_table.c.candidate == version
                for row in connection.execute(select(approvals_table).where(mine)).all():
                    self.expired.setdefault(row.id, row.expires_at)
                gone = {"expires_at": now(connection) - timedelta(seconds=1)}
                connection.execute(update(approvals_table).where(mine).values(**gone))
            self.yes[version] = set()

    @rule(version=versions, name=person)
    def reject(self, version: str, name: str) -> None:
        told = self.where(version) | {"actor": Actor(name, assured=True, how="token"), "reason": "no"}
        if self.attempt(lambda: approvals.reject(self.state.db, **told), should=self.pending(version)):
            self.ended[version] = "rejected"
            self.set_aside()

    def promotable(self, version: str) -> bool:
        fresh = self.pending(version) and self.parent[version] == self.now()
        enough = len(self.counted(version)) >= self.quorum and self.verdict[version] == "pass"
        return (fresh or self.away(version)) and enough

    def promote_as(self, version: str, name: str):
        told = self.where(version) | {"actor": Actor(name, assured=True, how="token"), "policy": POLICY}
        return champion.promote(self.state.db, self.state.store, **told)

    @rule(version=versions, name=person)
    def promote(self, version: str, name: str) -> None:
        stands = self.now() == version
        done = self.attempt(lambda: self.promote_as(version, name), should=stands or self.promotable(version))
        if done and not done.known:
            self.promoted(version)

    def promoted(self, version: str) -> None:
        self.moved(version)
        self.ended[version] = "promoted"
        self.set_aside()

    @rule()
    def turns_come(self) -> None:
        """Versions that have their approvals follow, the oldest first."""
        outcomes = promote_waiting(self.state.db, self.state.db, self.state.store, "a", POLICY)
        expected = []
        while ready := [one for one in self.in_order() if self.promotable(one)]:
            expected.append(ready[0])
            self.promoted(ready[0])
        assert [one.candidate.digest for one in outcomes if one.promotion] == expected

    @rule(version=versions, where=st.sampled_from(["append", "enqueue", "_supersede", "_swap"]))
    def crash_while_promoting(self, version: str, where: str) -> None:
        if self.promotable(version):
            with mock.patch.object(champion, where, side_effect=Crash):
                try:
                    self.promote_as(version, "ann")
                except Crash:
                    return
            raise AssertionError(f"{where} is not on the way of a promotion any more")

    @precondition(lambda self: self.line)
    @rule(version=versions)
    def roll_back(self, version: str) -> None:
        told = self.where(version) | {"actor": Actor("ann", assured=True, how="token"), "reason": "complaints"}
        should = version in self.above(self.now()) and self.now() != version
        if self.attempt(lambda: champion.rollback(self.state.db, self.state.store, **told), should=should):
            self.moved(version)
            self.set_aside()

    @precondition(lambda self: any(self.away(version) for version in self.line))
    @rule(name=person)
    def rolled_away_then_forward(self, name: str) -> None:
        """Nobody goes forward by a rollback; two who approve it again may."""
        version = next(one for one in reversed(self.line) if self.away(one))
        told = self.where(version) | {"actor": Actor(name, assured=True, how="token"), "reason": "bring it back"}
        self.attempt(lambda: champion.rollback(self.state.db, self.state.store, **told), should=False)
        self.approve_by_both(version)
        self.promote(version, name)

    def moved(self, version: str) -> None:
        """The champion is another: a yes to what was rolled away from has to be given anew."""
        self.line.append(version)
        for other in self.yes:
            if not self.pending(other):
                self.yes[other] = set()

    @invariant()
    def the_books_agree(self) -> None:
        with self.state.db.read() as connection:
            line = champion.lineage(connection, "a")
            standing = champion.current(connection, "a")
            states = {one.digest: one.state for one in candidates.versions(connection, "a")}
            items = {one.id: one.state for one in queue.items(connection, "a")}
            end = train.end(connection, "a", POLICY.gate)
            owners = {one.digest: one.item for one in candidates.versions(connection, "a")}
            by = connection.execute(
                select(approvals_table.c.person).where(approvals_table.c.verdict == "approve")
            ).all()
        with contextlib.suppress(Undone), self.state.db.begin() as connection:
            for identity, moment in self.expired.items():
                mine = approvals_table.c.id == identity
                connection.execute(update(approvals_table).where(mine).values(expires_at=moment))
            checked = verify_database(connection)
            raise Undone
        assert checked.ok, checked.message
        assert [made.version for made in line] == self.line
        assert [made.epoch for made in line] == list(range(1, len(line) + 1))
        assert (standing.version if standing else None) == self.now()
        assert {name for (name,) in by} <= ELIGIBLE
        assert states == {version: self.ended.get(version, "pending") for version in self.parent}
        assert end == self.train_end()
        for version, item in owners.items():
            if states[version] == "promoted":
                assert items[item] == "promoted"


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=HISTORIES,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
