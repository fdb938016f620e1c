"""Reports and pictures of a run inside pages, shut off from everything around them."""

from collections.abc import Mapping

from fastapi.responses import Response

from lcia.console.base import Console
from lcia.operations import reports

SHUT = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
"""Policy of a report of ours: it holds its styles and pictures, runs nothing and reaches nothing."""
SCRIPTED = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
"""Policy of Evidently's page, which draws by script: in a world of its own, without sign-in and network."""


def answer(console: Console, digests: Mapping[str, str], name: str) -> Response:
    """One of the reports whose digests are given, by its name; raises as `reports.content`."""
    content, kind = reports.content(console.instance, digests, name)
    if kind == "text/html":
        policy = SCRIPTED if name == "evidently" else SHUT
        return Response(content, media_type=f"{kind}; charset=utf-8", headers={"content-security-policy": policy})
    return Response(content, media_type=f"{kind}; charset=utf-8" if kind == "text/plain" else kind)
