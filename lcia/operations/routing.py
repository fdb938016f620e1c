"""Routing of requests that nobody answers: which task a version would take them for, and why.

No base model is loaded, only the version's router.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from components.grouping.pool import Pool
from components.grouping.route import UNROUTED
from components.settings import Fallback, GroupingSettings
from components.storage.objects import ObjectStore
from lcia.instance import Instance
from lcia.operations.params import RouteRequest

if TYPE_CHECKING:
    from components.grouping.router import Router

NO_VERSION = "there is no champion yet: the base model answers everything."


def route(
    instance: Instance,
    requests: Sequence[RouteRequest],
    version: str | None = None,
    fallback: Fallback | None = None,
) -> dict[str, Any]:
    """Say for each request which task answers it, how sure that is, and why; in order.

    Raises:
        EncoderModelError: the version is routed by a sentence model that is not on this machine.
    """
    candidate = instance.version(version)
    if candidate is None:
        answers = [{**UNROUTED.to_json(), "why": NO_VERSION} for _ in requests]
        return {"version": None, "digest": None, "routes": answers}
    router = _router(instance.store, candidate.digest, instance.settings.grouping)
    routes = router.route_many([one.instruction for one in requests], [one.input for one in requests], fallback)
    return {
        "version": candidate.number,
        "digest": candidate.digest,
        "routes": [each.to_json() for each in routes],
    }


@lru_cache(maxsize=4)
def _router(store: ObjectStore, digest: str, grouping: GroupingSettings) -> "Router":
    """Off a version, which never changes: fitted once by a process."""
    from components.grouping.router import Router

    return Router.of(Pool.from_manifest(store.get_json(digest)), grouping)
