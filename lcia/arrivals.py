"""Packages from the inbox into the queue."""

import time
from collections.abc import Callable
from dataclasses import asdict

from components.audit.log import Actor
from components.storage.objects import Json
from components.tasks.arrivals import open_inbox
from components.tasks.problems import PackageError, Problem
from components.tasks.queue import QueueItem, TaskVersionTaken
from lcia import verbs
from lcia.workplace import Workplace

INBOX = Actor("inbox", assured=False, how="inbox")
"""Who submits what was dropped there: nobody signed in, so nobody approves it as its own submitter."""


def take(place: Workplace) -> list[QueueItem]:
    """Submit every complete package of the inbox and put it away; returns the tasks that are new.

    A package that was submitted and not put away, because the machine stopped between, is known when it is taken again.

    Raises:
        InboxUnusable: the inbox can't be read or changed.
    """
    settings = place.settings.inbox
    if not settings.url:
        return []
    inbox, found = open_inbox(settings.url, settings.quiet_seconds), []
    for name in inbox.complete(time.time()):
        try:
            with inbox.opened(name) as path:
                item = verbs.submit(place, path, INBOX, _owned_by(settings.owner, name), name)
        except (PackageError, TaskVersionTaken) as error:
            inbox.put_away(name, "refused", {"package": name, "problems": _problems(error)})
            continue
        told = {
            "item": item.id,
            "name": item.name,
            "version": item.version,
            "known": item.known,
            "remarks": list(item.remarks),
        }
        inbox.put_away(name, "done", {"package": name, **told})
        if not item.known:
            found.append(item)
    return found


def _problems(error: PackageError | TaskVersionTaken) -> list[Json]:
    return [asdict(problem) for problem in error.problems] if isinstance(error, PackageError) else [str(error)]


def _owned_by(owner: str | None, package: str) -> Callable[[str], None]:
    """Refuses packages of other owners, where the inbox belongs to one."""

    def check(seen: str) -> None:
        if owner is not None and seen != owner:
            raise PackageError(package, [Problem("task.yaml", None, "owner", seen, f"{owner}, whose inbox this is")])

    return check
