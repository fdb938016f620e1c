"""On PostgreSQL the database itself writes the log, and checks what each account has entered."""

import ast
import random
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from components.audit import log
from components.audit.log import SYSTEM, Actor, Deed, EntryRefused
from components.audit.merkle import leaf_hash
from components.audit.verify import verify_database
from components.storage import privileges, tables
from components.storage.database import AccountRefused, Database, now
from components.storage.objects import canonical
from components.tasks import queue

ROOT = Path(__file__).parents[2]
VALUES = [
    {}, [], None, True, 0, -1, 0.1, 1e-7, 1.5e-6, 1e21, 1.2345678901234568e20, 1e300, 5e-324, -2.5, 2**53 - 1,
    1e15, 1e16,
    "\x7f\u0080\u20ac\ufb33\U0001f600", "\b\t\n\f\r\"\\/\x01\x1f", {"\ufb33": 1, "\U0001f600": 2, "\u20ac": 3, "é": 4},
    {"a": {"b": [1, {"c": [None, False, "x"]}]}, "": 0, "A": 1, "aa": 2, "\r": 3, "1": 4}, [[[]]],
    {"z": 0.5, "y": 333333333.3333333},
]  # fmt: skip


@pytest.fixture
def shared(postgresql):
    """A database and its opening by account; `owner` owns the tables."""
    name = postgresql.new()
    postgresql.execute(privileges.script(), name)
    users = {"owner": "postgres", **{account: f"lcia_{account}" for account in privileges.ACCOUNTS}}
    found = {account: Database(postgresql.url(name, user)) for account, user in users.items()}
    with found["owner"].begin() as connection:
        log.append_all(connection, [Deed("thing.done", SYSTEM, f"s{number}", {"n": number}) for number in range(5)])
    yield found
    for db in found.values():
        db.engine.dispose()
    postgresql.drop(name)


def body_of(connection, **fields) -> bytes:
    """The canonical body of the entry that would be next, some fields changed."""
    last = connection.execute(select(tables.log).order_by(tables.log.c.position.desc()).limit(1)).one()
    value = {
        "index": last.position + 1,
        "at": tables.moment_text(now(connection)),
        "actor": asdict(SYSTEM),
        "action": "task.assessing",
        "subject": "x",
        "details": {},
        "previous": last.hash,
    }
    return canonical({**value, **fields})


def enter(db: Database, *bodies: bytes, **fields) -> None:
    """Ask the log's writer, past everything else."""
    with db.begin() as connection:
        wanted = list(bodies) or [body_of(connection, **fields)]
        connection.execute(text("SELECT log_enter(:bodies)"), {"bodies": wanted})


def whole(db: Database, entries: int) -> bool:
    with db.read() as connection:
        found = verify_database(connection)
    return found.ok and found.entries == entries


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_the_database_writes_json_as_python_does(shared, value):
    with shared["owner"].read() as connection:
        told = connection.execute(
            text("SELECT log_canonical(CAST(:value AS jsonb))"), {"value": canonical(value).decode()}
        )
        assert told.scalar_one().encode() == canonical(value)


def test_numbers_and_names_drawn_at_random_are_written_alike(shared):
    draw = random.Random(7)
    signs = 'aZ09 _\u00e9\u4e2d\ud7ff\ue000\uffee\U00010000\U0010ffff"\\\n'
    values = [
        {
            "".join(draw.choices(signs, k=3)): draw.choice([draw.uniform(-1, 1) * 10.0 ** draw.randint(-12, 25), 7])
            for _ in range(6)
        }
        for _ in range(300)
    ]
    with shared["owner"].begin() as connection:
        log.append_all(connection, [Deed("thing.done", SYSTEM, "s", value) for value in values])
    assert whole(shared["owner"], 305)


def test_what_stands_beside_an_entry_is_the_same_on_every_database(shared, tmp_path):
    sqlite = Database(f"sqlite:///{tmp_path}/state.db")
    sqlite.migrate()
    for count in (1, 2, 3, 30):
        deeds = [Deed("thing.done", SYSTEM, f"s{number}", {"n": [number, "é"]}) for number in range(count)]
        with shared["owner"].begin() as connection:
            log.append_all(connection, deeds)
    with shared["owner"].read() as connection:
        rows = [dict(row) for row in connection.execute(select(tables.log).order_by(tables.log.c.position)).mappings()]
    with sqlite.begin() as connection:
        for row in rows:
            connection.execute(tables.log.insert().values(**row))
    with sqlite.read() as connection:
        assert verify_database(connection).ok


