"""Who may do what: permissions by role, as data. A grant holds for one site, or for all."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from components.errors import LciaError
from components.roles import Role

Permission: TypeAlias = Literal[
    "look", "read_rows", "submit", "operate", "decide", "roll_back", "withdraw", "audit", "administer"
]
ROLES: tuple[Role, ...] = get_args(Role)
EVERYWHERE = "*"
"""Site of a grant that holds for all sites."""

TABLE: dict[Permission, frozenset[Role]] = {
    "look": frozenset(ROLES),  # states, numbers, reports without rows
    "read_rows": frozenset({"approver"}),  # test rows; every look is logged
    "submit": frozenset({"submitter"}),
    "operate": frozenset({"engineer"}),  # retry, cancel, answer held tasks, sync
    "decide": frozenset({"approver"}),  # approve, reject, revoke, override
    "roll_back": frozenset({"approver"}),
    "withdraw": frozenset({"submitter", "admin"}),  # a site takes back its rows
    "audit": frozenset({"auditor", "approver", "admin"}),  # the log itself
    "administer": frozenset({"admin"}),  # people, tokens, policy
}
"""Permission -> roles. An admin does not decide and an approver does not administer, unless granted both."""


class Forbidden(LciaError):
    """The person is known, and may not do this."""


@dataclass(frozen=True)
class Grant:
    """A role at a site."""

    role: Role
    site: str
    """The `owner` of tasks it holds for, or `*`."""


def allowed(grants: Iterable[Grant], permission: Permission, site: str | None = None) -> bool:
    """Whether one of the grants gives `permission` for the tasks of `site`; None is about no site in particular."""
    return any(
        grant.role in TABLE[permission] and (site is None or grant.site in (EVERYWHERE, site)) for grant in grants
    )


def need(name: str, grants: Iterable[Grant], permission: Permission, site: str | None = None) -> None:
    """Refuse what the grants do not give.

    Raises:
        Forbidden: names the roles that would do.
    """
    grants = tuple(grants)
    if not allowed(grants, permission, site):
        has = ", ".join(sorted(f"{grant.role} at {grant.site}" for grant in grants)) or "no role"
        where = f" at {site}" if site else ""
        raise Forbidden(
            f"{name} has {has}; `{permission}`{where} needs one of {', '.join(sorted(TABLE[permission]))}: "
            "an admin grants roles with `lcia people grant`"
        )
