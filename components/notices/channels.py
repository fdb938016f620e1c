"""The ways by which notices reach people: mail, and webhooks that are signed.

Secrets come from the environment, are passed in, and never appear in a message or an error.
"""

import base64
import hashlib
import hmac
import smtplib
import ssl
import time
from collections.abc import Mapping
from email.message import EmailMessage
from urllib.parse import urlsplit

import httpx2

from components.errors import LciaError
from components.notices.notices import Channel, NotDelivered, Notice
from components.settings import MailSettings, NotifySettings
from components.storage.objects import canonical, digest_of
from components.visible import is_plain, visible

SECONDS = 20.0
"""Longest time a channel may take to answer."""
PASSWORD, SECRET = "LCIA_SMTP_PASSWORD", "LCIA_WEBHOOK_SECRET"


class ChannelMissing(LciaError):
    """A channel of the settings lacks its secret, or its address can't be used."""


class Mail:
    """One mail per notice to all recipients."""

    name = "mail"

    def __init__(self, assistant: str, settings: MailSettings, password: str | None) -> None:
        """`password` is for `settings.user`."""
        self._assistant, self._settings, self._password = assistant, settings, password

    def send(self, notice: Notice) -> None:
        """Deliver; see `Channel`."""
        settings = self._settings
        mail = self._mail(notice)
        try:
            with smtplib.SMTP(settings.host, settings.port, timeout=SECONDS) as server:
                if settings.starttls:
                    server.starttls(context=ssl.create_default_context())
                if settings.user:
                    server.login(settings.user, self._password or "")
                server.send_message(mail)
        except (OSError, smtplib.SMTPException, ValueError) as error:  # the last of an address that is none
            raise NotDelivered(f"mail server {settings.host}:{settings.port}: {type(error).__name__}") from error

    def _mail(self, notice: Notice) -> EmailMessage:
        """The message; words of packages and people end no header."""
        payload, mail = notice.payload, EmailMessage()
        mail["Subject"] = visible(f"[{self._assistant}] {payload['title']}")
        mail["From"], mail["To"] = self._settings.sender, ", ".join(self._settings.to)
        mail["Message-ID"] = f"<notice-{notice.id}@{self._assistant}.lcia>"  # the same when it is sent twice
        mail["Auto-Submitted"] = "auto-generated"
        words = filter(None, (payload["text"], payload["link"]))
        mail.set_content("\n\n".join(visible(str(part), lines=True) for part in words) + "\n")
        return mail


class Webhook:
    """Signed JSON by POST, after the Standard Webhooks specification 1.0 (symmetric signature, v1)."""

    def __init__(self, url: str, secret: bytes) -> None:
        """`secret` are the bytes of the key, 24 to 64 of them."""
        self.name = f"webhook {_host(url)} {digest_of(url.encode())[:8]}"
        self._url, self._secret = url, secret

    def send(self, notice: Notice) -> None:
        """Deliver; see `Channel`."""
        body = canonical({"type": notice.kind, "timestamp": notice.at.isoformat(), "data": notice.payload})
        identity, moment = f"notice_{notice.id}", str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "webhook-id": identity,
            "webhook-timestamp": moment,
            "webhook-signature": sign(self._secret, identity, moment, body),
        }
        try:
            answer = httpx2.post(self._url, content=body, headers=headers, timeout=SECONDS, follow_redirects=False)
        except (httpx2.HTTPError, httpx2.InvalidURL, ImportError, ValueError) as error:  # the last two of a proxy
            raise NotDelivered(f"{_host(self._url)}: {type(error).__name__}") from error
        if not answer.is_success:
            raise NotDelivered(f"{_host(self._url)} answered {answer.status_code}, expected 2xx")


def sign(secret: bytes, identity: str, moment: str, body: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`."""
    content = f"{identity}.{moment}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()


def channels(assistant: str, settings: NotifySettings, environment: Mapping[str, str]) -> dict[str, Channel]:
    """The channels of the settings, by name.

    Raises:
        ChannelMissing: a secret is not in the environment, or an address is no http(s) URL.
    """
    ways: list[Channel] = []
    if settings.mail is not None:
        for one in (assistant, settings.mail.sender, *settings.mail.to):
            if not is_plain(one):
                raise ChannelMissing(
                    f"{one!r} can't stand in a mail's header: it holds signs that don't show, or spaces around it; "
                    "look at assistant, notify.mail.sender and notify.mail.to"
                )
        if settings.mail.user and not environment.get(PASSWORD):
            raise ChannelMissing(f"notify.mail.user is set, but {PASSWORD} is not; put its password there")
        ways.append(Mail(assistant, settings.mail, environment.get(PASSWORD)))
    if settings.webhooks:
        secret = _secret(environment.get(SECRET, ""))
        for url in settings.webhooks:
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname or not is_plain(url):
                raise ChannelMissing(f"notify.webhooks has {url!r}, expected an http or https address")
            ways.append(Webhook(url, secret))
    return {channel.name: channel for channel in ways}


def _secret(text: str) -> bytes:
    try:
        secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        secret = b""
    if not 24 <= len(secret) <= 64:
        raise ChannelMissing(
            f"notify.webhooks is set, but {SECRET} is not `whsec_` and the base64 of 24 to 64 bytes; make one with "
            "python -c 'import base64,secrets; print(\"whsec_\"+base64.b64encode(secrets.token_bytes(32)).decode())'"
        )
    return secret


def _host(url: str) -> str:
    """The part of an address that may be shown: some carry a secret in their path."""
    return urlsplit(url).netloc.rpartition("@")[2]
