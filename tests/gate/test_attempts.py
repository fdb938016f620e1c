"""Attempts count by a task's name and owner, whatever its rows and the champion."""

import json
from datetime import UTC, datetime, timedelta

from promotion_state import BOB, SITE
from sqlalchemy import select, update

from components.audit.log import SYSTEM
from components.gate.attempts import Family, attempts, base_model_family
from components.gate.gate import decide_gate
from components.gate.inputs import GateEvidence
from components.promotion import approvals, candidates, champion
from components.promotion.policy import accept, in_force, install, propose
from components.settings import GateSettings, PolicySettings
from components.storage.tables import log, policies

NEWS = Family("a", "news", "team")
WINDOW = 90
AUTO = PolicySettings.model_validate({"approval": {"auto": True, "auto_if": "pass"}})


def count(state, family=NEWS, window: float = WINDOW) -> int:
    with state.db.read() as connection:
        return attempts(connection, family, window)


def judged(state, version: int, *, task: str, name: str = "news", owner: str = "team", parent=None, **fields):
    """A version of other rows, and so of another task digest, as `lcia run` registers one."""
    from components.tasks import queue as tasks

    with state.db.begin() as connection:
        item = tasks.submit(
            connection, assistant="a", package=task, task=task, name=name, version=str(version), owner=owner,
            submitted_by=SITE,
        )  # fmt: skip
        for step in ("assessing", "learning", "candidate"):
            tasks.move(connection, None, item.id, step, "test", launched_by="lena")
        return candidates.register(
            connection, None, assistant="a", digest=task[::-1], task=task, task_name=f"{name}@{version}",
            parent=parent, evidence="e" * 64, verdict="fail", submitted_by="site", launched_by="lena", item=item.id,
            **fields,
        )  # fmt: skip


def digest(number: int) -> str:
    return f"{number:02d}" + "a" * 62


def test_resubmissions_with_other_rows_are_further_attempts(state):
    for number in range(1, 21):
        assert count(state) == number - 1
        made = judged(state, number, task=digest(number), attempt=count(state) + 1)
        assert made.attempt == number
        approvals.reject(state.db, assistant="a", version=number, actor=BOB, reason="no")
    assert count(state) == 20


def test_twenty_resubmissions_err_together_less_than_twice_the_level():
    """Attempt k counts where policy allows it; at the whole level each, some would pass with probability .64."""
    policy = GateSettings()
    reports = [decide_gate(GateEvidence(prior=(), new=None, attempt=k), policy) for k in range(1, 21)]
    levels = [report.alpha for report in reports if report.verdict == "pass"]
    assert len(levels) == policy.max_attempts
    assert sum(levels) < 2 * (1 - policy.confidence) < 1 - 0.95**20


def test_other_names_owners_and_assistants_do_not_count(state):
    judged(state, 1, task=digest(1))
    judged(state, 1, task=digest(2), name="newsletter")
    judged(state, 2, task=digest(3), owner="others")
    assert count(state) == 1
    assert count(state, Family("b", "news", "team")) == 0
    assert count(state, Family("a", "news", "others")) == 1


def test_a_promotion_begins_anew(state):
    judged(state, 1, task=digest(1))
    approvals.reject(state.db, assistant="a", version=1, actor=BOB, reason="no")
    first = state.candidate("news", None)
    assert (first.attempt, count(state)) == (2, 2)
    champion.promote(state.db, state.store, assistant="a", version=2, actor=SYSTEM, policy=AUTO, reason="auto",
                     automatic=True)  # fmt: skip
    assert count(state) == 0
    judged(state, 3, task=digest(3), parent=first.digest)
    assert count(state) == 1


def test_attempts_leave_the_count_after_the_window(state, monkeypatch):
    judged(state, 1, task=digest(1))
    judged(state, 2, task=digest(2))
    later = datetime.now(UTC) + timedelta(days=89)
    monkeypatch.setattr("components.gate.attempts.now", lambda _: later)
    assert count(state) == 2
    assert count(state, window=88) == 0


def test_a_version_registered_again_counts_again(state):
    first = state.candidate("news", None)
    approvals.reject(state.db, assistant="a", version=1, actor=BOB, reason="later")
    with state.db.begin() as connection:
        from components.tasks import queue as tasks

        tasks.move(connection, None, first.item, "submitted", "tried again", actor=BOB)
    assert state.candidate("news", None).attempt == 2
    assert count(state) == 2


def test_candidates_of_an_earlier_release_count(state):
    """It recorded the first attempt for each digest; its log says what was registered."""
    for number in (1, 2, 3):
        judged(state, number, task=digest(number), attempt=1)
        approvals.reject(state.db, assistant="a", version=number, actor=BOB, reason="no")
    with state.db.read() as connection:
        assert {one.attempt for one in candidates.versions(connection, "a")} == {1}
    assert count(state) == 3


def test_another_base_model_is_a_family_of_its_own(state):
    family = base_model_family("a", "org/model")
    with state.db.begin() as connection:
        candidates.register(
            connection, None, assistant="a", digest=digest(1), task=digest(2), task_name=f"3 tasks{family.name}",
            parent=None, evidence="e" * 64, verdict="fail", submitted_by="x", launched_by="y",
        )  # fmt: skip
    assert count(state, family) == 1
    assert count(state, base_model_family("a", "org/other")) == 0
    assert count(state) == 0


def test_the_gate_says_how_attempts_are_counted():
    report = decide_gate(GateEvidence(prior=(), new=None, attempt=2), GateSettings(attempts_window_days=30))
    [words] = [row.words for row in report.rows if row.rule == "attempts"]
    assert words == "attempt 2 of 3 (counted by name and owner over 30 days), tested at 0.0250 one-sided"


def test_a_server_policy_of_an_earlier_release_holds(state):
    """It knew no window."""
    with state.db.begin() as connection:
        install(connection, "a", PolicySettings(), actor=SYSTEM)
        content = connection.execute(select(policies.c.content)).scalar_one()
        old = {**content, "gate": {k: v for k, v in content["gate"].items() if k != "attempts_window_days"}}
        connection.execute(update(policies).values(content=old))
    with state.db.begin() as connection:
        assert in_force(connection, "a").settings.gate.attempts_window_days == 90
        made = propose(connection, "a", {"gate": {"max_attempts": 2}}, actor=BOB, reason="stricter")
        [body] = connection.execute(select(log.c.body).order_by(log.c.position.desc()).limit(1)).scalars()
        assert json.loads(body)["details"]["changed"] == ["gate.max_attempts"]
        assert accept(connection, "a", made.id, actor=SITE, reason="yes").settings.gate.max_attempts == 2
