"""The ledger: the facts that each table should hold, by the log, entry by entry.

Entries of earlier releases say less than those of this one; facts they don't give are not compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from components.audit.decisions import DECISIONS
from components.names import same_person
from components.storage.objects import Json

Body: TypeAlias = Mapping[str, Any]
Facts: TypeAlias = dict[str, Any]
REGISTERED = ("number", "task", "task_name", "parent", "evidence", "verdict", "attempt", "submitted_by", "launched_by",
               "item")  # fmt: skip
"""Details of a candidate's registration that its row repeats."""


@dataclass
class Ledger:
    """Facts that the tables should hold, built entry by entry."""

    disownments: Mapping[int, str] = field(default_factory=dict)
    """Index -> hash of entries that were disowned: nobody decided them."""
    champions: dict[str, Facts] = field(default_factory=dict)
    promotions: dict[tuple[str, int], Facts] = field(default_factory=dict)
    candidates: dict[str, Facts] = field(default_factory=dict)
    approvals: list[Facts] = field(default_factory=list)
    queue: dict[int, Facts] = field(default_factory=dict)
    policies: dict[int, Facts] = field(default_factory=dict)
    people: dict[str, Facts] = field(default_factory=dict)
    grants: set[tuple[str, str, str]] = field(default_factory=set)
    appointments: dict[int, Facts] = field(default_factory=dict)
    tokens: dict[str, Facts] = field(default_factory=dict)
    keys: dict[str, Facts] = field(default_factory=dict)
    trials: dict[int, Facts] = field(default_factory=dict)
    first_bad: str | None = None
    """Sentence about the first entry that no release can have written; None if there is none."""

    def take(self, body: Body, leaf: str) -> None:
        """Apply the next entry, whose hash is `leaf`."""
        if self.disownments.get(body["index"]) == leaf:
            return
        thing, _, verb = str(body["action"]).partition(".")
        try:
            _READERS.get(thing, _nothing)(self, body, verb)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if self.first_bad is None:
                self.first_bad = f"entry {body['index']} ({body['action']}) lacks what every release wrote: {error!r}"

    def set_aside(self, assistant: str) -> None:
        """Supersede the undecided versions that do not lead back to the champion (`promotion/train.py`)."""
        standing = {self.champions[assistant]["version"] if assistant in self.champions else None}
        mine = {d: one for d, one in self.candidates.items() if one["assistant"] == assistant}
        for digest, facts in sorted(mine.items(), key=lambda each: int(each[1].get("number", 0))):
            if facts["state"] == "pending" and facts.get("parent") in standing:
                standing.add(digest)
            elif facts["state"] == "pending":
                facts["state"] = "superseded"


def _nothing(ledger: Ledger, body: Body, verb: str) -> None:
    """Apply an entry that changes none of the tables."""


def _task(ledger: Ledger, body: Body, verb: str) -> None:
    details = body["details"]
    if "item" not in details:
        return
    if "to" not in details:
        if verb == "submitted":  # other entries, such as one about its priority, change no fact of the row
            facts = {name: details.get(name) for name in ("package", "owner")}
            ledger.queue[details["item"]] = {**facts, "submitted_by": body["actor"]["name"], "state": verb}
    elif details["item"] in ledger.queue:
        ledger.queue[details["item"]]["state"] = details["to"]


def _candidate(ledger: Ledger, body: Body, verb: str) -> None:
    details, digest = body["details"], body["subject"]
    if verb == "registered":
        facts = {name: details[name] for name in REGISTERED if name in details}
        ledger.candidates[digest] = {**facts, "assistant": details.get("assistant"), "state": "pending"}
        for approval in ledger.approvals:
            if approval["candidate"] == digest:
                approval["revoked"] = True
    elif verb == "approved":
        _approve(ledger, body, "approve", override=False)
    elif verb == "rejected":
        _approve(ledger, body, "reject", override=False)
        if digest in ledger.candidates:
            ledger.candidates[digest]["state"] = "rejected"
            if any(one.get("parent") == digest for one in ledger.candidates.values()):
                ledger.set_aside(ledger.candidates[digest]["assistant"])


def _gate(ledger: Ledger, body: Body, verb: str) -> None:
    if verb == "overridden":
        _approve(ledger, body, "approve", override=True)


def _approve(ledger: Ledger, body: Body, verdict: str, *, override: bool) -> None:
    details = body["details"]
    approval: Facts = {
        "candidate": body["subject"],
        "verdict": verdict,
        "override": override,
        "person": body["actor"]["name"],
        "assured": body["actor"]["assured"],
        "evidence": details["evidence"],
        "reason": details["reason"],
    }
    approval |= {name: details[name] for name in ("expires_at", "trials") if name in details}
    if "approval" in details:
        approval |= {"id": details["approval"], "how": body["actor"]["how"]}
    ledger.approvals.append({**approval, "revoked": False})