def forged_promotion(db: Database) -> None:
    """A promotion that nobody decided."""
    enter(db, action="champion.promoted", subject="f" * 64, details={"assistant": "a", "epoch": 1})


def forged_approval(db: Database) -> None:
    enter(db, action="candidate.approved", subject="f" * 64, actor={"name": "carol", "assured": True, "how": "console"})


def named_person(db: Database) -> None:
    """A deed of the worker's own, in the name of somebody who signed in."""
    enter(db, actor={"name": "carol", "assured": True, "how": "console"})


def feigned_system(db: Database) -> None:
    enter(db, actor={"name": "carol", "assured": True, "how": "system"})


def assured_stranger(db: Database) -> None:
    enter(db, actor={"name": "carol", "assured": True, "how": "asserted"})


def past_the_writer(db: Database) -> None:
    with db.begin() as connection:
        body = body_of(connection)
        beside = {"hash": leaf_hash(body).hex(), "root": "0" * 64, "peaks": "", "action": "x.y", "subject": "x"}
        connection.execute(tables.log.insert().values(position=5, body=body, **beside))


def own_permission(db: Database) -> None:
    with db.begin() as connection:
        values = {"account": "lcia_worker", "action": "champion.promoted"}
        connection.execute(tables.log_actions.insert().values(**values))


def shadowed_names(db: Database) -> None:
    """Functions and tables of one's own do not stand in for those that the writer uses."""
    with db.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE log_actions (account text, action text, actors text)"))


FORBIDDEN = [forged_promotion, forged_approval, named_person, feigned_system, assured_stranger, past_the_writer,
             own_permission, shadowed_names]  # fmt: skip


@pytest.mark.parametrize("attack", FORBIDDEN, ids=lambda attack: attack.__name__)
def test_the_worker_has_nothing_entered_that_is_not_its_own(shared, attack):
    with pytest.raises(AccountRefused, match="lcia_worker"):
        attack(shared["worker"])
    assert whole(shared["owner"], 5)


def garbage(db: Database) -> None:
    enter(db, b"garbage")


def no_utf8(db: Database) -> None:
    enter(db, b"\xff\xfe{}")


def blanks(db: Database) -> None:
    with db.begin() as connection:
        body = body_of(connection)
    enter(db, body.replace(b":", b": ", 1))


def twice_named(db: Database) -> None:
    with db.begin() as connection:
        body = body_of(connection)
    enter(db, body.replace(b'"details":{}', b'"details":{"a":1,"a":1}'))


def gap(db: Database) -> None:
    enter(db, index=6)


def index_in_words(db: Database) -> None:
    enter(db, index="5")


def wrong_link(db: Database) -> None:
    enter(db, previous="0" * 64)


def old_time(db: Database) -> None:
    enter(db, at="2020-01-01T00:00:00.000000Z")


def time_to_come(db: Database) -> None:
    enter(db, at="2999-01-01T00:00:00.000000Z")


def no_time(db: Database) -> None:
    enter(db, at="yesterday")


def field_more(db: Database) -> None:
    enter(db, extra=1)


def nobody(db: Database) -> None:
    enter(db, actor={"name": "", "assured": True, "how": "system"})


def no_details(db: Database) -> None:
    enter(db, details=[])


def large(db: Database) -> None:
    enter(db, details={"x": "x" * (4 << 20)})


def null(db: Database) -> None:
    enter(db, b"null")


BAD = [garbage, no_utf8, blanks, twice_named, gap, index_in_words, wrong_link, old_time, time_to_come, no_time,
       field_more, nobody, no_details, large, null]  # fmt: skip


