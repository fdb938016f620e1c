"""Permissions by role, as data. A grant of a role holds for one site, or for all."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from components.errors import LciaError
from components.roles import Role

Permission: TypeAlias = Literal[
    "look", "read_rows", "submit", "operate", "decide", "revoke", "roll_back", "withdraw", "audit", "administer",
    "serve", "answer", "try",
]  # fmt: skip
ROLES: tuple[Role, ...] = get_args(Role)
EVERYWHERE = "*"
"""Site of a grant that holds for all sites."""

TABLE: dict[Permission, frozenset[Role]] = {
    "look": frozenset(ROLES) - {"serve", "answer"},  # states, numbers, reports without rows
    "read_rows": frozenset({"approver"}),  # test rows; every look is logged
    "submit": frozenset({"submitter"}),
    "operate": frozenset({"engineer"}),  # retry, cancel, answer held tasks, sync
    "decide": frozenset({"approver"}),  # approve, reject, override
    "revoke": frozenset({"approver", "admin"}),  # take back an approval, one's own or somebody else's
    "roll_back": frozenset({"approver"}),
    "withdraw": frozenset({"submitter", "admin"}),  # a site takes back its rows
    "audit": frozenset({"auditor", "approver", "admin"}),  # the log itself
    "administer": frozenset({"admin"}),  # people, tokens, policy
    "serve": frozenset({"serve"}),  # a gateway: fetch versions and checks of tokens, report what it answers with
    "answer": frozenset(ROLES) - {"serve"},  # ask the assistant at a gateway
    "try": frozenset({"engineer", "approver"}),  # ask versions there that are not the champion
}
"""Permission -> roles. An admin doesn't decide and an approver doesn't administer, unless granted both roles. The roles
`serve` and `answer` are for programs: the one may only be a gateway, the other only ask one."""


class Forbidden(LciaError):
    """The person may not do this."""


@dataclass(frozen=True)
class Grant:
    """A role at a site."""

    role: Role
    site: str
    """The `owner` of the tasks it holds for, or `*`."""


def permits(grants: Iterable[Grant], permission: Permission, site: str | None = None) -> bool:
    """True if one of the grants gives `permission` for the tasks of `site`; None stands for no particular site."""
    return any(
        grant.role in TABLE[permission] and (site is None or grant.site in (EVERYWHERE, site)) for grant in grants
    )


def need(
    name: str,
    grants: Iterable[Grant],
    permission: Permission,
    sites: Collection[str] | str | None = None,
    *,
    everywhere: bool = False,
) -> None:
    """Refuse an action that the grants don't permit.

    `sites` are the sites that the action concerns, with `*` among them if it concerns all; None stands for no
    particular site. The permission at one of them is enough, unless `everywhere` asks for all.

    Raises:
        Forbidden: the message names the roles that would do.
    """
    grants = tuple(grants)
    sites = [sites] if isinstance(sites, str) else sites
    if sites is None:
        enough = permits(grants, permission)
    else:
        enough = (all if everywhere else any)(permits(grants, permission, site) for site in sites)
    if not enough:
        has = ", ".join(sorted(f"{grant.role} at {grant.site}" for grant in grants)) or "no role"
        names = ["all sites" if site == EVERYWHERE else site for site in sorted(sites or ())]
        where = f" at {(' and ' if everywhere else ' or ').join(names)}" if names else ""
        raise Forbidden(
            f"{name} has {has}; `{permission}`{where} needs one of {', '.join(sorted(TABLE[permission]))}: "
            "an admin grants roles with `lcia people grant`"
        )
