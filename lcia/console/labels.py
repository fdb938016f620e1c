"""The console's words for names in the state: states, verdicts, rules, roles, kinds of log entries.

Keys are the names, values messages of the catalogue. Words of a record stay in English; sentences from its numbers are
made here, in the reader's language.
"""

from collections.abc import Callable, Mapping
from typing import Any

Say = Callable[[str], str]
UNKNOWN = "\N{EN DASH}"
"""Stands where there is no value."""


def _(message: str) -> str:
    """Marks a message; it is translated where it is shown."""
    return message


NAMES: Mapping[str, str] = {
    # states of a task
    "submitted": _("in the queue"),
    "assessing": _("being checked"),
    "held": _("held"),
    "waiting": _("waiting for a decision"),
    "learning": _("being learnt"),
    "candidate": _("candidate"),
    "failed": _("failed"),
    "refused": _("refused"),
    "rejected": _("rejected"),
    "nothing_to_learn": _("already known"),
    "cancelled": _("cancelled"),
    "promoted": _("in use"),
    "withdrawn": _("withdrawn"),
    # states of a version
    "pending": _("waiting for approval"),
    "superseded": _("superseded"),
    "champion": _("champion"),
    "earlier": _("earlier champion"),
    # trials
    "shadow": _("shadow"),
    "canary": _("canary"),
    "under_way": _("under way"),
    "ended": _("ended"),
    "errors": _("errors"),
    "slow": _("slow answers"),
    "none_routed": _("answers by no group"),
    "complaints": _("complaints"),
    "person": _("stopped by a person"),
    "time": _("time is up"),
    # verdicts
    "pass": _("pass"),
    "fail": _("fail"),
    "inconclusive": _("inconclusive"),
    "info": _("for information"),
    "warn": _("warning"),
    "refuse": _("refuse"),
    "hold": _("hold"),
    "learn": _("learn"),
    "known": _("known"),
    "related": _("related"),
    "new": _("new"),
    "extreme": _("extreme"),
    # decisions about the champion
    "promotion": _("promotion"),
    "rollback": _("rollback"),
    "approve": _("approved"),
    "reject": _("rejected"),
    # rules of the gate
    "validation": _("data checks"),
    "drift": _("drift"),
    "routing": _("routing"),
    "reworded": _("requests in other words"),
    "fallback": _("fallbacks"),
    "attempts": _("attempts"),
    "new task": _("new task"),
    "step": _("against the champion"),
    "lifetime": _("against the first version"),
    "pooled": _("group as a whole"),
    "unchanged": _("unchanged"),
    "not measurable": _("not measurable"),
    "not taught": _("not taught"),
    "reserve": _("reserve"),
    "power": _("power"),
    "power as seen": _("power as seen"),
    "cost": _("cost"),
    # reports and pictures
    "grouping": _("grouping"),
    "tuning": _("tuning"),
    "evaluation": _("evaluation"),
    "gate": _("gate"),
    "card": _("model card"),
    "evidently": _("drift in detail"),
    "loss": _("loss"),
    "beta": _("beta"),
    "distance": _("distance"),
    "curve": _("curve"),
    "heat_map": _("accuracy matrix"),
    "history": _("history"),
    # changed rows
    "lost": _("lost"),
    "won": _("won"),
    # kinds of log entries
    "task.prioritised": _("priority of a task changed"),
    "task.submitted": _("task submitted or queued again"),
    "task.assessing": _("task being checked"),
    "task.held": _("task held"),
    "task.waiting": _("task waits"),
    "task.learning": _("task being learnt"),
    "task.candidate": _("task led to a version"),
    "task.promoted": _("task put in use"),
    "task.failed": _("task failed"),
    "task.refused": _("task refused"),
    "task.rejected": _("task rejected"),
    "task.cancelled": _("task cancelled"),
    "task.withdrawn": _("task withdrawn"),
    "task.superseded": _("task replaced by another"),
    "task.nothing_to_learn": _("task already known"),
    "candidate.registered": _("version proposed"),
    "candidate.approved": _("version approved"),
    "candidate.rejected": _("version rejected"),
    "approval.revoked": _("approval revoked"),
    "gate.overridden": _("approved against the gate"),
    "champion.promoted": _("champion promoted"),
    "champion.rolled_back": _("champion rolled back"),
    "flips.seen": _("changed test rows looked at"),
    "trial.requested": _("canary asked for"),
    "trial.approved": _("canary approved"),
    "trial.started": _("trial started"),
    "trial.ended": _("trial ended"),
    "trial.read": _("changed answers of a trial looked at"),
    "policy.proposed": _("policy proposed"),
    "policy.accepted": _("policy accepted"),
    "policy.refused": _("policy refused"),
    "person.added": _("person added"),
    "person.disabled": _("person shut out"),
    "person.signed_in": _("person signed in"),
    "role.granted": _("role granted"),
    "role.withdrawn": _("role taken back"),
    "appointment.proposed": _("role or account proposed"),
    "appointment.accepted": _("role or account accepted"),
    "appointment.refused": _("role or account refused"),
    "person.connected": _("account connected"),
    "token.created": _("token created"),
    "token.revoked": _("token revoked"),
    "access.denied": _("access denied"),
    "lease.broken": _("lease broken"),
    "registry.repaired": _("MLflow repaired"),
    "version.differs": _("answers differ from the record"),
    "retention.swept": _("old data deleted"),
    "key.started": _("signing key created"),
    "key.rotated": _("signing key replaced"),
    # people and tokens
    "known person": _("may sign in"),
    "no role": _("has no role"),
    "shut out": _("shut out"),
    "counts": _("counts"),
    "expired": _("expired"),
    "revoked": _("revoked"),
    # permissions
    "look": _("look at everything but test rows"),
    "read_rows": _("read test rows"),
    "submit": _("submit tasks"),
    "operate": _("run tasks"),
    "decide": _("decide about versions"),
    "revoke": _("revoke approvals"),
    "roll_back": _("roll back"),
    "withdraw": _("withdraw tasks"),
    "audit": _("read the log"),
    "administer": _("manage people and policy"),
    "serve": _("run a gateway"),  # the two roles for programs are called like what they permit
    "answer": _("ask the assistant"),
    "try": _("ask versions that are not in use"),
    # the policy
    "approval": _("approval"),
    "open": _("open"),
    "accepted": _("accepted"),
    # adapters of two versions
    "same": _("the same"),
    "changed": _("changed"),
    "only_before": _("only before"),
    "only_after": _("only after"),
    # roles
    "submitter": _("submitter"),
    "engineer": _("engineer"),
    "approver": _("approver"),
    "auditor": _("auditor"),
    "admin": _("admin"),
}

