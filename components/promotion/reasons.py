"""The reason that every decision needs."""

from components.errors import LciaError
from components.visible import is_blank


class ReasonMissing(LciaError):
    """A decision without a reason."""


def need_reason(reason: str) -> None:
    """Refuse a decision without a reason.

    Raises:
        ReasonMissing: it is blank.
    """
    if is_blank(reason):
        raise ReasonMissing("a decision needs a reason that others can read later; give it with --reason")
