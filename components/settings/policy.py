"""What a candidate must fulfil, and who decides."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.roles import Role
from components.settings.section import Fraction, Section


class GateSettings(Section):
    """Statistical gate: margins are drops of the score, as fractions."""

    enforce: bool = True
    """False only reports: a failed gate does not keep the candidate from approval."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """One-sided confidence of every bound."""
    step_margin: Fraction = 0.06
    """Largest drop of a prior task against the champion that must be excluded to pass. With 200 test rows and
    5 % of hits flipping by chance a harmless candidate passes one task with probability 0.96 (0.89 at 0.05)."""
    lifetime_budget: Fraction = 0.10
    """Largest drop of a prior task against its anchor that must be excluded to pass."""
    pooled_margin: Fraction = 0.04
    """Largest drop of a group's prior tasks pooled (two or more) that must be excluded to pass; 0.96 for two
    tasks of 200 rows as above (0.82 at 0.03)."""
    new_task_margin: Fraction = 0.05
    """How far the new task may stay below the live weights on validation and still count as learnt."""
    min_routing: Fraction = 0.99
    """Least share of the new task's test rows that the candidate's router must send to the task's group."""
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Attempts at tasks of one name and owner, on any champion, since the last one that was promoted; attempt k is
    tested at (1 - confidence) / 2^(k-1)."""
    attempts_window_days: Annotated[float, Field(gt=0)] = 90
    """Days after which an attempt no longer counts."""
    reserve_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of each task's test rows that is held back and opened only where the rest is inconclusive; the level is
    split over the two looks. 0 looks at all rows at once, which passes a harmless candidate most often."""

    @model_validator(mode="after")
    def _pooled_is_tighter(self) -> Self:
        if self.pooled_margin > self.step_margin:
            raise ValueError(
                f"policy.gate.pooled_margin is {self.pooled_margin}, expected at most step_margin ({self.step_margin})"
            )
        return self


class SiteApproval(Section):
    """What a site asks for instead, about candidates that learnt its tasks; null takes the general rule."""

    quorum: Annotated[int, Field(ge=1)] | None = None
    """Approvals needed."""
    required_roles: tuple[Role, ...] | None = None
    """Roles that the people who say yes must have among them."""


class ApprovalSettings(Section):
    """Who has to say yes."""

    auto: bool = False
    """True promotes without a person what the gate passes and `auto_if` calls low risk; versions are marked."""
    auto_if: Literal["unchanged", "pass"] = "unchanged"
    """`unchanged`: no prediction of any prior task changed, which is proven; `pass`: whatever the gate lets by."""
    quorum: Annotated[int, Field(ge=1)] = 1
    """Approvals needed."""
    required_roles: tuple[Role, ...] = ()
    """Roles that the people who say yes must have among them, at the task's site; a server knows who has which."""
    sites: dict[str, SiteApproval] = Field(default_factory=dict)
    """By `owner` of the task: what that site asks for instead of `quorum` and `required_roles`."""
    override_quorum: Annotated[int, Field(ge=2)] = 2
    """People who must say yes in spite of the gate, each with a reason, to promote what it did not pass."""
    four_eyes: bool = True
    """True refuses approval by the submitter or launcher of the task."""
    unknown_sender: Annotated[int, Field(ge=0)] = 1
    """Further approvals for what came through an inbox, which does not know the person who sent it: four eyes can't
    bar them, so one more is somebody else. 0 asks for no more, and lets automatic approval take it."""
    expires_hours: Annotated[float, Field(gt=0)] = 168
    """Hours an approval stays valid; silence is a no."""


class PolicySettings(Section):
    """Gate and approvals: with a server these are the server's own."""

    gate: GateSettings = GateSettings()
    approval: ApprovalSettings = ApprovalSettings()
