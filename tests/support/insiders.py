"""What people inside try over HTTP to decide more than they may; each attack is a plain function.

It returns the answers that have to be refusals, so that a test and a benchmark can run the same attack: a `House` is
anything that asks a running service. Needed there: people named like their roles, a second admin `second`, an approver
`carol`, and a version 1 that waits.
"""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Protocol


class House(Protocol):
    """A running service, asked with somebody's token."""

    tokens: MutableMapping[str, str]

    def ask(self, name: str | None, operation: str, **params: object) -> Any:
        """The HTTP answer: `status_code`, `json()`."""


Answers = list[Any]


def token_of_carol(house: House) -> Answers:
    """An admin makes a token for somebody who decides."""
    return [house.ask("admin", "create-token", person="carol", label="mine")]


def puppet(house: House) -> Answers:
    """An admin makes somebody up and a token for them, has them appointed, and approves as them."""
    house.ask("admin", "add-person", person="puppet")
    house.tokens["puppet"] = house.ask("admin", "create-token", person="puppet", label="mine").json()["token"]
    made = house.ask("admin", "grant", person="puppet", role="approver", reason="trust me").json()["proposal"]
    answer = {"proposal": made["id"], "accept": True, "reason": "agreed"}
    alone = house.ask("admin", "answer-grant", **answer)
    house.ask("second", "answer-grant", **answer)  # deceived
    return [
        alone,
        house.ask("puppet", "approve", version="1", reason="read"),
        house.ask("puppet", "create-token", person="puppet", label="a better one"),
        house.ask("admin", "create-token", person="puppet", label="another"),
    ]


def appointed_alone(house: House) -> Answers:
    """An admin makes themself an approver and a friend an admin: proposals, not roles; nobody accepts their own."""
    answers = []
    for person, role in (("admin", "approver"), ("engineer", "admin")):
        made = house.ask("admin", "grant", person=person, role=role, reason="needed").json()["proposal"]
        answers.append(house.ask("admin", "answer-grant", proposal=made["id"], accept=True, reason="yes"))
    return [*answers, house.ask("admin", "approve", version="1", reason="read")]


def account_of_carol(house: House) -> Answers:
    """An admin connects an account of their own with somebody who decides."""
    made = house.ask("admin", "add-person", person="carol", subject="https://idp|mine", reason="new account").json()
    return [house.ask("admin", "answer-grant", proposal=made["proposal"]["id"], accept=True, reason="yes")]


def own_policy(house: House) -> Answers:
    """An admin proposes a policy and accepts it."""
    made = house.ask("admin", "propose-policy", changes={"approval": {"four_eyes": False}}, reason="faster").json()
    return [house.ask("admin", "answer-policy", proposal=made["id"], accept=True, reason="agreed")]


def wider_token(house: House) -> Answers:
    """A token that is limited to looking makes one that is not; `bot` holds it."""
    return [house.ask("bot", "create-token", person="bot", label="wide")]


def tokens_of_others(house: House) -> Answers:
    """People without an admin's role look at tokens of others and end them."""
    shown = house.ask("admin", "tokens", person="admin").json()["tokens"][0]["id"]
    return [
        house.ask("auditor", "tokens"),
        house.ask("auditor", "tokens", person="admin"),
        house.ask("auditor", "revoke-token", token=shown, reason="mine now"),
    ]


def one_site(house: House) -> Answers:
    """Somebody with every role, but at a site that has no task here (`there`), does what is everybody's."""
    deeds: Mapping[str, Mapping[str, object]] = {
        "rollback": {"version": "1", "reason": "mine"},
        "sync": {},
        "sweep": {},
        "break-lease": {"lease": "lineage:assistant", "reason": "mine"},
        "propose-policy": {"changes": {}, "reason": "mine"},
        "grant": {"person": "there", "role": "admin"},
        "disable-person": {"person": "admin", "reason": "mine"},
        "create-token": {"person": "engineer", "label": "mine"},
        "add-person": {"person": "friend"},
    }
    return [house.ask("there", operation, **params) for operation, params in deeds.items()]


def forward_again(house: House) -> Answers:
    """After a rollback from version 3 to 1, going forward by a rollback; and by the submitter's own yes."""
    house.ask("approver", "rollback", version="1", reason="harm")
    brought = house.ask("approver", "show", version="3").json()["version"]["submitted_by"]
    return [
        house.ask("approver", "rollback", version="3", reason="back"),
        house.ask(brought, "rollback", version="3", reason="back"),
        house.ask(brought, "approve", version="3", reason="mine"),
    ]


WAITING: Mapping[str, Callable[[House], Answers]] = {
    attack.__name__: attack
    for attack in (token_of_carol, puppet, appointed_alone, account_of_carol, own_policy, wider_token, tokens_of_others)
}
"""Attacks while a version waits."""
LEARNT: Mapping[str, Callable[[House], Answers]] = {attack.__name__: attack for attack in (one_site, forward_again)}
"""Attacks where three versions were champions."""
