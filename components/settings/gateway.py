"""Settings of the gateway, which answers applications, and of trials on its traffic; no version depends on them."""

from typing import Annotated, Literal

from pydantic import Field

from components.settings.section import Section


class TrialSettings(Section):
    """Rules that stop a trial by themselves, and how trials are counted."""

    level: Annotated[float, Field(gt=0, le=0.2)] = 0.05
    """Chance at most that any rule stops a candidate that is no worse than the champion, however long the trial."""
    tolerance: Annotated[float, Field(ge=1, le=10)] = 1.25
    """Ratio of odds, candidate to champion, of an error, a slow answer, an answer by no group or a complaint up to
    which a candidate counts as no worse."""
    together: Annotated[float, Field(ge=1, le=100)] = 3
    """Requests that tend to be bad together, because clients try again and callers repeat themselves: counts weigh so
    many times less. 1: each request stands alone. OpenAI's client tries three times."""
    slow_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Seconds after which an answer counts as slow."""
    longest_hours: Annotated[float, Field(gt=0, le=24 * 90)] = 24 * 7
    """Hours after which a trial ends by itself."""
    most_canary: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """Largest share of callers that a canary may answer."""


class GatewaySettings(Section):
    """The gateway, `lcia gateway`: the address that applications ask."""

    engine: Literal["embedded", "vllm"] = "embedded"
    """Engine that computes answers: `embedded`, in the gateway's own process; `vllm`, on the servers in `vllm`."""
    host: str = "127.0.0.1"
    """Interface that it listens on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8700
    """Port that it listens on; 0 takes a free one."""
    address: str = ""
    """Address at which `lcia ask` and the console reach a gateway; empty: they load the model themselves."""
    vllm: tuple[str, ...] = ()
    """Addresses of vLLM servers, all with the same base model, started as docs/gateway.md says."""
    vllm_folder: str = ""
    """Folder in which the vLLM servers see what the gateway keeps in `cache`/adapters; empty: under the same path."""
    cache: str = "{home}/gateway"
    """Folder of the gateway's checked copies: with it the gateway starts and answers while the service is down."""
    tokens: Literal["auto"] | bool = "auto"
    """Ask callers for a token with the permission `answer`. `auto`: unless the state lies on this machine and `host` is
    a loopback address."""
    poll_seconds: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Seconds between two looks at what was decided."""
    drain_seconds: Annotated[float, Field(ge=0, le=600)] = 60.0
    """Seconds that requests of an old version, or of a gateway told to end, may still take."""
    differs_seconds: Annotated[float, Field(gt=0)] = 120.0
    """Seconds after which people get a notice that a gateway does not serve the version that was decided."""
    rate: str = "600/minute"
    """Requests that one token may make."""
    waiting: Annotated[int, Field(ge=1)] = 64
    """Answers that may be under way, `n` for a request that asks for so many; more are refused with status 429."""
    answer_seconds: Annotated[float, Field(gt=0)] = 120.0
    """Seconds that a request may take."""
    body_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    """Bytes that a request without images may have."""
    new_tokens: Annotated[int, Field(ge=1)] = 1024
    """Largest `max_tokens` of a request."""
    arm: Literal["both", "champion", "candidate"] = "both"
    """Version that answers while a canary is under way: `both`, by the trial's share of callers; one of them alone, if
    something before the gateways splits the requests by that share."""
    keep: Literal["nothing", "masked"] = "nothing"
    """Texts that are kept of answers which a trial changes, and of instructions that no task answered: `nothing`, or
    `masked`, with personal data masked, for `keep_days`."""
    keep_days: Annotated[float, Field(gt=0)] = 30
    """Days after which texts that were kept are deleted."""
    trial: TrialSettings = TrialSettings()
    """Rules of trials."""
