"""Where things are kept and run, and who is told; no version depends on them."""

from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

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
    """Where the truth lives. `{home}` stands for the state folder (`LCIA_HOME`)."""

    database: str = "sqlite:///{home}/lcia.db"
    """SQLAlchemy URL: SQLite when embedded, PostgreSQL on a server."""
    promoter: str = ""
    """URL of the same database for an account that may move the champion, where that of `database` may not. The process
    that has both decides with the one and promotes with the other."""
    keeper: str = ""
    """URL of the same database for an account that may withdraw tasks and sweep, where that of `database` may not."""
    objects: str = "file://{home}/objects"
    """fsspec URL of the object store."""
    models: str = "{home}/models"
    """Folder of converted and fingerprinted base models."""


class RegistrySettings(Section):
    """The MLflow server that shows versions to people."""

    tracking_uri: str = "sqlite:///{home}/mlflow.db"
    """MLflow tracking and registry URI."""
    artifacts: str = "{home}/mlflow-artifacts"
    """Artifact root of the experiment when this process creates it."""
    experiment: str = "lcia"
    """Experiment that candidate runs are logged to."""


class InboxSettings(Section):
    """Where sites drop packages; the worker takes them from there. No version depends on it."""

    sites: dict[str, str] = Field(default_factory=dict)
    """By `owner` of the tasks: that site's own folder, or fsspec URL of a bucket's prefix, which only it can write
    to. Packages of other owners are refused there."""
    url: str = ""
    """One folder or URL that all write to: whoever can, speaks for any owner. Empty: there is none."""
    quiet_seconds: Annotated[float, Field(ge=0)] = 60
    """A package in a folder is complete when nothing of it has changed for so long, or when NAME.ready stands beside
    it."""
    owner: str | None = None
    """The only owner whose tasks are taken from `url`; null: anybody's. `sites` says the same of several."""


class RetentionSettings(Section):
    """What `lcia retention` and `lcia withdraw` do; no version depends on it."""

    grace_hours: Annotated[float, Field(ge=0)] = 24
    """Hours for which an object that nothing refers to yet is left alone."""
    quarantine_days: Annotated[float, Field(ge=0)] = 30
    """Days after which the report on a refused package goes; submitting the package again writes it again."""
    withdrawn_adapters: Literal["keep", "refuse"] = "keep"
    """Versions whose adapters were tuned on withdrawn rows: `keep` marks them, `refuse` erases them and refuses the
    withdrawal while one of them is the champion."""


class AuditSettings(Section):
    """The log's signed heads and the key that statements are checked with; no version depends on it."""

    heads_to: tuple[str, ...] = ("{home}/heads",)
    """Where a signed head goes at every promotion: folders, fsspec URLs, or `mlflow`. Worth most where the database's
    administrators can't write."""
    public_key: str = "{home}/keys/audit-key.pub.pem"
    """Public key that the champion's statement must be signed by, or by a key that it handed over to."""


class PriceSettings(Section):
    """What an hour costs, for estimates; no version depends on it."""

    currency: Annotated[str, Field(min_length=1, max_length=8)] = "EUR"
    """Name of the currency, as it is printed."""
    cpu_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of one CPU core for an hour; None where nobody says."""
    gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of one GPU for an hour; None where nobody says."""


class MailSettings(Section):
    """An SMTP server; its password stands in the environment variable LCIA_SMTP_PASSWORD."""

    host: str
    """Name of the server."""
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    """Port of that server."""
    starttls: bool = True
    """Encrypt before anything is said; false only where the server stands on this machine."""
    user: str | None = None
    """Account, where the server asks for one."""
    sender: str
    """Address that the mail comes from."""
    to: Annotated[tuple[str, ...], Field(min_length=1)]
    """Addresses that it goes to."""


class NotifySettings(Section):
    """Where people are told of what waits for them or went wrong."""

    mail: MailSettings | None = None
    """Mail; null sends none."""
    webhooks: tuple[str, ...] = ()
    """Addresses that get each notice as signed JSON (Standard Webhooks); the secret stands in LCIA_WEBHOOK_SECRET."""
    link: str = ""
    """Address of the console, for links."""
    expiry_hours: Annotated[float, Field(gt=0)] = 24
    """Hours before an approval expires at which people are told."""


class GroupRole(Section):
    """A role that a group of the identity provider gives."""

    role: Role
    """One of submitter, engineer, approver, auditor, admin."""
    site: Annotated[str, Field(min_length=1, max_length=64)] = "*"
    """The `owner` of tasks it holds for, or `*`."""


class ServeSettings(Section):
    """The service; its secrets stand in the environment: LCIA_SESSION_SECRET and LCIA_OIDC_SECRET."""

    address: str = "http://127.0.0.1:8600"
    """Address that people and programs reach it at, as they see it."""
    host: str = "127.0.0.1"
    """Interface that it listens on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8600
    """Port that it listens on; 0 takes a free one."""
    https_only: bool = False
    """Send session cookies over HTTPS alone; true wherever TLS ends in front of it."""
    session_hours: Annotated[float, Field(gt=0, le=168)] = 12
    """Hours until people have to sign in again."""
    issuer: str | None = None
    """OpenID Connect issuer; null offers no sign-in, and only tokens work."""
    client_id: str = "lcia"
    """What the identity provider calls this service."""
    scopes: str = "openid email profile"
    """What the provider is asked for at a sign-in; some tell groups only for a scope of their own."""
    groups_claim: str = "groups"
    """Claim of the id token that holds the groups of whoever signs in."""
    groups: dict[str, tuple[GroupRole, ...]] = Field(default_factory=dict)
    """By group of the provider: roles that its people have here, given and taken back at each sign-in; roles that were
    granted by hand stay. Whoever rules such a group gives the role, without a second admin."""
    rate: str = "600/minute"
    """Requests that one caller may make."""
    failure_rate: str = "20/minute"
    """Failed sign-ins and tokens of one network address that are answered in full; whoever says who they are is never
    held up by it."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks of the proxies in front, as [10.0.0.0/8, "fd00::/8"]: only they are believed about whom a request comes
    from."""
    proxy_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    """Header that those proxies write; the other one is ignored, for they may hand it on as it came."""
    streams: Annotated[int, Field(ge=1)] = 200
    """Pages that may watch for changes at the same time."""
    streams_each: Annotated[int, Field(ge=1)] = 8
    """Pages of one person among them."""
    answers: Literal["auto"] | bool = "auto"
    """Let people try versions out in the console, answered by a process beside the service that holds the model.
    `auto`: where torch is installed."""
