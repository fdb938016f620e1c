"""Parameters of the operations between gateways and the service."""

from typing import Annotated, Literal

from pydantic import Field

from lcia.operations.params import Name, Params, Wording

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Group = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Pair = Annotated[tuple[Count, Count], Field(description="Of the candidate alone, of the champion alone.")]
Buckets = Annotated[
    tuple[Count, ...],
    Field(
        min_length=11,
        max_length=11,
        description="Answers by duration, at most .05, .1, .2, .5, 1, 2, 5, 10, 20, 60 seconds, and longer.",
    ),
]
Arm = Literal["champion", "candidate"]


class ServingParams(Params):
    """Everything that a gateway follows."""

    version: Annotated[str | None, Field(max_length=64, description="A version that somebody asks for.")] = None


class PartParams(Params):
    """One object of a version."""

    version: Digest
    digest: Digest


class TrafficParams(Params):
    """Requests of one group since a replica started."""

    requests: Count
    errors: Count


class LatencyParams(Params):
    """Seconds of a replica's answers, null before the first."""

    p50: Seconds | None = None
    p99: Seconds | None = None
    first_token_p50: Seconds | None = None


class ArmParams(Params):
    """Answers of one side of a trial since a replica began it."""

    requests: Count
    errors: Count
    slow: Count
    none_routed: Count
    rated: Count
    complaints: Count


class PairsParams(Params):
    """Requests of a shadow trial that both versions answered."""

    compared: Count
    agreed: Count
    errors: Pair
    slow: Pair
    none_routed: Pair


class ChangedAnswerParams(Params):
    """Two answers to one request, personal data masked."""

    id: Name
    champion: Annotated[str, Field(max_length=20_000)]
    candidate: Annotated[str, Field(max_length=20_000)]


class TrialReportParams(Params):
    """Counts of a trial since a replica began it."""

    id: Annotated[int, Field(ge=1, le=2**31 - 1)]
    counts: dict[Arm, ArmParams]
    pairs: PairsParams | None = None
    latency: dict[Arm, Buckets]
    changed: Annotated[tuple[ChangedAnswerParams, ...], Field(max_length=20)] = ()


class UnroutedParams(Params):
    """An instruction that no task answered, personal data masked."""

    task: Name
    """Task that was nearest."""
    text: Wording


class ReportParams(Params):
    """Report of a gateway about itself."""

    replica: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,79}$")]
    """Its name, for as long as it runs."""
    engine: Annotated[str, Field(min_length=1, max_length=40)]
    version: Digest | None = None
    """Version that it answers `assistant` with."""
    ready: bool
    problem: Annotated[str, Field(max_length=10_000)] = ""
    """A sentence; empty if there is none."""
    traffic: Annotated[dict[Group, TrafficParams], Field(max_length=1000)] = Field(default_factory=dict)
    """By group, `none` for answers by none."""
    latency: LatencyParams = LatencyParams()
    trial: TrialReportParams | None = None
    no_route: Annotated[tuple[UnroutedParams, ...], Field(max_length=50)] = ()
