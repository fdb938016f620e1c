"""With an account of the database, or with all of it: forging the log, and the state that the log explains."""

import json

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from benchmarks.attacks.attack import attack, held, refused
from benchmarks.attacks.installation import Installation
from components.audit.log import Actor, append
from components.audit.merkle import add_leaf, leaf_hash, root_of
from components.storage.database import Database

ANN = Actor("ann", assured=True, how="console")


def database(system: Installation, account: str) -> Database:
    """The database with an account's own password."""
    url = system.cluster.url(system.database, f"lcia_{account}:{system.passwords[account]}")
    return Database(url)


def _enter(system: Installation, account: str, action: str) -> None:
    with database(system, account).begin() as connection:
        version = connection.execute(text("SELECT digest FROM candidates WHERE number = 3")).scalar_one()
        details = {"assistant": "assistant", "number": 3, "epoch": 3, "approvals": [{"person": "ben"}], "marks": []}
        append(connection, action, ANN, version, details)


@attack("log", "the worker's account")
def worker_enters_a_promotion(system: Installation) -> None:
    """Enters in the log that somebody promoted version 3."""
    refused(lambda: _enter(system, "worker", "champion.promoted"), "the log says that ann promoted version 3")


@attack("log", "the worker's account")
def worker_enters_an_approval(system: Installation) -> None:
    """Enters in the log that somebody approved version 3."""
    refused(lambda: _enter(system, "worker", "candidate.approved"), "the log says that ann approved version 3")


@attack("log", "the service's account")
def service_enters_a_promotion(system: Installation) -> None:
    """Enters in the log that somebody promoted version 3."""
    refused(lambda: _enter(system, "service", "champion.promoted"), "the log says that ann promoted version 3")


@attack("log", "the promoter's account")
def promoter_enters_an_approval(system: Installation) -> None:
    """Enters in the log that somebody approved version 3."""
    refused(lambda: _enter(system, "promoter", "candidate.approved"), "the log says that ann approved version 3")


@attack("log", "each account")
def rows_that_stop_the_log(system: Installation) -> None:
    """Writes rows that no later entry fits: garbage, a gap, another hash, a body that says another position."""
    with database(system, "worker").read() as connection:
        last = connection.execute(text("SELECT * FROM log ORDER BY position DESC LIMIT 1")).mappings().one()
    size = int(last["position"]) + 1
    peaks = tuple(bytes.fromhex(peak) for peak in str(last["peaks"]).split())
    body = {**json.loads(bytes(last["body"])), "index": size, "previous": last["hash"], "action": "task.submitted"}

    def row(position: int, content: bytes, leaf: bytes) -> dict[str, object]:
        after = add_leaf(peaks, size, leaf)
        below = " ".join(peak.hex() for peak in after)
        return {"p": position, "b": content, "h": leaf.hex(), "r": root_of(after).hex(), "k": below}

    def whole(**changes: object) -> bytes:
        return json.dumps({**body, **changes}, sort_keys=True, separators=(",", ":")).encode()

    rows = {
        "garbage": row(size, b"garbage", leaf_hash(b"garbage")),
        "a gap": row(size + 5, whole(), leaf_hash(whole())),
        "another hash": row(size, whole(), leaf_hash(b"another")),
        "another position in the body": row(size, whole(index=0), leaf_hash(whole(index=0))),
        "another entry before it": row(size, whole(previous="0" * 64), leaf_hash(whole(previous="0" * 64))),
    }
    statement = text("INSERT INTO log (position, body, hash, root, peaks) VALUES (:p, :b, :h, :r, :k)")
    for account in ("worker", "service", "promoter", "keeper"):
        for name, values in rows.items():
            with database(system, account).engine.connect() as connection:
                refused(lambda c=connection, v=values: c.execute(statement, v), f"{account} wrote {name}")


@attack("log", "each account")
def log_rewritten(system: Installation) -> None:
    """Changes, deletes and empties the log."""
    deeds = ("UPDATE log SET body = body", "DELETE FROM log", "TRUNCATE log", "ALTER TABLE log DISABLE TRIGGER ALL")
    for account in ("worker", "service", "promoter", "keeper"):
        for deed in deeds:
            with database(system, account).engine.connect() as connection:
                refused(lambda c=connection, d=deed: c.execute(text(d)), f"{account} did {deed!r}")


