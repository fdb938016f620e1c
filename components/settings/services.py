"""Settings of storage, service, inbox, notices and prices; no version depends on them."""

from ipaddress import ip_network
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from components.roles import Role
from components.settings.section import Section


def _network(text: str) -> str:
    try:
        ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r}, expected an address or a network such as 10.0.0.0/8") from None
    return text


Network = Annotated[str, AfterValidator(_network)]
"""An address, or a network of them, as 10.0.0.0/8."""


class StorageSettings(Section):
    """Places of the state. `{home}` stands for the state folder (`LCIA_HOME`)."""

    database: str = "sqlite:///{home}/lcia.db"
    """SQLAlchemy URL: SQLite on one machine, PostgreSQL on a server."""
    promoter: str = ""
    """URL of the same database for an account that may move the champion, if the account of `database` may not. A
    process with both decides with the one and promotes with the other."""
    keeper: str = ""
    """URL of the same database for an account that may withdraw tasks and sweep, if the account of `database` may
    not."""
    objects: str = "file://{home}/objects"
    """fsspec URL of the object store."""
    models: str = "{home}/models"
    """Folder of converted and fingerprinted base models."""


class RegistrySettings(Section):
    """The MLflow server that shows versions to people."""

    tracking_uri: str = "sqlite:///{home}/mlflow.db"
    """MLflow tracking and registry URI."""
    artifacts: str = "{home}/mlflow-artifacts"
    """Artifact root of the experiment, if this process creates it."""
    experiment: str = "lcia"
    """Experiment for the runs of candidates."""


class InboxSettings(Section):
    """Folders or buckets into which sites drop packages, and from which the worker takes them."""

    sites: dict[str, str] = Field(default_factory=dict)
    """By `owner` of the tasks: that site's own folder, or fsspec URL of a bucket's prefix, which only it can write
    to. Packages of other owners are refused there."""
    url: str = ""
    """One folder or URL for all: anybody who can write there can submit for any owner. Empty: there is none."""
    quiet_seconds: Annotated[float, Field(ge=0)] = 60
    """A package in a folder is complete if nothing in it has changed for so long, or if NAME.ready stands beside it."""
    owner: str | None = None
    """The only owner whose tasks are taken from `url`; null: anybody's. `sites` does the same for several owners."""


class RetentionSettings(Section):
    """Rules of `lcia retention` and `lcia withdraw`; no version depends on them."""

    grace_hours: Annotated[float, Field(ge=0)] = 24
    """Hours for which a new object without references is left alone."""
    quarantine_days: Annotated[float, Field(ge=0)] = 30
    """Days after which the report on a refused package is deleted; submitting the package again writes it again."""
    withdrawn_adapters: Literal["keep", "refuse"] = "keep"
    """Versions whose adapters were tuned on withdrawn rows: `keep` marks them; `refuse` erases them, and refuses the
    withdrawal while one of them is the champion."""


class AuditSettings(Section):
    """The log's signed heads and the key that statements are checked with; no version depends on it."""

    heads_to: tuple[str, ...] = ("{home}/heads",)
    """Places that get a signed head at every promotion: folders, fsspec URLs, or `mlflow`. Best are places where the
    database's administrators can't write."""
    public_key: str = "{home}/keys/audit-key.pub.pem"
    """Public key that the champion's statement must be signed with, or a later key that this one handed over to."""


class TrainSettings(Section):
    """Learning while versions wait for people: each is made on the one before."""

    longest: Annotated[int, Field(ge=1)] = 20
    """Undecided versions that may stand on one another; further tasks wait. 1 learns on nothing that is undecided."""
    same_group: Literal["learn", "wait"] = "learn"
    """`wait` holds a task back while an undecided version changes its group too: if people reject that version, the
    task would have to be learnt again. Tasks of other groups are carried over without learning."""


class ProposalSettings(Section):
    """A model that proposes further ways to ask for a task; no version depends on it."""

    address: str = ""
    """Address of a server with OpenAI's API, as http://host:8000/v1; it gets a task's description and instructions,
    no inputs and no answers. Empty: the base model proposes. LCIA_PROPOSER_KEY holds the server's key."""
    model: str = ""
    """Name of the model there."""