@pytest.mark.parametrize("attack", BAD, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("account", ["worker", "owner"])
def test_nobody_adds_what_is_no_entry(shared, attack, account):
    with pytest.raises(DBAPIError, match="the log takes only"):
        attack(shared[account])
    assert whole(shared["owner"], 5)
    with shared["worker"].begin() as connection:
        log.append(connection, "task.assessing", SYSTEM, "x")
    assert whole(shared["owner"], 6)


def test_odd_signs_in_a_name_keep_nobody_from_reading_the_log(shared):
    enter(shared["worker"], actor={"name": "a\u202eb\u200b", "assured": False, "how": "asserted"})
    enter(shared["worker"], actor={"name": " ", "assured": False, "how": "asserted"})
    with shared["owner"].read() as connection:
        assert [entry.actor.name for entry in log.entries(connection, start=5)] == ["a\\u202eb\\u200b", "(blank)"]
    assert whole(shared["owner"], 7)


def test_two_at_once_take_turns(shared):
    """Whoever calls the writer without the lock of write transactions waits, and then comes too late."""
    worker, owner = shared["worker"], shared["owner"]
    with worker.engine.connect() as first, first.begin():
        body = body_of(first)
        first.execute(text("SELECT log_enter(:bodies)"), {"bodies": [body]})
        with owner.engine.connect() as second, second.begin():
            second.execute(text("SET LOCAL lock_timeout = '200ms'"))
            with pytest.raises(DBAPIError, match="lock timeout"):
                second.execute(text("SELECT log_enter(:bodies)"), {"bodies": [body]})
    assert whole(owner, 6)


def test_a_refusal_says_what_to_look_at(shared, monkeypatch):
    from datetime import timedelta

    monkeypatch.setattr(log, "now", lambda connection: now(connection) - timedelta(hours=1))
    with pytest.raises(EntryRefused, match=r"only entries of now.*database's clock"), shared["owner"].begin() as one:
        log.append(one, "thing.done", SYSTEM, "x")


def test_a_damaged_end_is_said_by_the_writer_too(shared):
    with shared["owner"].begin() as connection:
        connection.execute(text("ALTER TABLE log DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE log SET root = repeat('0', 64) WHERE position = 4"))
        connection.execute(text("ALTER TABLE log ENABLE TRIGGER USER"))
    with pytest.raises(DBAPIError, match="the end of the log is damaged: entry 4"):
        enter(shared["worker"])


def test_after_a_roles_script_of_a_release_before_no_account_writes_past_the_writer(shared):
    """Between `database migrate` and `database roles` the old grant on the table stands."""
    with shared["owner"].begin() as connection:
        connection.execute(text("GRANT INSERT ON log TO lcia_worker"))
        connection.execute(text("CREATE POLICY old ON log FOR INSERT TO lcia_worker WITH CHECK (true)"))
    with pytest.raises(AccountRefused, match="written by log_enter alone"):
        past_the_writer(shared["worker"])


def _sources():
    for folder in ("components", "lcia", "pipelines", "steps"):
        for path in (ROOT / folder).rglob("*.py"):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def actions_in_sources() -> set[str]:  # noqa: C901 - one walk
    """Every action that a call of `append` or a `Deed` names; parts that are filled in stand as `*`."""
    found = set()
    constants = {}
    for _, tree in _sources():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                constants |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
    for _, tree in _sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            for wanted in node.args[:2] if name in {"append", "Deed", "_enter"} else ():
                for part in ast.walk(wanted):
                    if isinstance(part, ast.JoinedStr):
                        found.add(
                            "".join(piece.value if isinstance(piece, ast.Constant) else "*" for piece in part.values)
                        )
                    elif isinstance(part, ast.Name):
                        found.add(constants.get(part.id, ""))
                    elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                        found.add(part.value)
            if name == "_enter":
                found |= {
                    one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)
                }
    return {action for action in found if re.fullmatch(r"[a-z_]+\.[a-z_*]+", action)}


OTHERS = {"log.disowned", "log.set_aside", "log.tried", "task.yaml", "tokenizer_config.json"}
"""What the owner of the tables alone enters, what is undone, and two files."""


def test_every_action_of_the_sources_may_be_entered_by_some_account():
    seen = actions_in_sources()
    assert {"champion.promoted", "task.submitted", "task.*", "key.rotated", "flips.seen", "policy.*"} <= seen
    allowed = {action for actions in privileges.ENTRIES.values() for action in actions}
    missing = {
        action for action in seen - OTHERS
        if action not in allowed and f"{action.partition('.')[0]}.*" not in allowed and action != "task.*"
    }  # fmt: skip
    assert not missing, "name the account that may enter it in components/storage/privileges.py"
    states = {f"task.{state}" for state in queue.MOVES}
    assert states <= allowed
    ends = {"task.promoted", "task.rejected", "task.withdrawn"}
    assert states - ends == {action for action in privileges.ENTRIES["worker"] if action.startswith("task.")}


def test_whoever_is_a_member_of_an_account_has_entered_what_the_account_may(shared):
    with shared["owner"].begin() as connection:
        connection.execute(text("CREATE ROLE lcia_member LOGIN IN ROLE lcia_worker"))
    try:
        member = Database(shared["worker"].engine.url.set(username="lcia_member").render_as_string(hide_password=False))
        enter(member)
        with pytest.raises(AccountRefused):
            forged_promotion(member)
        member.engine.dispose()
    finally:
        with shared["owner"].begin() as connection:
            connection.execute(text("DROP ROLE lcia_member"))


def test_an_actor_stays_who_he_is():
    assert Actor.of_log("bob", assured=True, how="console") == replace(Actor("bob", assured=True), how="console")
