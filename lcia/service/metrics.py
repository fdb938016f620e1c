"""Metrics for Prometheus at /metrics: numbers from the database, without texts and names of people.

The text format 0.0.4; a scrape is one read transaction.
"""

from collections.abc import Iterator
from datetime import datetime

from components.promotion import candidates, champion
from components.registry import outbox
from components.storage import leases
from components.tasks import queue
from lcia.instance import Instance
from lcia.operations import delivery, serving
from lcia.worker.rounds import Rounds

KIND = "text/plain; version=0.0.4; charset=utf-8"


def page(instance: Instance, rounds: Rounds | None = None) -> str:
    """All metrics, ending with a newline; those of `rounds` are about this process.

    Raises:
        DatabaseUnavailable: the scrape fails, and Prometheus sets `up` to 0.
    """
    return "\n".join([*_lines(instance), *(_of_rounds(rounds) if rounds else ())]) + "\n"


def _of_rounds(rounds: Rounds) -> Iterator[str]:
    yield from _head("lcia_rounds_total", "Rounds of updating MLflow and notifying people, by outcome.", "counter")
    for name, successes, failures, _ in rounds.counts():
        yield f'lcia_rounds_total{{round="{name}",outcome="ok"}} {successes}'
        yield f'lcia_rounds_total{{round="{name}",outcome="failed"}} {failures}'
    yield from _head("lcia_round_last_success_timestamp_seconds", "Time at which a round last succeeded.")
    for name, _, _, moment in rounds.counts():
        yield f'lcia_round_last_success_timestamp_seconds{{round="{name}"}} {moment or 0:.0f}'


def _lines(instance: Instance) -> Iterator[str]:
    name = instance.assistant
    with instance.db.read() as connection:
        states = queue.counts(connection, name)
        standing = leases.standing(connection)
        now = instance.db.now(connection)
        pending = candidates.versions(connection, name, "pending")
        champion_ = champion.current(connection, name)
        waiting = outbox.backlog(connection, name)
    yield from _head("lcia_tasks", "Tasks in each state.")
    yield from (f'lcia_tasks{{state="{state}"}} {count}' for state, count in sorted(states.items()))
    yield from _head("lcia_candidates_undecided", "Versions that wait for people.")
    yield f"lcia_candidates_undecided {len(pending)}"
    oldest = max(((now - one.created_at).total_seconds() for one in pending), default=0.0)
    yield from _head("lcia_candidate_oldest_seconds", "Seconds that the oldest of them has waited.")
    yield f"lcia_candidate_oldest_seconds {oldest:.0f}"
    yield from _head("lcia_champion_epoch", "Number of promotions and rollbacks so far.")
    yield f"lcia_champion_epoch {champion_.epoch if champion_ else 0}"
    yield from _head("lcia_outbox_pending", "Changes that MLflow has not received yet.")
    yield f"lcia_outbox_pending {len(waiting)}"
    yield from _head("lcia_outbox_parked", "Those of them that MLflow refused.")
    yield f"lcia_outbox_parked {sum(row.parked_at is not None for row in waiting)}"
    yield from _head("lcia_champion_served", "1 if MLflow serves the champion that was decided.")
    yield f"lcia_champion_served {int(delivery.is_served(instance, champion_))}"
    gateways = serving.fleet(instance)
    yield from _head("lcia_replicas", "Gateways that reported in the last 30 seconds.")
    yield f"lcia_replicas {gateways['of']}"
    yield from _head("lcia_replicas_serving", "Those of them that are ready with the version that was decided.")
    yield f"lcia_replicas_serving {gateways['serving']}"
    yield from _head("lcia_replicas_differ_seconds", "Seconds for which the first of the others has not been.")
    since = gateways["differs_since"]
    yield f"lcia_replicas_differ_seconds {(now - datetime.fromisoformat(since)).total_seconds() if since else 0:.0f}"
    yield from _head("lcia_lease_silent_seconds", "Seconds since the last heartbeat of a lease's holder.")
    yield from (
        f'lcia_lease_silent_seconds{{name="{one.name}"}} {one.silent:.0f}' for one in standing if one.silent is not None
    )
    yield from _head("lcia_lease_lost", "1 if the holder no longer runs.")
    yield from (f'lcia_lease_lost{{name="{one.name}"}} {int(one.is_lost)}' for one in standing)


def _head(name: str, about: str, kind: str = "gauge") -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
