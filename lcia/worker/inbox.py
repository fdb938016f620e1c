"""Inboxes: packages that lie there are submitted to the queue."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

from components.audit.log import Actor
from components.storage.objects import Json
from components.tasks.inbox import Inbox, InboxUnusable, Outcome, StillWritten, open_inbox
from components.tasks.parser_process import ParserBroken
from components.tasks.problems import PackageError, Problem
from components.tasks.queue import QueueItem, TaskVersionTaken
from lcia.instance import Instance
from lcia.operations import tasks

INBOX = "inbox"
"""Submitter of a package from an inbox: nobody signed in, so no person is known."""


def sender(owner: str | None) -> Actor:
    """Actor that submits a package of an inbox: somebody of its site, or anybody."""
    return Actor(INBOX if owner is None else f"{INBOX} of {owner}", assured=False, how="inbox")


def sender_known(submitted_by: str) -> bool:
    """False for a package from an inbox: anybody may have put it there, also into the inbox of a site."""
    return submitted_by != INBOX and not submitted_by.startswith(f"{INBOX} of ")


def take(instance: Instance, say: Callable[[str], None] = lambda _: None) -> list[QueueItem]:
    """Submit every complete package of the inboxes and put it away; returns the tasks that are new.

    If the machine stops between submitting and putting away, the package is taken again and found to be known. An
    inbox that can't be used is reported with `say` and holds up no other work.

    Raises:
        InboxUnusable: the inbox that all share does not exist.
    """
    settings, items = instance.settings.inbox, list[QueueItem]()
    for owner, url in sorted(settings.sites.items()):
        try:
            items += _take(instance, owner, open_inbox(url, settings.quiet_seconds), say)
        except InboxUnusable as error:
            say(f"the inbox of {owner} can't be used: {error}")
    if settings.url:
        inbox = open_inbox(settings.url, settings.quiet_seconds)
        try:
            items += _take(instance, settings.owner, inbox, say)
        except InboxUnusable as error:
            say(f"the inbox can't be used: {error}")
    return items


def _take(instance: Instance, owner: str | None, inbox: Inbox, say: Callable[[str], None]) -> Iterator[QueueItem]:
    for name in inbox.complete(time.time()):
        try:
            with inbox.copy_of(name, instance.home / "unpacked") as path:
                actor, check_owner = sender(owner), _check_of(owner, name)
                item = tasks.submit(instance, path, actor, check_owner, name, sender_known=False)
        except StillWritten as error:
            say(str(error))
            continue
        except (PackageError, TaskVersionTaken, ParserBroken) as error:
            _put_away(inbox, name, "refused", {"problems": _problems(error)}, say)
            continue
        facts = {
            "item": item.id,
            "name": item.name,
            "version": item.version,
            "known": item.known,
            "state": item.state,
            "remarks": list(item.remarks),
        }
        _put_away(inbox, name, "done", facts, say)
        if not item.known:
            yield item


def _put_away(inbox: Inbox, name: str, outcome: Outcome, facts: dict[str, Json], say: Callable[[str], None]) -> None:
    """Put a package away. If that fails it stays and is reported; the packages after it are still taken."""
    try:
        inbox.put_away(name, outcome, {"package": name, **facts})
    except InboxUnusable as error:
        say(f"the inbox can't be used: {error}")


def _problems(error: Exception) -> list[Json]:
    return [asdict(problem) for problem in error.problems] if isinstance(error, PackageError) else [str(error)]


def _check_of(owner: str | None, package: str) -> Callable[[str], None]:
    """Check that refuses packages of other owners, if the inbox belongs to one."""

    def check(submitter: str) -> None:
        if owner is not None and submitter != owner:
            raise PackageError(
                package, [Problem("task.yaml", None, "owner", submitter, f"{owner}, whose inbox this is")]
            )

    return check
