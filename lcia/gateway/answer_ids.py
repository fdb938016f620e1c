"""Ids of answers: each says which version and group answered and as which arm of a trial, sealed against forgery.

Feedback may reach another replica than the one that answered: replicas that share a secret read each other's ids.
"""

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import astuple, dataclass

from components.errors import LciaError
from components.storage.objects import NotCanonical, canonical, parse_json

PREFIX = "lcia-"
SECRET = "LCIA_GATEWAY_SECRET"  # noqa: S105 - the name of a variable
"""Environment variable with the secret that replicas share; without it each replica reads only its own ids."""
SEAL_BYTES = 12


class AnswerUnknown(LciaError):
    """An id that no gateway with this secret gave out."""


@dataclass(frozen=True)
class Origin:
    """Origin of an answer."""

    version: int | None
    group: str | None
    trial: int | None = None
    """Trial in which it was given."""
    candidate: bool = False
    """True if the trial's candidate gave it."""


class Seal:
    """Makes and reads ids."""

    def __init__(self, secret: str | None) -> None:
        self._key = secret.encode() if secret else secrets.token_bytes(32)

    def new(self, origin: Origin) -> str:
        """A fresh id."""
        content = canonical([*astuple(origin), secrets.token_hex(4)])
        return _text(self._mac(content) + content)

    def read(self, identity: str) -> Origin:
        """Origin of the answer with an id, which has one way to be written.

        Raises:
            AnswerUnknown: the id is not one of ours.
        """
        text = identity.removeprefix(PREFIX)
        try:
            raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            seal, content = raw[:SEAL_BYTES], raw[SEAL_BYTES:]
            if identity != _text(raw) or not hmac.compare_digest(seal, self._mac(content)):
                raise AnswerUnknown("no answer of this gateway has this id; send the one of header lcia-answer")
            value = parse_json(content)
        except (ValueError, NotCanonical) as error:
            raise AnswerUnknown(f"this is no id of an answer: {error}") from error
        assert isinstance(value, list)  # noqa: S101 - sealed by us
        return Origin(*value[:-1])

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")[:SEAL_BYTES]


def _text(raw: bytes) -> str:
    return PREFIX + urlsafe_b64encode(raw).decode().rstrip("=")
