"""What people and gateways do about trials, in one line each."""

from promotion_state import BOB, CAROL

from components.audit.log import Actor
from components.promotion import approvals, champion, trials
from components.promotion.trial_counts import BUCKETS
from components.settings import PolicySettings
from components.settings.gateway import TrialSettings

POLICY = PolicySettings()
RULES = TrialSettings()
ERIN = Actor("erin", assured=True, how="console")


def approve(state, version, actor=BOB, policy=POLICY, **more):
    return approvals.approve(
        state.db, state.store, assistant="a", version=version, actor=actor, reason="fine", policy=policy, **more
    )


def promote(state, version, policy=POLICY, **more):
    return champion.promote(
        state.db, state.store, assistant="a", version=version, actor=CAROL, policy=policy, reason="go", **more
    )


def two(state, **more):
    """A champion and a candidate made on it."""
    first = state.candidate("news", None)
    approve(state, 1)
    promote(state, 1)
    return state.candidate("mail", first.digest, **more)


def start(state, kind="shadow", share=0.5, actor=ERIN, version=2, policy=POLICY, rules=RULES):
    return trials.start(
        state.db,
        state.store,
        assistant="a",
        version=version,
        kind=kind,
        share=share,
        actor=actor,
        reason="how does it do",
        policy=policy,
        rules=rules,
    )


def yes(state, number, actor=BOB, policy=POLICY):
    return trials.approve(
        state.db, state.store, assistant="a", number=number, actor=actor, reason="go on", policy=policy
    )


def stop(state, number, actor=ERIN):
    return trials.stop(state.db, state.store, assistant="a", number=number, actor=actor, reason="enough", keep_days=30)


def arm(requests=0, **bad):
    return {"requests": requests, "errors": 0, "slow": 0, "none_routed": 0, "rated": 0, "complaints": 0, **bad}


def report(number, champion=None, candidate=None, pairs=None, **more):
    return {
        "id": number,
        "counts": {"champion": champion or arm(), "candidate": candidate or arm()},
        "pairs": pairs and {"agreed": 0, **{key: [0, 0] for key in ("errors", "slow", "none_routed")}, **pairs},
        "latency": {name: [0] * len(BUCKETS) for name in ("champion", "candidate")},
        **more,
    }


def record(state, value, replica="r1", keep=True):
    return trials.record(state.db, state.store, assistant="a", replica=replica, report=value, keep=keep, keep_days=30)


def serving(state):
    with state.db.read() as connection:
        return trials.under_way(connection, state.store, "a")
