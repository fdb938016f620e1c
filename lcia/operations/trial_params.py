"""Parameters of the operations on trials."""

from typing import Annotated, Literal

from pydantic import Field

from lcia.operations.params import Maybe, Number, Params, Why

TrialNumber = Annotated[int, Field(ge=1, le=2**31 - 1, description="Number of the trial in `trials`.")]


class StartTrialParams(Params):
    """A trial of a candidate on the traffic of gateways."""

    version: Number
    kind: Literal["shadow", "canary"]
    share: Annotated[float, Field(gt=0, le=1, description="Of requests (shadow) or of callers (canary).")]
    reason: Why


class TrialDecisionParams(Params):
    """A decision about a trial."""

    trial: TrialNumber
    reason: Why


class TrialsParams(Params):
    """Trials of one version, or of all."""

    version: Maybe = None


class TrialParams(Params):
    """About one trial."""

    trial: TrialNumber
