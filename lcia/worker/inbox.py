"""Packages from the inboxes into the queue."""

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
"""Who submits what was dropped there: nobody signed in, so no person is known."""


def sender(owner: str | None) -> Actor:
    """Who a package of an inbox comes from: somebody of its site, or anybody."""
    return Actor(INBOX if owner is None else f"{INBOX} of {owner}", assured=False, how="inbox")


def sender_known(submitted_by: str) -> bool:
    """False for what came through an inbox: any person may have put it there, whoever's inbox it is."""
    return submitted_by != INBOX and not submitted_by.startswith(f"{INBOX} of ")


def take(instance: Instance, say: Callable[[str], None] = lambda _: None) -> list[QueueItem]:
    """Submit every complete package of the inboxes and put it away; returns the tasks that are new.

    A package that was submitted and not put away, because the machine stopped between, is known when it is taken again.
    An inbox in which somebody left what can't be dealt with is said, and keeps no other work waiting.

    Raises:
        InboxUnusable: the inbox that all share is not there.
    """
    settings, arrived = instance.settings.inbox, list[QueueItem]()
    for owner, url in sorted(settings.sites.items()):
        try:
            arrived += _take(instance, owner, open_inbox(url, settings.quiet_seconds), say)
        except InboxUnusable as error:
            say(f"the inbox of {owner} can't be used: {error}")
    if settings.url:
        inbox = open_inbox(settings.url, settings.quiet_seconds)
        try:
            arrived += _take(instance, settings.owner, inbox, say)
        except InboxUnusable as error:
            say(f"the inbox can't be used: {error}")
    return arrived


def _take(instance: Instance, owner: str | None, inbox: Inbox, say: Callable[[str], None]) -> Iterator[QueueItem]:
    for name in inbox.complete(time.time()):
        try:
            with inbox.copy_of(name, instance.home / "unpacked") as path:
                actor, allowed = sender(owner), _owned_by(owner, name)
                item = tasks.submit(instance, path, actor, allowed, name, sender_known=False)
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
    """Move a package away; one that can't be is said and stays, and the packages after it are taken."""
    try:
        inbox.put_away(name, outcome, {"package": name, **facts})
    except InboxUnusable as error:
        say(f"the inbox can't be used: {error}")


def _problems(error: Exception) -> list[Json]:
    return [asdict(problem) for problem in error.problems] if isinstance(error, PackageError) else [str(error)]


def _owned_by(owner: str | None, package: str) -> Callable[[str], None]:
    """Refuses packages of other owners, where the inbox belongs to one."""

    def check(seen: str) -> None:
        if owner is not None and seen != owner:
            raise PackageError(package, [Problem("task.yaml", None, "owner", seen, f"{owner}, whose inbox this is")])

    return check
