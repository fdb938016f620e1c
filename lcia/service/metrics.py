"""What Prometheus is told at /metrics: numbers off the database, no texts and no names of people.

The text format 0.0.4; a scrape is one read transaction.
"""

from collections.abc import Iterator

from components.promotion import candidates, champion
from components.registry import outbox
from components.storage import leases
from components.tasks import queue
from lcia.instance import Instance
from lcia.operations import delivery
from lcia.worker.rounds import Rounds

KIND = "text/plain; version=0.0.4; charset=utf-8"


def page(instance: Instance, rounds: Rounds | None = None) -> str:
    """All metrics, ended by a newline; those of `rounds` are this process's.

    Raises:
        DatabaseUnavailable: it can't be read; the scrape fails, and `up` says so.
    """
    return "\n".join([*_lines(instance), *(_of_rounds(rounds) if rounds else ())]) + "\n"


def _of_rounds(rounds: Rounds) -> Iterator[str]:
    yield from _head("lcia_rounds_total", "Rounds of telling MLflow and people, by what became of them.", "counter")
    for name, done, failed, _ in rounds.counts():
        yield f'lcia_rounds_total{{round="{name}",outcome="ok"}} {done}'
        yield f'lcia_rounds_total{{round="{name}",outcome="failed"}} {failed}'
    yield from _head("lcia_round_last_success_timestamp_seconds", "When a round was last done.")
    for name, _, _, moment in rounds.counts():
        yield f'lcia_round_last_success_timestamp_seconds{{round="{name}"}} {moment or 0:.0f}'


def _lines(instance: Instance) -> Iterator[str]:
    name = instance.assistant
    with instance.db.read() as connection:
        states = queue.counts(connection, name)
        held = leases.standing(connection)
        now = instance.db.now(connection)
        undecided = candidates.listed(connection, name, "pending")
        served = champion.current(connection, name)
        waiting = outbox.undelivered(connection, name)
    yield from _head("lcia_tasks", "Tasks in each state.")
    yield from (f'lcia_tasks{{state="{state}"}} {count}' for state, count in sorted(states.items()))
    yield from _head("lcia_candidates_undecided", "Versions that wait for people.")
    yield f"lcia_candidates_undecided {len(undecided)}"
    oldest = max(((now - one.created_at).total_seconds() for one in undecided), default=0.0)
    yield from _head("lcia_candidate_oldest_seconds", "How long the oldest of them has waited.")
    yield f"lcia_candidate_oldest_seconds {oldest:.0f}"
    yield from _head("lcia_champion_epoch", "Number of promotions and rollbacks so far.")
    yield f"lcia_champion_epoch {served.epoch if served else 0}"
    yield from _head("lcia_outbox_pending", "Changes that MLflow was not told yet.")
    yield f"lcia_outbox_pending {len(waiting)}"
    yield from _head("lcia_outbox_parked", "Changes of them that MLflow refused.")
    yield f"lcia_outbox_parked {sum(row.parked_at is not None for row in waiting)}"
    yield from _head("lcia_champion_served", "1 where MLflow serves the champion that was decided.")
    yield f"lcia_champion_served {int(delivery.is_served(instance, served))}"
    yield from _head("lcia_lease_silent_seconds", "Since the holder of a lease was last heard.")
    yield from (
        f'lcia_lease_silent_seconds{{name="{one.name}"}} {one.silent:.0f}' for one in held if one.silent is not None
    )
    yield from _head("lcia_lease_lost", "1 where the holder runs no more.")
    yield from (f'lcia_lease_lost{{name="{one.name}"}} {int(one.lost)}' for one in held)


def _head(name: str, about: str, kind: str = "gauge") -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
