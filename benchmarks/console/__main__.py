"""Server time of the console's two heaviest pages: the overview with every task, a candidate with many prior tasks."""

import argparse
import cProfile
import json
import pstats
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.testclient import TestClient
from starlette.routing import Match

from benchmarks.console.state import OPS, build
from components.audit.log import Actor
from components.identity import people, tokens
from lcia.instance import Instance
from lcia.server import make_app

LIMIT = 0.3
"""Seconds that a page may take."""


def measure(instance: Instance, prior: int, repeats: int, profile: Path | None) -> list[dict[str, Any]]:
    """First and later times of each page, in seconds; each is asked as a browser asks."""
    app = make_app(instance, {"LCIA_SESSION_SECRET": "s" * 40})
    token = _token(instance)
    client = TestClient(app, headers={"authorization": f"Bearer {token}", "accept": "text/html"})
    number = prior + 1
    pages = {
        "overview": "/",
        "overview, filtered": "/?tasks.text=other_04&tasks.state=cancelled",
        "tasks, last page": "/tasks?tasks.page=200",
        "candidate": f"/versions/{number}",
        "candidate, changed answers": f"/versions/{number}/changed",
        "candidate, matrix": f"/versions/{number}/matrix",
        "versions": "/versions",
    }
    results = []
    for name, path in pages.items():
        times, busy = [], []
        for _ in range(repeats + 1):
            began, at_work = time.perf_counter(), time.process_time()
            answer = client.get(path)
            times.append(time.perf_counter() - began)
            busy.append(time.process_time() - at_work)
            answer.raise_for_status()
        first, *later = times
        results.append({"page": name, "first": first, "median": statistics.median(later), "slowest": max(later),
                      "cpu": statistics.median(busy[1:]), "kilobytes": len(answer.content) / 1024})  # fmt: skip
        if profile is not None:
            _profile(app, token, path, profile / f"{name.replace(', ', '-').replace(' ', '_')}.txt")
    return results


def _token(instance: Instance) -> str:
    """Of somebody who may see everything."""
    with instance.db.begin() as connection:
        if not people.admins(connection):
            people.add(connection, "ada", actor=OPS)
            for role in ("admin", "approver"):
                people.grant(connection, "ada", role, actor=OPS)
        return tokens.create(
            connection, "ada", "benchmark", timedelta(days=1), actor=Actor("ada", assured=True, how="token")
        )[1]


def _profile(app: Any, token: str, path: str, file: Path) -> None:
    """Profile of one call, by the time spent below each function."""
    address, _, query = path.partition("?")
    scope = {"type": "http", "method": "GET", "path": address, "query_string": query.encode(), "session": {},
             "headers": [(b"authorization", f"Bearer {token}".encode())], "client": ("127.0.0.1", 1)}  # fmt: skip
    matches = ((one, one.matches(scope)) for one in app.router.routes)
    route, scope["path_params"] = next(
        (one, into["path_params"]) for one, (fit, into) in matches if fit is Match.FULL and hasattr(one, "dependant")
    )
    profile = cProfile.Profile()
    profile.runcall(route.endpoint, request=Request(scope), **scope["path_params"])
    with file.open("w", encoding="utf-8") as out:
        pstats.Stats(profile, stream=out).sort_stats("cumulative").print_stats(45)


def main() -> None:
    """Print a table and one JSON object; ends with 1 where a page is too slow."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console", description=__doc__)
    parser.add_argument("--tasks", type=int, default=5000, help="tasks in all")
    parser.add_argument("--prior", type=int, default=200, help="promoted versions below the candidate")
    parser.add_argument("--rows", type=int, default=200, help="test rows of each task")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--home", type=Path, help="folder for the state; one that is there already is used again")
    parser.add_argument("--profile", type=Path, help="folder for a profile of each page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = arguments.home or Path(folder)
        began = time.perf_counter()
        instance = build(home, arguments.tasks, arguments.prior, arguments.rows)
        print(f"state ready after {time.perf_counter() - began:.0f} s")
        if arguments.profile:
            arguments.profile.mkdir(parents=True, exist_ok=True)
        results = measure(instance, arguments.prior, arguments.repeats, arguments.profile)
    print("| page | first, ms | median, ms | slowest, ms | CPU, ms | kB |\n|---|---|---|---|---|---|")
    for one in results:
        times = (f"{1000 * one[name]:.0f}" for name in ("first", "median", "slowest", "cpu"))
        print("|", " | ".join([one["page"], *times, f"{one['kilobytes']:.0f}"]), "|")
    print(json.dumps(results))
    slow = [one["page"] for one in results if one["median"] > LIMIT]
    raise SystemExit(f"slower than {LIMIT} s: {', '.join(slow)}" if slow else 0)


if __name__ == "__main__":
    main()
