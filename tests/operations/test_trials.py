"""The story of a trial on a learnt assistant: a shadow that its rule stops, a canary, and approvals bound to both."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from small_loop import OPS, SITE, SmallLoop
from sqlalchemy import update
from trial_deeds import arm, report

from components.audit import keys, log, statement
from components.audit.log import Actor
from components.errors import LciaError
from components.promotion.approvals import EvidenceVoid, FourEyesRefused
from components.promotion.trials import TrialNeedsOthers
from components.storage import tables
from components.storage.objects import Json
from lcia.cli.text import status as status_text
from lcia.cli.text import trials as texts
from lcia.cli.text import versions as version_texts
from lcia.instance import Instance
from lcia.operations import audit, retention
from lcia.operations.table import OPERATIONS

ERIN = Actor("erin", assured=False)
GATEWAY = Actor("gateway-1", assured=True, how="token 1")


@pytest.fixture
def instance(fourth: SmallLoop) -> Instance:
    return fourth.open("gateway.keep=masked")


def do(instance: Instance, name: str, actor: Actor = ERIN, **params: Any) -> Any:
    operation = OPERATIONS[name]
    return operation.run(instance, actor, operation.check(params))


def tell(instance: Instance, trial: Json) -> None:
    do(instance, "report", GATEWAY, replica="gw-1", engine="embedded", ready=True, trial=trial)


@pytest.fixture
def shadow(instance: Instance) -> Callable[[], Any]:
    return partial(do, instance, "start-trial", version="4", kind="shadow", share=1.0, reason="how does it do")


def test_a_shadow_that_answers_wrongly_stops_itself_and_joins_the_evidence(instance, shadow):
    begun = shadow()
    assert (begun["state"], begun["signed"], begun["problem"], begun["exit_code"]) == ("under_way", True, "", 0)
    heard = do(instance, "serving", GATEWAY)["trial"]
    told = statement.read_trial(heard["statement"].encode(), instance.public_key(), heard["digest"])
    assert (told.predicate["trial"], told.predicate["kind"], told.predicate["share"]) == (1, "shadow", 1.0)
    assert "trial 1, shadow of 1 with version 4" in status_text.status(do(instance, "status"))

    for n in range(1, 40):
        pairs = {"compared": 9 * n, "agreed": 5 * n, "errors": [4 * n, 0]}
        changed = [{"id": f"q{n}", "champion": "yes", "candidate": "no"}]
        tell(instance, report(1, arm(10 * n), arm(10 * n, errors=4 * n), pairs, changed=changed))
        if do(instance, "serving", GATEWAY)["trial"] is None:
            break
    (one,) = do(instance, "trials", version="4")["trials"]
    assert (one["state"], one["cause"], one["ended_by"], n < 20) == ("ended", "errors", "lcia", True)
    assert one["agreement"] == 5 / 9
    text = texts.trials({"trials": [one]})
    assert "rule errors: stopped it" in text
    assert "ended by lcia (errors): the rule errors stopped it" in text

    shown = do(instance, "show", version="4")
    assert [trial["record"] for trial in shown["trials"]] == [one["record"]]
    assert "rule errors: stopped it" in version_texts.show(shown)
    seen = do(instance, "trial-answers", OPS, trial=1)
    assert (len(seen["answers"]), seen["answers"][0]["candidate"]) == (n, "no")
    do(instance, "trial-answers", OPS, trial=1)
    with instance.db.read() as connection:
        looks = [entry for entry in log.entries(connection) if entry.action == "trial.read"]
    assert [(look.actor.name, look.details["rows"]) for look in looks] == [(OPS.name, n)]

    with pytest.raises(EvidenceVoid, match="a trial of version 4 ended meanwhile"):
        do(instance, "approve", OPS, version="4", reason="read", trials="0" * 64)
    answer = do(instance, "approve", OPS, version="4", reason="read", trials=shown["decision"]["trials"])
    assert answer["epoch"] == 4
    assert audit.signed_statement(instance, "4")["predicate"]["trials"] == [one["record"]]
    assert audit.verify(instance).ok


def test_a_canary_waits_for_somebody_else_and_a_person_stops_it_at_once(instance):
    asked = do(instance, "start-trial", version="4", kind="canary", share=0.1, reason="two weeks of shadow")
    assert (asked["state"], asked["exit_code"]) == ("waiting", 3)
    assert do(instance, "serving", GATEWAY)["trial"] is None
    assert "waits for approval by somebody else" in status_text.status(do(instance, "status"))
    with pytest.raises(FourEyesRefused):
        do(instance, "approve-trial", SITE, trial=1, reason="mine")
    with pytest.raises(TrialNeedsOthers):
        do(instance, "approve-trial", ERIN, trial=1, reason="mine")
    with pytest.raises(LciaError, match="waits for its approval"):
        tell(instance, report(1, arm(9), arm(1)))
    begun = do(instance, "approve-trial", OPS, trial=1, reason="shadow agreed")
    assert (begun["state"], begun["approved_by"], begun["signed"]) == ("under_way", OPS.name, True)
    assert do(instance, "serving", GATEWAY)["trial"]["kind"] == "canary"
    tell(instance, report(1, arm(90, rated=9), arm(10, rated=1)))
    ended = do(instance, "stop-trial", trial=1, reason="seen enough")
    assert do(instance, "serving", GATEWAY)["trial"] is None
    assert "Approvals given before count no more." in texts.stopped(ended)
    assert [rule["rule"] for rule in ended["rules"]] == ["errors", "slow", "none_routed", "complaints"]


def test_a_decision_ends_the_trial_and_writes_its_record(instance, shadow):
    shadow()
    tell(instance, report(1, arm(9), arm(9), {"compared": 9, "agreed": 9}))
    do(instance, "reject", OPS, version="4", reason="answers became longer")
    (one,) = do(instance, "trials")["trials"]
    assert (one["state"], one["cause"], one["why"]) == ("ended", "candidate", "version 4 is rejected")
    assert instance.store.get_json(one["record"])["pairs"]["agreed"] == 9


def test_a_sweep_erases_changed_answers_in_time_and_the_decision_still_rests_on_the_record(fourth):
    instance = fourth.open("gateway.keep=masked", "retention.grace_hours=0")
    do(instance, "start-trial", version="4", kind="shadow", share=1.0, reason="how does it do")
    retention.clean(instance, OPS)
    assert do(instance, "serving", GATEWAY)["trial"]["statement"]
    changed = [{"id": "q1", "champion": "yes", "candidate": "no"}]
    tell(instance, report(1, arm(9), arm(9), {"compared": 9, "agreed": 8}, changed=changed))
    ended = do(instance, "stop-trial", trial=1, reason="enough")
    digest = instance.store.get_json(ended["record"])["answers"]
    retention.clean(instance, OPS)
    assert do(instance, "trial-answers", OPS, trial=1)["answers"] == changed
    with instance.db.begin() as connection:
        connection.execute(update(tables.trials).values(answers_until=instance.db.now(connection)))
    assert do(instance, "trial-answers", OPS, trial=1)["answers"] == [], "read no more, even before the sweep"
    retention.clean(instance, OPS)
    assert instance.store.why_erased(digest) == "changed answers of trial 1: gateway.keep_days have passed"
    assert instance.store.exists(ended["record"])
    assert do(instance, "approve", OPS, version="4", reason="read")["epoch"] == 4


def test_an_approver_hears_that_the_end_of_the_trial_takes_the_approval_away(fourth):
    instance = fourth.open("policy.approval.quorum=2")
    do(instance, "start-trial", version="4", kind="shadow", share=0.5, reason="look")
    answer = do(instance, "approve", OPS, version="4", reason="read")
    assert (answer["exit_code"], answer["trial"]) == (3, 1)
    do(instance, "stop-trial", trial=1, reason="enough")
    decision = do(instance, "show", version="4")["decision"]
    assert [vote["why_not"] for vote in decision["given"]] == ["given before a trial of it ended"]


def test_without_the_key_a_trial_waits_for_its_signature_and_says_so(instance, shadow):
    private = instance.home / "keys" / keys.PRIVATE_NAME
    away = private.rename(instance.home / "away.pem")
    begun = shadow()
    assert not begun["signed"]
    assert "once its statement is signed" in begun["problem"]
    assert "once its statement is signed" in texts.started(begun)
    assert do(instance, "serving", GATEWAY)["trial"]["statement"] is None
    away.rename(private)
    assert all(one.ok for one in instance.sign())
    assert do(instance, "serving", GATEWAY)["trial"]["statement"] is not None