def _approval(ledger: Ledger, body: Body, verb: str) -> None:
    if verb != "revoked":
        return
    ids, person = body["details"].get("approvals"), body["actor"]["name"]
    for approval in ledger.approvals:
        if approval["candidate"] != body["subject"] or approval["verdict"] != "approve" or approval["revoked"]:
            continue
        if ids is not None:
            approval["revoked"] = approval.get("id") in ids or ("id" not in approval and _by(approval, body["details"]))
        elif same_person(approval["person"], person):  # an earlier release took back one approval only
            approval["revoked"] = True
            return


def _by(approval: Facts, details: Mapping[str, Json]) -> bool:
    return same_person(approval["person"], str(details.get("person", "")))


def _champion(ledger: Ledger, body: Body, verb: str) -> None:
    details, digest = body["details"], body["subject"]
    kind = DECISIONS.get(f"champion.{verb}")
    if kind is None:
        return
    name, epoch = details["assistant"], details["epoch"]
    decision: Facts = {
        "version": digest,
        "previous": details.get("previous"),
        "kind": kind,
        "by": body["actor"]["name"],
        "assured": body["actor"]["assured"],
        "reason": details.get("reason"),
        "evidence": details.get("evidence"),
        "entry": body["index"],
    }
    if (name, epoch) in ledger.promotions:
        raise ValueError(
            f"epoch {epoch} of {name} was decided before, by entry {ledger.promotions[name, epoch]['entry']}"
        )
    ledger.promotions[name, epoch] = decision
    ledger.champions[name] = {"version": digest, "epoch": epoch, "entry": body["index"]}
    if digest in ledger.candidates:
        ledger.candidates[digest]["state"] = "promoted"
    ledger.set_aside(name)


def _policy(ledger: Ledger, body: Body, verb: str) -> None:
    details, number = body["details"], int(str(body["subject"]).removeprefix("policy "))
    facts = ledger.policies.setdefault(
        number, {"proposed_by": body["actor"]["name"], "accepted_by": None, "ended": False}
    )
    facts |= {"content": details["policy"]}
    facts |= {name: details[name] for name in ("assistant", "proposed_by") if name in details}
    if verb in ("accepted", "refused"):
        facts |= {"ended": True, "accepted_by": body["actor"]["name"] if verb == "accepted" else None}


def _person(ledger: Ledger, body: Body, verb: str) -> None:
    details, name = body["details"], body["subject"]
    if verb == "added":
        ledger.people[name] = {"subject": details.get("subject"), "disabled": False}
    elif name in ledger.people:
        facts = ledger.people[name]
        facts |= {"subject": details["subject"]} if "subject" in details else {}
        facts |= {"disabled": verb == "disabled"} if verb in ("disabled", "enabled") else {}


def _role(ledger: Ledger, body: Body, verb: str) -> None:
    if verb in ("granted", "withdrawn"):
        grant = (body["subject"], body["details"]["role"], body["details"]["site"])
        (ledger.grants.add if verb == "granted" else ledger.grants.discard)(grant)


def _appointment(ledger: Ledger, body: Body, verb: str) -> None:
    details, by = body["details"], body["actor"]["name"]
    names = {"person": body["subject"], **{name: details[name] for name in ("role", "site", "subject", "alone")}}
    at_end = verb in ("accepted", "refused")
    facts = ledger.appointments.setdefault(details["appointment"], {"proposed_by": details.get("proposed_by", by)})
    facts |= {**names, "ended": at_end, "accepted_by": by if verb == "accepted" else None}


def _token(ledger: Ledger, body: Body, verb: str) -> None:
    details = body["details"]
    if verb == "created":
        facts = {name: details[name] for name in ("permissions", "expires_at", "check", "assured") if name in details}
        facts |= {"made_by": body["actor"]["name"], "how": body["actor"]["how"]} if "assured" in details else {}
        ledger.tokens[details["id"]] = {**facts, "person": body["subject"], "revoked": False}
    elif verb == "revoked" and details["id"] in ledger.tokens:
        ledger.tokens[details["id"]]["revoked"] = True


def _key(ledger: Ledger, body: Body, verb: str) -> None:  # noqa: ARG001
    ledger.keys[body["subject"]] = {"record": body["details"]["record"], "entry": body["index"]}


def _trial(ledger: Ledger, body: Body, verb: str) -> None:
    details, by = body["details"], body["actor"]["name"]
    if verb == "read":  # a look at its answers changes nothing
        return
    facts = ledger.trials.setdefault(details["trial"], {"candidate": body["subject"], "approved_by": None})
    facts |= {name: details[name] for name in ("assistant", "kind", "share")}
    if verb == "requested":
        facts |= {"state": "waiting", "asked_by": by}
    elif verb == "approved":
        facts |= {"approved_by": by}
    elif verb == "started":
        names = ("evidence", "champion", "epoch", "asked_by", "rules")
        facts |= {"state": "under_way", "entry": body["index"], **{name: details[name] for name in names}}
    elif verb == "ended":
        facts |= {"state": "ended", "ended_by": by, "cause": details["cause"], "record": details["record"]}


_READERS = {
    "task": _task,
    "candidate": _candidate,
    "gate": _gate,
    "approval": _approval,
    "champion": _champion,
    "policy": _policy,
    "person": _person,
    "role": _role,
    "appointment": _appointment,
    "token": _token,
    "key": _key,
    "trial": _trial,
}