class QueueSettings(Section):
    """Order of waiting tasks; no version depends on it."""

    share_days: Annotated[float, Field(gt=0)] = 7
    """Days over which a site's learnt tasks count: the next task is that of the site with the fewest."""


class PriceSettings(Section):
    """Prices of an hour, for estimates and limits; no version depends on them."""

    currency: Annotated[str, Field(min_length=1, max_length=8)] = "EUR"
    """Name of the currency, as it is printed."""
    cpu_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of one CPU core for an hour; None if unknown."""
    gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of one GPU for an hour; None if unknown."""
    month_limits: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """By `owner` of tasks (`*`: all others), the money that learning them may take in a calendar month; a task beyond
    it is held, with the figures. It needs the price of an hour."""

    @model_validator(mode="after")
    def _need_a_price(self) -> Self:
        if self.month_limits and self.cpu_hour is None and self.gpu_hour is None:
            raise ValueError(
                "prices.month_limits needs prices.cpu_hour or prices.gpu_hour: without them no cost is known"
            )
        return self


class MailSettings(Section):
    """An SMTP server; the environment variable LCIA_SMTP_PASSWORD holds its password."""

    host: str
    """Name of the server."""
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    """Port of that server."""
    starttls: bool = True
    """Encrypt before sending anything; set it to false only for a server on this machine."""
    user: str | None = None
    """Account, if the server asks for one."""
    sender: str
    """Address that the mail comes from."""
    to: Annotated[tuple[str, ...], Field(min_length=1)]
    """Addresses that it goes to."""


class NotifySettings(Section):
    """Channels for notices about work that waits for people or went wrong."""

    mail: MailSettings | None = None
    """Mail; null sends none."""
    webhooks: tuple[str, ...] = ()
    """Addresses that get each notice as signed JSON (Standard Webhooks); LCIA_WEBHOOK_SECRET holds the secret."""
    link: str = ""
    """Address of the console, for links."""
    expiry_hours: Annotated[float, Field(gt=0)] = 24
    """Hours before an approval expires at which people get a notice."""


class GroupRole(Section):
    """A role for the members of a group of the identity provider."""

    role: Role
    """One of submitter, engineer, approver, auditor, admin, serve, answer."""
    site: Annotated[str, Field(min_length=1, max_length=64)] = "*"
    """The `owner` of the tasks it holds for, or `*`."""


class ServeSettings(Section):
    """The service; the environment holds its secrets: LCIA_SESSION_SECRET and LCIA_OIDC_SECRET."""

    address: str = "http://127.0.0.1:8600"
    """Address at which people and programs reach it."""
    host: str = "127.0.0.1"
    """Interface that it listens on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8600
    """Port that it listens on; 0 takes a free one."""
    https_only: bool = False
    """Send session cookies over HTTPS only; set it to true if a proxy in front does TLS."""
    session_hours: Annotated[float, Field(gt=0, le=168)] = 12
    """Hours until people have to sign in again."""
    issuer: str | None = None
    """OpenID Connect issuer; null offers no sign-in, and only tokens work."""
    client_id: str = "lcia"
    """Name of this service at the identity provider."""
    scopes: str = "openid email profile"
    """Scopes requested at a sign-in; some providers need one of their own to name groups."""
    groups_claim: str = "groups"
    """Claim of the id token that holds a person's groups."""
    groups: dict[str, tuple[GroupRole, ...]] = Field(default_factory=dict)
    """By group of the provider: roles of its members, granted and taken back at each sign-in; roles that were granted
    by hand stay. The people who run such a group grant the role, without a second admin."""
    rate: str = "600/minute"
    """Requests that one caller may make."""
    failure_rate: str = "20/minute"
    """Failed sign-ins and tokens of one network address that are answered in full; valid ones never wait because of
    it."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks of the proxies in front, as [10.0.0.0/8, "fd00::/8"]: only they may name the address that a request
    comes from."""
    proxy_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    """Header that those proxies write; the other one is ignored, because they may pass on a forged one."""
    streams: Annotated[int, Field(ge=1)] = 200
    """Pages that may watch for changes at the same time."""
    streams_each: Annotated[int, Field(ge=1)] = 8
    """Most of these pages for one person."""
    answers: Literal["auto"] | bool = "auto"
    """Let people try versions out in the console; a process beside the service holds the model. `auto`: if torch is
    installed."""
