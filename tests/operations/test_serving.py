"""The service's side of gateways: what they follow, parts of versions, their reports beside the decision."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from components.audit import statement
from components.audit.log import SYSTEM, Actor
from components.identity import people, tokens
from components.promotion.replicas import NotAskable
from components.promotion.trial_rows import TrialUnknown
from components.serving import bundle
from components.storage import tables
from components.storage.objects import ObjectStore, digest_of
from lcia.instance import Instance
from lcia.operations import serving
from lcia.operations.serving import PartUnknown, part
from lcia.operations.table import OPERATIONS

GATEWAY = Actor("gateway-1", assured=True, how="token 1")
ARM = {"requests": 22, **dict.fromkeys(("errors", "slow", "none_routed", "rated", "complaints"), 1)}
TRIAL = {
    "id": 1,
    "counts": {"champion": ARM, "candidate": ARM},
    "pairs": {"compared": 3, "agreed": 2, "errors": [0, 1], "slow": [0, 0], "none_routed": [0, 0]},
    "latency": {"champion": [1] * 11, "candidate": [2] * 11},
    "changed": [{"id": "r1", "champion": "yes", "candidate": "no"}],
}


@pytest.fixture
def instance(champion) -> Instance:
    return champion.open()


def ask(instance: Instance, name: str, **params: Any) -> Any:
    operation = OPERATIONS[name]
    return operation.run(instance, GATEWAY, operation.check(params))


def test_a_gateway_follows_the_champion_with_its_signed_statement(instance):
    answer = ask(instance, "serving")
    champion = instance.champion()
    assert answer["assistant"] == instance.assistant
    assert (answer["version"], answer["trial"], answer["tokens"]) == (None, None, [])
    now = answer["champion"]
    assert (now["number"], now["digest"], now["problem"]) == (champion.number, champion.digest, None)
    facts = statement.read(now["statement"].encode(), instance.public_key(), champion.digest)
    assert facts.predicate["epoch"] == now["epoch"]


def test_a_champion_without_its_statement_comes_with_the_reason(instance):
    with instance.db.begin() as connection:
        connection.execute(tables.statements.delete())
    now = ask(instance, "serving")["champion"]
    assert now["statement"] is None
    assert "has no signed statement" in now["problem"]


def test_before_the_first_decision_there_is_no_champion(pending):
    assert ask(pending.open(), "serving")["champion"] is None


def test_a_version_that_somebody_asks_for_comes_with_its_digest(instance):
    for reference in ("1", "v1", ask(instance, "serving", version="1")["version"]["digest"]):
        assert ask(instance, "serving", version=reference)["version"]["number"] == 1


def test_a_version_that_waits_may_be_asked_for_until_it_is_rejected(pending):
    waiting = pending.open()
    assert ask(waiting, "serving", version="1")["version"]["number"] == 1
    ask(waiting, "reject", version="1", reason="worse")
    with pytest.raises(NotAskable, match="version 1 is rejected"):
        ask(waiting, "serving", version="1")


def test_tokens_that_may_ask_come_with_their_checks_and_others_do_not(instance):
    secrets = {}
    with instance.db.begin() as connection:
        for name, role in (("app", "answer"), ("eve", "engineer"), ("gw", "serve")):
            people.add(connection, name, actor=SYSTEM)
            people.grant(connection, name, role, actor=SYSTEM)
            limits = ("try",) if name == "eve" else ()
            token, text = tokens.create(connection, name, "x", timedelta(days=1), limits, actor=SYSTEM)
            secrets[name] = (token, text.split("_", 2)[2])
        token, text = tokens.create(connection, "eve", "all", timedelta(days=1), actor=SYSTEM)
    answer = {one["person"]: one for one in ask(instance, "serving")["tokens"]}
    assert answer.keys() == {"app", "eve"}
    app, secret = secrets["app"]
    assert (answer["app"]["id"], answer["app"]["check"]) == (app.id, digest_of(secret.encode()))
    assert answer["app"]["expires_at"] == app.expires_at.isoformat()
    assert (answer["app"]["permissions"], answer["eve"]["permissions"]) == (["answer"], ["answer", "try"])
    assert answer["eve"]["id"] == token.id, "one that may only try asks nothing"


def test_looking_reads_no_object_but_the_statement(instance, monkeypatch):
    reads = []
    get = ObjectStore.get
    monkeypatch.setattr(ObjectStore, "get", lambda store, digest: reads.append(digest) or get(store, digest))
    ask(instance, "serving")
    assert len(reads) == 1


def test_a_version_put_together_from_its_parts_is_the_version(instance, tmp_path):
    version = instance.champion().digest
    contents = bundle.parts(instance.store, version)
    fetched = ObjectStore(f"file://{tmp_path}/fetched")
    for digest in bundle.digests(instance.store, version):
        content = part(instance, version, digest)
        assert digest_of(content) == digest
        fetched.put(content)
    bundle.write(fetched, version, tmp_path / "folder")
    whole = bundle.read(tmp_path / "folder", version)
    assert set(whole.adapters) == {place.removeprefix("adapters/") for place in contents.folders}


def test_nothing_but_parts_of_the_version_is_given(instance):
    version = instance.champion().digest
    pool = instance.pool(version)
    task = pool.tasks()[0].task
    own = bundle.digests(instance.store, version)
    assert task in own
    evidence = instance.evidence(instance.champion())
    with instance.db.read() as connection:
        packages = [row.package for row in connection.execute(tables.queue.select())]
    header = instance.store.get_json(task)
    rows = [split["object"] for split in header["splits"].values()]
    others = [*rows, *packages, instance.champion().evidence, evidence["gate"], evidence["evaluation"], "0" * 64]
    assert len(rows) >= 2
    for digest in others:
        assert digest not in own
        with pytest.raises(PartUnknown, match="is no part of version"):
            part(instance, version, digest)


def test_parts_of_one_version_are_not_given_as_parts_of_another(instance):
    first, last = ask(instance, "serving", version="1")["version"]["digest"], instance.champion().digest
    with pytest.raises(PartUnknown):
        part(instance, first, last)


def test_parts_of_rejected_and_erased_versions_are_refused(pending):
    instance = pending.open()
    version = ask(instance, "serving", version="1")["version"]["digest"]
    assert part(instance, version, version)
    ask(instance, "reject", version="1", reason="worse")
    with pytest.raises(NotAskable, match="worse"):
        part(instance, version, version)


def test_a_version_that_was_erased_says_so(instance):
    version = ask(instance, "serving", version="1")["version"]["digest"]
    adapter = next(iter(bundle.parts(instance.store, version).folders.values()))
    part(instance, version, adapter)
    instance.store.erase(version, "movie_sentiment was withdrawn")
    for call in (lambda: part(instance, version, adapter), lambda: ask(instance, "serving", version="1")):
        with pytest.raises(NotAskable, match="was erased: movie_sentiment was withdrawn"):
            call()


def test_replicas_say_who_serves_what_was_decided(instance):
    assert ask(instance, "replicas")["replicas"] == []
    champion, first = instance.champion(), ask(instance, "serving", version="1")["version"]
    right = {"replica": "gw-1", "engine": "embedded", "ready": True, "version": champion.digest}
    counts = {"traffic": {"g1": {"requests": 5, "errors": 1}}, "latency": {"p50": 0.2}}
    assert ask(instance, "report", **right, **counts) == {}
    ask(
        instance,
        "report",
        replica="gw-2",
        engine="vllm",
        ready=True,
        version=first["digest"],
        problem="an altered byte",
    )
    answer = ask(instance, "replicas")
    assert (answer["of"], answer["serving"]) == (2, 1)
    assert (answer["decided"]["number"], answer["decided"]["digest"]) == (champion.number, champion.digest)
    one, two = answer["replicas"]
    assert (one["number"], one["fresh"], one["differs_since"]) == (champion.number, True, None)
    assert one["traffic"] == counts["traffic"]
    assert one["latency"] == {"p50": 0.2, "p99": None, "first_token_p50": None}
    assert (two["number"], two["problem"]) == (1, "an altered byte")
    assert two["differs_since"] == answer["differs_since"] is not None
    assert ask(instance, "status")["gateways"]["serving"] == 1


def test_whoever_looks_sees_counts_of_a_trial_and_no_texts(instance):
    with pytest.raises(TrialUnknown):  # what it says of itself is taken in all the same
        ask(instance, "report", replica="gw-1", engine="embedded", ready=True, trial=TRIAL)
    shown = ask(instance, "replicas")["replicas"][0]["trial"]
    assert shown == {name: value for name, value in TRIAL.items() if name != "changed"}
    with instance.db.read() as connection:
        assert "yes" not in str(connection.execute(tables.replicas.select()).all())


def test_a_replica_of_a_version_that_is_unknown_here_is_shown(instance):
    ask(instance, "report", replica="gw-1", engine="embedded", ready=True, version="e" * 64)
    one = ask(instance, "replicas")["replicas"][0]
    assert (one["number"], one["digest"]) == (None, "e" * 64)


def test_silent_replicas_are_listed_and_not_counted(instance):
    ask(instance, "report", replica="gw-1", engine="embedded", ready=False)
    with instance.db.begin() as connection:
        long_ago = instance.db.now(connection) - timedelta(minutes=5)
        connection.execute(update(tables.replicas).values(reported_at=long_ago))
    answer = serving.fleet(instance)
    assert (answer["of"], answer["serving"], answer["differs_since"]) == (0, 0, None)
    assert [one["fresh"] for one in answer["replicas"]] == [False]
