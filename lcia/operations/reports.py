"""Reports and pictures of a run, as they were stored."""

from collections.abc import Mapping

from components.errors import LciaError
from components.registry.publication import PICTURES
from lcia.instance import Instance

ORDER = ("validation", "drift", "evidently", "grouping", "tuning", "evaluation", "gate", "card")
"""Reports that are pages, in the order in which a run makes them."""
RECORDS = frozenset({"assessment", "cost"})
"""Names that stand for records, not for pages."""


class ReportUnknown(LciaError):
    """No report of that name."""


def pages(reports: Mapping[str, str]) -> list[str]:
    """Names of the reports that are pages."""
    return [name for name in ORDER if name in reports]


def content(instance: Instance, reports: Mapping[str, str], name: str) -> tuple[bytes, str]:
    """One report by its name, and its media type.

    Raises:
        ReportUnknown: there is none.
        ObjectMissing, ObjectCorrupt: it was erased, or altered.
    """
    if name not in reports:
        raise ReportUnknown(f"there is no report {name!r} here, expected one of {', '.join(sorted(reports)) or 'none'}")
    kinds = {**dict.fromkeys(PICTURES, "image/png"), **dict.fromkeys(RECORDS, "application/json")}
    return instance.store.get(reports[name]), kinds.get(name, "text/plain" if name == "card" else "text/html")