LATER = "2027-01-01T00:00:00.000000Z"
EDITS = {
    "another champion": (
        "UPDATE champion SET version = (SELECT digest FROM candidates WHERE number = 1)",
        "UPDATE champion SET version = (SELECT digest FROM candidates WHERE number = 2)",
    ),
    "an admin more": (
        f"""INSERT INTO people (name, folded, created_at) VALUES ('eve', 'eve', '{LATER}');
        INSERT INTO grants (person, role, site) VALUES ('eve', 'admin', '*')""",
        "DELETE FROM grants WHERE person = 'eve'; DELETE FROM people WHERE name = 'eve'",
    ),
    "a role more": (
        "INSERT INTO grants (person, role, site) VALUES ('tom', 'approver', '*')",
        "DELETE FROM grants WHERE person = 'tom' AND role = 'approver'",
    ),
    "a token more": (
        f"""INSERT INTO tokens (id, secret, person, label, permissions, created_at, expires_at)
        VALUES ('feedfeedfeedfeed', repeat('a', 64), 'ann', 'x', '[]', '{LATER}', '{LATER}')""",
        "DELETE FROM tokens WHERE id = 'feedfeedfeedfeed'",
    ),
    "an approval more": (
        f"""INSERT INTO approvals (candidate, evidence, verdict, person, assured, reason, at, expires_at, override)
        SELECT digest, evidence, 'approve', 'ben', true, 'x', '{LATER}', '{LATER}', false
        FROM candidates WHERE number = 3""",
        "DELETE FROM approvals WHERE reason = 'x'",
    ),
    "another policy": (
        f"""INSERT INTO policies (id, assistant, content, proposed_by, proposed_at, reason, accepted_by, ended_at)
        SELECT 99, assistant, content, 'root', proposed_at, 'x', 'ada', '{LATER}' FROM policies WHERE id = 1""",
        "DELETE FROM policies WHERE id = 99",
    ),
}


@attack("state", "the database's owner")
def state_that_the_log_does_not_explain(system: Installation) -> None:
    """Edits champion, people, roles, tokens, approvals and policy, and leaves the log alone."""
    clean = system.command("service", "audit", "verify")
    if clean.returncode:
        raise RuntimeError(f"the log does not verify before anything was changed: {clean.stdout}{clean.stderr}")
    for name, (edit, undo) in EDITS.items():
        system.owner(edit)
        try:
            seen = system.command("service", "audit", "verify")
            held(seen.returncode != 0, f"`lcia audit verify` is content with {name}: {seen.stdout}")
        finally:
            system.owner(undo)
    again = system.command("service", "audit", "verify")
    held(again.returncode == 0, f"`lcia audit verify` stays unhappy after everything was undone: {again.stdout}")


@attack("state", "the database's owner")
def champion_that_nobody_decided(system: Installation) -> None:
    """Makes another version champion in the table, and lets `lcia sync` put it in front of users."""
    edit, undo = EDITS["another champion"]
    system.owner(edit)
    try:
        seen = system.command("service", "sync")
        served = system.look("ann", "status")[1]["champion"]["served"]
        with database(system, "worker").read() as connection:
            one, two = connection.execute(text("SELECT digest FROM candidates ORDER BY number LIMIT 2")).scalars()
        held(served != one, f"MLflow serves version 1, `lcia sync` said {seen.stdout}")
        held(served == two, f"MLflow serves {served}")
        held(seen.returncode != 0, f"`lcia sync` is content: {seen.stdout}")
    finally:
        system.owner(undo)


@attack("policy", "the service's account")
def service_puts_a_policy_in_force(system: Installation) -> None:
    """Writes an accepted policy of its own into the table, without an entry and without a second admin."""
    before = system.look("root", "policy")[1]["policy"]
    statement = text(
        f"""INSERT INTO policies (assistant, content, proposed_by, proposed_at, reason, accepted_by, ended_at)
        SELECT assistant, replace(content, :on, :off), 'root', proposed_at, 'x', 'root', '{LATER}'
        FROM policies ORDER BY id DESC LIMIT 1"""
    )
    switch = {"on": '"four_eyes":true', "off": '"four_eyes":false'}
    try:
        with database(system, "service").engine.begin() as connection:
            connection.execute(statement, switch)
    except ProgrammingError:  # the database refuses it
        return
    try:
        held(system.look("root", "policy")[1]["policy"] == before, "the service's account alone switched four eyes off")
        held(system.command("service", "audit", "verify").returncode, "`lcia audit verify` is content with that policy")
    finally:
        system.owner("DELETE FROM policies WHERE reason = 'x'")