HINTS: Mapping[str, str] = {
    "held": _("A person has to decide how to continue."),
    "waiting": _("Another version waits for a decision first; only one can wait at a time."),
    "superseded": _("The champion changed before people decided; the task can be learnt again."),
    "nothing_to_learn": _("The champion can already do this task, as its validation rows show."),
    "inconclusive": _("Shown neither harmless nor harmful; more test rows would decide it."),
    "step": _("Loss of an earlier task against the version in use, with its confidence interval."),
    "lifetime": _("Loss of an earlier task since the version that first learnt it: small losses must not add up."),
    "pooled": _("The earlier tasks of one group taken together, against a tighter limit."),
    "unchanged": _("No prediction of this task changed, so nothing was lost."),
    "not measurable": _("No test rows of this task are kept here, so forgetting can't be measured."),
    "not taught": _("No rows of this task are kept, so another base model could not learn it."),
    "new task": _("Whether the new task was learnt at all."),
    "routing": _("Share of the new task's requests that reach the adapter that learnt it."),
    "reworded": _("Whether earlier tasks are still found by people who word their requests differently."),
    "attempts": _("Each further attempt at the same task is judged more strictly."),
    "reserve": _("Test rows held back, used only if the others do not decide."),
    "power": _("How likely these rules are to let a harmless version pass."),
    "power as seen": _("The same, with as many changed rows as there really were."),
    "fallback": _("Share of updates where the averaging rule gave no value and a fixed one was used."),
    "validation": _("Rules over the rows of the task: duplicates, leaks into test rows, personal data and more."),
    "drift": _("How unlike the new task is to everything learnt before."),
    "cost": _("Time and money it took."),
    "Avg.ACC": _("Mean score over all tasks now."),
    "New.ACC": _("Mean score of each task right after it was learnt."),
    "BWT": _("Mean change of each task's score since it was learnt; below zero something was forgotten."),
    "Forgetting": _("Mean loss against each task's best version so far; a little above zero by chance alone."),
}


