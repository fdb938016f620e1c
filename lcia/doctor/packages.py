"""Checks of how task packages come in: the process that reads them, and the inboxes."""

import stat
import sys
from collections.abc import Iterator

from components.storage.fence import local_path
from components.tasks import isolation
from lcia.doctor.findings import Finding, Installation


def check_parser(subject: Installation) -> Iterator[Finding]:
    """Check the process that reads packages: the kernel features that confine it on this machine."""
    limits = isolation.confinement(subject.settings.packages)
    absent = [name for name in ("seccomp", "landlock") if not any(one.startswith(name) for one in limits)]
    words = f"files from outside are read in a process of their own: {', '.join(limits)}"
    if absent and sys.platform == "linux":
        advice = "a kernel and a container runtime that allow them (Linux 5.13; LSM landlock)"
        yield Finding("parser", "warning", f"{words}; not {' and '.join(absent)}", advice)
    else:
        yield Finding("parser", "ok", words)


def check_inboxes(subject: Installation) -> Iterator[Finding]:
    """Check the folders of the inboxes, and whether others could exchange packages there."""
    settings = subject.settings.inbox
    for owner, url in [*sorted(settings.sites.items()), *([(settings.owner, settings.url)] if settings.url else [])]:
        folder = local_path(url)
        name = f"the inbox of {owner}" if owner else "the inbox of all"
        mode = folder.stat().st_mode if folder is not None and folder.is_dir() else 0
        if folder is not None and not mode:
            yield Finding("inbox", "warning", f"{name} does not exist: {folder}", f"mkdir {folder}, or change inbox")
        elif mode & 0o022 and not mode & stat.S_ISVTX:
            words = f"{name}: others write to {folder} and may exchange files of others"
            yield Finding("inbox", "warning", words, f"chmod +t {folder}")
        elif owner is None:
            words = f"{name}: anybody who can write to {url} can submit for any site"
            yield Finding("inbox", "warning", words, "give each site its own: inbox.sites")
        else:
            yield Finding("inbox", "ok", f"{name}: {url}")
