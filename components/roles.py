"""The roles that people have at a site."""

from typing import Literal, TypeAlias

Role: TypeAlias = Literal["submitter", "engineer", "approver", "auditor", "admin"]