def word_for(say: Say, name: str | None) -> str:
    """The words for a name; the name itself where there are none."""
    if not name:
        return ""
    return say(NAMES[name]) if name in NAMES else name


def hint_for(say: Say, name: str | None) -> str:
    """The meaning of a name; empty where it speaks for itself."""
    return say(HINTS[name]) if name and name in HINTS else ""


def duration(say: Say, seconds: float | None) -> str:
    """A length of time, in the unit people would use."""
    if seconds is None:
        return UNKNOWN
    for size, message in (
        (86400, _("%(n)s days")),
        (3600, _("%(n)s hours")),
        (60, _("%(n)s minutes")),
    ):
        if seconds >= 2 * size:
            return say(message) % {"n": round(seconds / size)}
    return say(_("%(n)s seconds")) % {"n": round(seconds)}


def gate_row(say: Say, row: Mapping[str, Any]) -> str:
    """A row of the gate's report in a sentence, from its numbers."""
    if row["rule"] in ("validation", "drift"):
        return say(_("Verdict: %(verdict)s.")) % {"verdict": word_for(say, row["assessment"])}
    message = _SENTENCES.get((row["rule"], row["verdict"])) or _SENTENCES.get((row["rule"], ""))
    if message is None or any(row[name] is None for name in _needs(message)):
        return str(row["words"])
    numbers = {name: _number(row[name], row["rule"]) for name in _needs(message)}
    return say(message) % numbers


_SHARES = frozenset({"routing", "reworded", "fallback", "power", "power as seen"})
_DROP = {
    "pass": _("Lost %(value)s, at most %(high)s with confidence: within the limit of %(limit)s."),
    "fail": _("Lost %(value)s: with confidence more than the limit of %(limit)s."),
    "inconclusive": _("Lost %(value)s, at most %(high)s with confidence; limit %(limit)s: too few rows to tell."),
}
_SENTENCES: Mapping[tuple[str, str], str] = {
    **{(rule, verdict): text for rule in ("step", "lifetime", "pooled") for verdict, text in _DROP.items()},
    ("new task", "pass"): _("Gained %(value)s against the champion, at least %(low)s with confidence."),
    ("new task", "fail"): _("Changed by %(value)s against the champion: not learnt."),
    ("new task", "inconclusive"): _("Gained %(value)s, at least %(low)s with confidence: known, or too few rows."),
    ("unchanged", ""): _("No prediction changed, so nothing was lost: proven, not measured."),
    ("not measurable", ""): _("No test rows are kept here: forgetting can't be measured."),
    ("attempts", ""): _("Attempt %(value)s of at most %(limit)s at this task."),
    ("routing", ""): _("%(value)s of its test rows reach its group; %(limit)s are needed."),
    ("reworded", ""): _("%(value)s of the wordings of earlier tasks no longer reach their group; %(limit)s may."),
    ("fallback", ""): _("%(value)s of the updates fell back to a fixed rate; %(limit)s are allowed."),
    ("power", ""): _("A version that does no harm passes these rules with probability %(value)s."),
    ("power as seen", ""): _("With as many changed rows as here it passes with probability %(value)s."),
}


def _needs(message: str) -> list[str]:
    return [name for name in ("value", "low", "high", "limit") if f"%({name})s" in message]


def _number(value: float, rule: str) -> str:
    if rule in _SHARES:
        return f"{100 * value:.1f} %"
    if rule == "attempts":
        return f"{value:.0f}"
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")
