"""Reports and pictures of a run, as they were stored: shown inside pages, shut off from everything around them."""

from collections.abc import Mapping

from fastapi.responses import Response

from components.errors import LciaError
from components.registry.publication import PICTURES
from components.storage.objects import ObjectStore

SHUT = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
"""Policy of a report of ours: it holds its styles and pictures, runs nothing and reaches nothing."""
SCRIPTED = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
"""Policy of Evidently's page, which draws by script: in a world of its own, without sign-in and network."""
RECORDS = frozenset({"assessment", "cost"})
"""Names that stand for records, not for pages."""


class ReportUnknown(LciaError):
    """No report of that name."""


def listed(reports: Mapping[str, str]) -> list[str]:
    """Names of the reports that are pages, in the order in which a run makes them."""
    order = ("validation", "drift", "evidently", "grouping", "tuning", "evaluation", "gate", "card")
    return [name for name in order if name in reports]


def answer(store: ObjectStore, reports: Mapping[str, str], name: str) -> Response:
    """One report by its name.

    Raises:
        ReportUnknown: there is none.
        ObjectMissing, ObjectCorrupt: it was erased, or altered.
    """
    if name not in reports:
        raise ReportUnknown(f"there is no report {name!r} here, expected one of {', '.join(sorted(reports)) or 'none'}")
    content = store.get(reports[name])
    if name in PICTURES:
        return Response(content, media_type="image/png")
    if name in RECORDS:
        return Response(content, media_type="application/json")
    if name == "card":
        return Response(content, media_type="text/plain; charset=utf-8")
    policy = SCRIPTED if name == "evidently" else SHUT
    return Response(content, media_type="text/html; charset=utf-8", headers={"content-security-policy": policy})
