"""With another user of the machine: files, links and processes that are not theirs."""

import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.attacks.attack import attack, held
from benchmarks.attacks.installation import Installation, files_of
from components.storage.objects import parse_json


def objects_below(system: Installation, digest: str) -> Iterator[str]:
    """Every object that an object leads to, itself included."""
    seen, waiting = set(), [digest]
    while waiting:
        one = waiting.pop()
        if one in seen or not system.stored(one).is_file():
            continue
        seen.add(one)
        yield one
        try:
            waiting += _digests(parse_json(system.stored(one).read_bytes()))
        except Exception:  # noqa: BLE001 - no JSON: it leads nowhere
            continue


def _digests(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if len(value) == 64 and set(value) <= set("0123456789abcdef"):
            yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _digests(one)
    elif isinstance(value, list):
        for one in value:
            yield from _digests(one)


@attack("keys", "the worker's, MLflow's and a site's user")
def secrets_of_other_processes(system: Installation) -> None:
    """Reads keys and environments of processes that are somebody else's."""
    secrets = {
        "service": [
            system.folder / "service" / "home" / "keys" / "audit-key.pem",
            system.folder / "service" / "pgpass",
        ],
        "worker": [system.folder / "worker" / "home" / "keys" / "leak-key", system.folder / "worker" / "pgpass"],
    }
    for owner, files in secrets.items():
        environments = [
            folder / "environ"
            for folder in Path("/proc").iterdir()
            if folder.name.isdigit() and folder.stat().st_uid == system.uid(owner)
        ]
        for file in [*(file for file in files if file.exists()), *environments]:
            for process in ("worker", "service", "mlflow", "site"):
                if process != owner:
                    read = system.run(process, ["cat", str(file)])
                    held(read.returncode != 0, f"the user of {process} reads {file}")


@attack("keys", "the worker's user")
def keys_where_nobody_needs_them(system: Installation) -> None:
    """Looks for the signing key beside the worker, and for the leak key beside the service."""
    held(not list((system.folder / "worker").rglob("audit-key.pem")), "the worker's home holds a signing key")
    held(not list((system.folder / "service").rglob("leak-key*")), "the service's home holds the leak key")


RESULTS = ("done", "refused")
"""Folders of the inbox where packages go with a report."""


@attack("inbox", "a site's user")
def result_folder_is_a_link(system: Installation) -> None:
    """Puts links to the worker's keys where the inbox's results go, and drops a package."""
    inbox, keys = system.folder / "inbox", system.folder / "worker" / "home" / "keys"
    before = {file.name: file.read_bytes() for file in keys.iterdir()}
    links = " && ".join(f"rm -rf {inbox}/{name} && ln -s {keys} {inbox}/{name}" for name in RESULTS)
    system.run("site", ["sh", "-c", links])
    _drop(system, "linked", {"task.yaml": b"name: [\n"})
    done = system.command("worker", "work", "--once")
    after = {file.name: file.read_bytes() for file in keys.iterdir() if file.is_file()}
    system.run("site", ["sh", "-c", "rm -f " + " ".join(f"{inbox}/{name}" for name in RESULTS)])
    held(before == after, f"the worker wrote {sorted(set(after) - set(before))} into its keys: {done.stdout}")


@attack("inbox", "a site's user")
def package_holds_links(system: Installation) -> None:
    """Drops a package whose rows are a link to the worker's password, after an honest one was taken."""
    files = files_of("movie_sentiment")
    honest = files | {"task.yaml": files["task.yaml"].replace(b"movie_sentiment", b"honest_reviews")}
    target, done = _drop(system, "honest", honest), _work(system)
    if target.exists():
        raise RuntimeError(f"not even an honest package is taken: {done}")
    target = _drop(
        system, "pointing", files | {"task.yaml": files["task.yaml"].replace(b"movie_sentiment", b"pointing")}
    )
    link = f"rm {target}/train.jsonl && ln -s {system.folder}/worker/pgpass {target}/train.jsonl"
    system.run("site", ["sh", "-c", link])
    done = _work(system)
    for folder in ("inbox", "objects"):
        for file in (system.folder / folder).rglob("*"):
            if file.is_file() and not file.is_symlink():
                held(system.passwords["worker"].encode() not in file.read_bytes(), f"the password is in {file}: {done}")


@attack("inbox", "a site's user")
def task_replaced_through_the_inbox(system: Installation) -> None:
    """Drops a package that replaces a learnt task, so that the gate protects that no more."""
    files = files_of("movie_sentiment")
    task = files["task.yaml"].replace(b"name: movie_sentiment", b"name: better_reviews\nsupersedes: movie_sentiment@1")
    target = _drop(system, "replacing", files | {"task.yaml": task})
    done = _work(system)
    found = [item for item in system.look("root", "status")[1]["queue"]["items"] if item["name"] == "better_reviews"]
    if target.exists() or not found:
        raise RuntimeError(f"the package is not taken: {done}")
    held(found[0]["state"] == "held", f"it is {found[0]['state']}: {found[0]['reason']}")


def _work(system: Installation) -> str:
    """Let the worker look into the inbox once; returns what it said."""
    done = system.command("worker", "work", "--once")
    return f"{done.stdout} {done.stderr}"


def _drop(system: Installation, name: str, files: dict[str, bytes]) -> Path:
    """Put a package into the inbox as the site's user."""
    target = system.folder / "inbox" / name
    for file, content in files.items():
        source = system.folder / "site" / "sent"
        source.write_bytes(content)
        source.chmod(0o644)
        os.chown(source, system.uid("site"), system.uid("site"))
        system.run("site", ["sh", "-c", f"mkdir -p {target} && cp {source} {target}/{file}"])
    system.run("site", ["sh", "-c", f"touch {target}.ready"])
    return target
