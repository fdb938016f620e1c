"""The roles that people and programs have at a site."""

from typing import Literal, TypeAlias

Role: TypeAlias = Literal["submitter", "engineer", "approver", "auditor", "admin", "serve", "answer"]
