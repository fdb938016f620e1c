"""Conditions on candidates, and the people who decide."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.roles import Role
from components.settings.section import Fraction, Section


class GateSettings(Section):
    """Statistical gate: margins are drops of the score, as fractions."""

    enforce: bool = True
    """False only reports: people may approve a candidate that failed the gate."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """One-sided confidence of every bound."""
    step_margin: Fraction = 0.06
    """Drop of a prior task against the champion that the test must exclude to pass. With 200 test rows and 5 % of hits
    flipping by chance a harmless candidate passes one task with probability 0.96 (0.89 at 0.05)."""
    lifetime_budget: Fraction = 0.10
    """Drop of a prior task against its anchor that the test must exclude to pass."""
    pooled_margin: Fraction = 0.04
    """Drop of a group's prior tasks, pooled (two or more), that the test must exclude to pass; probability 0.96 for two
    tasks of 200 rows as above (0.82 at 0.03)."""
    new_task_margin: Fraction = 0.05
    """Distance by which the new task may stay below the live weights on validation and still count as learnt."""
    min_routing: Fraction = 0.99
    """Least share of the new task's test rows that the candidate's router must send to the task's group."""
    max_rerouted: Fraction = 0.1
    """Share of earlier tasks' wordings that a candidate may route elsewhere than before; more with confidence fails."""
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Attempts at tasks of one name and owner, on any champion, since the last promotion of one; attempt k is tested at
    (1 - confidence) / 2^(k-1)."""
    attempts_window_days: Annotated[float, Field(gt=0)] = 90
    """Days after which an attempt no longer counts."""
    reserve_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of each task's test rows that is held back, and opened only if the rest is inconclusive; the two looks
    share the level. 0 looks at all rows at once, which passes a harmless candidate most often."""

    @model_validator(mode="after")
    def _pooled_is_tighter(self) -> Self:
        if self.pooled_margin > self.step_margin:
            raise ValueError(
                f"policy.gate.pooled_margin is {self.pooled_margin}, expected at most step_margin ({self.step_margin})"
            )
        return self


class SiteApproval(Section):
    """Rule of a site for candidates that learnt its tasks; null takes the general rule."""

    quorum: Annotated[int, Field(ge=1)] | None = None
    """Approvals needed."""
    required_roles: tuple[Role, ...] | None = None
    """Roles that the approvers must have among them."""


class ApprovalSettings(Section):
    """Approvals that a candidate needs."""

    auto: bool = False
    """True promotes a candidate without a person if it passes the gate and meets `auto_if`; the version is marked."""
    auto_if: Literal["unchanged", "pass"] = "unchanged"
    """`unchanged`: provably no prediction of any prior task changed; `pass`: every candidate that passes the gate."""
    quorum: Annotated[int, Field(ge=1)] = 1
    """Approvals needed."""
    required_roles: tuple[Role, ...] = ()
    """Roles that the approvers must have among them, at the task's site; only a server knows people's roles."""
    sites: dict[str, SiteApproval] = Field(default_factory=dict)
    """By `owner` of the task: that site's rule instead of `quorum` and `required_roles`."""
    override_quorum: Annotated[int, Field(ge=2)] = 2
    """People who must override the gate, each with a reason, to promote a candidate that did not pass it."""
    four_eyes: bool = True
    """True refuses approval by the submitter or launcher of the task."""
    unknown_sender: Annotated[int, Field(ge=0)] = 1
    """Further approvals for tasks from an inbox, which does not know the person who sent them: four eyes can't bar that
    person, but with one more approval somebody else has to agree. 0 asks for none, and allows automatic approval."""
    expires_hours: Annotated[float, Field(gt=0)] = 168
    """Hours that an approval stays valid; silence is a no."""


class PolicySettings(Section):
    """Gate and approvals; a server has its own."""

    gate: GateSettings = GateSettings()
    approval: ApprovalSettings = ApprovalSettings()
