"""With a role, in order: from an approval that should not count to a version that comes back without one."""

from typing import Any

from benchmarks.attacks.attack import attack, held
from benchmarks.attacks.files import objects_below
from benchmarks.attacks.installation import Installation


def _champion(system: Installation) -> int:
    return int(system.look("root", "status")[1]["champion"]["version"])


def _policy(system: Installation, **approval: Any) -> None:
    """Change the policy as two admins."""
    status, asked = system.ask("root", "propose-policy", changes={"approval": approval}, reason="for the attacks")
    if status != 200:
        raise RuntimeError(f"{status}: {asked}")
    status, told = system.ask("ada", "answer-policy", proposal=asked["id"], accept=True, reason="agreed")
    if status != 200:
        raise RuntimeError(f"{status}: {told}")


@attack("admins", "an admin's token")
def admin_mints_a_token_for_an_approver(system: Installation) -> None:
    """Makes a token for somebody who decides, and acts with it."""
    status, answer = system.ask("root", "create-token", person="ann", label="for me")
    held(status != 200, f"root holds a token of ann: {str(answer)[:60]}")


@attack("admins", "an admin's token")
def admin_makes_an_approver_alone(system: Installation) -> None:
    """Adds a person of their own, makes it an approver, and approves as that person."""
    system.ask("root", "add-person", person="mallory")
    system.ask("root", "grant", person="mallory", role="approver")
    roles = [one["roles"] for one in system.look("root", "people")[1]["people"] if one["name"] == "mallory"]
    held(not roles or not roles[0], f"one admin alone made mallory {roles}")


@attack("admins", "an admin's token")
def admin_accepts_their_own_policy(system: Installation) -> None:
    """Proposes a policy and accepts it."""
    _, asked = system.ask("root", "propose-policy", changes={"approval": {"four_eyes": False}}, reason="mine")
    status, answer = system.ask("root", "answer-policy", proposal=asked["id"], accept=True, reason="mine")
    held(status != 200, f"one admin alone changed the policy: {answer}")
    system.ask("root", "answer-policy", proposal=asked["id"], accept=False, reason="away with it")


@attack("sites", "an approver of one site")
def rollback_of_other_sites(system: Installation) -> None:
    """Rolls back what other sites learnt."""
    status, answer = system.ask("wes", "rollback", version="1", reason="mine is better")
    held(status == 403, f"{status}: an approver of `writing` rolled back the tasks of `reviews`: {answer}")
    held(_champion(system) == 2, "the champion moved")


@attack("policy", "an approver")
def quorum_raised_between_approval_and_promotion(system: Installation) -> None:
    """Counts on the quorum that held when the approval was given."""
    _policy(system, quorum=2)
    status, answer = system.ask("ann", "approve", version="3", reason="read the evidence")
    held(_champion(system) == 2, f"one approval promoted with a quorum of two ({status}: {answer})")


@attack("roles", "an approver who was shut out")
def approval_of_somebody_who_left(system: Installation) -> None:
    """Gave an approval, then lost the role; it should not count when the next one comes."""
    status, answer = system.ask("root", "grant", person="ann", role="approver", take_back=True)
    if status != 200:
        raise RuntimeError(f"{status}: {answer}")
    system.ask("ben", "approve", version="3", reason="read the evidence")
    held(_champion(system) == 2, "the approval of somebody without the role counted")


@attack("evidence", "the worker's user")
def evidence_deleted_after_the_approval(system: Installation) -> None:
    """Deletes one object after another of what people saw, and lets the promotion go on without it."""
    third = [row for row in system.look("root", "candidates")[1]["candidates"] if row["number"] == 3]
    missing = []
    for digest in objects_below(system, third[0]["evidence"]):
        file = system.stored(digest)
        aside = file.with_suffix(".aside")
        file.rename(aside)
        try:
            status, _ = system.ask("wes", "approve", version="3", reason="read the evidence")
            system.ask("wes", "revoke", version="3", reason="again")
            if status not in {400, 404, 409, 422}:
                missing.append(digest)
        finally:
            aside.rename(file)
    held(not missing, f"{len(missing)} objects can go unnoticed: {missing[:5]}")
    held(_champion(system) == 2, "version 3 was promoted without its evidence")


@attack("forward", "the submitter")
def forward_to_a_version_that_was_rolled_away(system: Installation) -> None:
    """Restores, alone, a version that others rolled back."""
    _policy(system, quorum=1)
    for operation, version in (("approve", "3"), ("rollback", "2")):
        status, answer = system.ask("ben", operation, version=version, reason="it does harm")
        if status != 200:
            raise RuntimeError(f"{operation}: {status}: {answer}")
    for person in ("sam", "ben"):
        status, answer = system.ask(person, "rollback", version="3", reason="it is mine")
        held(_champion(system) == 2, f"{person} alone went forward to version 3 ({status}: {answer})")
