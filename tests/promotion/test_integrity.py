"""One changed byte in anything that an approval rests on voids it, whatever kind of object it is in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_loop import OPS, TASKS, SmallLoop, learn, promote
from sqlalchemy import select

from components.audit import log
from components.audit.decisions import ChampionUnexplained
from components.promotion import approvals, champion
from components.promotion.approvals import EvidenceVoid
from components.promotion.candidates import Candidate
from components.promotion.integrity import read_below
from components.storage import tables
from components.storage.objects import ObjectMissing, ObjectStore, canonical, parse_json
from components.storage.reach import digests_in
from lcia.doctor import services, state
from lcia.doctor.findings import Installation
from lcia.instance import Instance
from lcia.operations import audit, registry

Named = Callable[[Instance, Candidate], str]


def _evidence(*path: str) -> Named:
    """The object at a path of the evidence; each record on the way is opened."""

    def named(instance: Instance, version: Candidate) -> str:
        value: Any = version.evidence
        for part in path:
            if isinstance(value, str):
                value = instance.store.get_json(value)
            value = value[int(part)] if isinstance(value, list) else value[part]
        return str(value)

    return named


def _adapter(instance: Instance, version: Candidate) -> str:
    return instance.store.folder_files(instance.pool(version.digest).groups[0].adapter)["adapter_model.safetensors"]


KINDS: dict[str, Named] = {
    "evidence record": _evidence(),
    "manifest and router": _evidence("candidate"),
    "settings and policy": _evidence("candidate", "config"),
    "adapter": _evidence("candidate", "groups", "0", "adapter"),
    "adapter weights": _adapter,
    "curvature": _evidence("candidate", "groups", "0", "curvature"),
    "task snapshot": _evidence("task"),
    "test rows": _evidence("task", "splits", "test", "object"),
    "training rows": _evidence("task", "splits", "train", "object"),
    "assessment record": _evidence("assessment"),
    "validation result": _evidence("assessment", "validation"),
    "validation report": _evidence("assessment", "reports", "validation"),
    "drift result": _evidence("assessment", "drift"),
    "drift report": _evidence("assessment", "drift", "evidently"),
    "tuning record": _evidence("tuning"),
    "evaluation record, the matrix's row": _evidence("evaluation"),
    "predictions": _evidence("evaluation", "predictions", TASKS[1]),
    "predictions of a prior task": _evidence("evaluation", "predictions", TASKS[0]),
    "predictions of the champion": _evidence("evaluation", "champion", TASKS[0]),
    "anchor": _evidence("evaluation", "anchors", TASKS[0], "predictions"),
    "routes": _evidence("evaluation", "routes", TASKS[0]),
    "gate verdict": _evidence("gate"),
    "report": _evidence("reports", "evaluation"),
    "picture": _evidence("reports", "heat_map"),
    "model card": _evidence("reports", "card"),
}


@pytest.fixture(scope="module")
def approved(learnt, tmp_path_factory) -> SmallLoop:
    """A second version, approved by one of two people that policy asks for."""
    loop = learnt.pending.copy(tmp_path_factory.mktemp("approved"))
    instance = loop.open()
    promote(instance)
    learn(instance, loop.package(TASKS[1]))
    approvals.approve(
        instance.db,
        instance.store,
        assistant=instance.assistant,
        version=2,
        actor=OPS,
        reason="read",
        policy=_policy(instance),
    )
    return loop


def _policy(instance: Instance) -> Any:
    return instance.settings.policy


def _promote(instance: Instance) -> champion.Promotion:
    return champion.promote(
        instance.db, instance.store, assistant=instance.assistant, version=2, actor=OPS, policy=_policy(instance)
    )


def _state(instance: Instance) -> list[Any]:
    shown = (tables.champion, tables.candidates, tables.promotions, tables.approvals, tables.queue, tables.outbox)
    with instance.db.read() as connection:
        return [connection.execute(select(table)).all() for table in shown] + [log.head(connection)]


@pytest.mark.parametrize("kind", KINDS)
def test_one_changed_byte_voids_the_approval(approved, kind):
    instance = approved.open()
    with instance.db.read() as connection:
        version = approvals.candidates.get(connection, instance.assistant, 2)
    digest = KINDS[kind](instance, version)
    stored = Path(instance.settings.storage.objects.removeprefix("file://")) / "sha256" / digest[:2] / digest
    good, before = stored.read_bytes(), _state(instance)
    try:
        for position in {0, len(good) // 2, len(good) - 1}:
            stored.chmod(0o644)
            stored.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
            with pytest.raises(EvidenceVoid, match=r"is not whole: object .* hashes to"):
                _promote(instance)
            assert _state(instance) == before
    finally:
        stored.write_bytes(good)


def test_unchanged_it_is_promoted(approved, tmp_path):
    instance = approved.copy(tmp_path).open()
    assert _promote(instance).epoch == 2


def missing_object(store: ObjectStore, digest: str, aside: Path) -> None:
    """Take an object out of the store past lcia; only a restore brings it back."""
    stored = Path(store.url.removeprefix("file://")) / "sha256" / digest[:2] / digest
    stored.replace(aside)


def below(store: ObjectStore, digests: list[str]) -> set[str]:
    """All stored objects that some lead to: what any record on the way names, the fields of ancestors left out."""
    found, waiting = set(digests), [*digests]
    while waiting:
        content = store.get(waiting.pop())
        value = parse_json(content) if content.startswith(b"{") and not content.endswith(b"\n") else {}
        own = (
            {name: part for name, part in value.items() if name not in ("parent", "parents")} if "kind" in value else {}
        )
        new = {name for name in digests_in(canonical(own)) if store.exists(name)} - found
        found |= new
        waiting += new
    return found


def test_no_object_of_the_evidence_goes_unnoticed(approved, tmp_path):
    """Each is taken away in turn; with a word that it was erased on purpose, what may be absent is."""
    instance = approved.copy(tmp_path / "state").open()
    with instance.db.read() as connection:
        version = approvals.candidates.get(connection, instance.assistant, 2)
    assert approvals.check_evidence(instance.store, version).digest == version.evidence
    objects = below(instance.store, [version.evidence, version.digest])
    assert len(objects) > 40
    lasting = 0
    for digest in sorted(objects):
        stored = Path(instance.settings.storage.objects.removeprefix("file://")) / "sha256" / digest[:2] / digest
        missing_object(instance.store, digest, tmp_path / "aside")
        with pytest.raises(EvidenceVoid, match="is not whole"):
            approvals.check_evidence(instance.store, version)
        (tmp_path / "aside").replace(stored)
        content = stored.read_bytes()
        instance.store.erase(digest, "retention.until has passed")
        try:
            approvals.check_evidence(instance.store, version)
        except EvidenceVoid:
            lasting += 1  # without it nobody knows what was decided
        instance.store.put(content)
    assert 0 < lasting < len(objects)
    assert approvals.check_evidence(instance.store, version).digest == version.evidence


def test_images_of_rows_are_part_of_the_evidence(store):
    image = store.put(b"an image")
    rows = store.put_lines([{"image": [image], "output": "a"}])
    task = store.put_json({"kind": "task", "splits": {"test": {"object": rows}}})
    assert read_below(store, [task]) == 3
    store.erase(image, None)
    with pytest.raises(ObjectMissing, match=f"object {image} .* was not erased by retention"):
        read_below(store, [task])
    store.put(b"an image")
    store.erase(image, "news@1 was withdrawn")
    assert read_below(store, [task]) == 2


def test_names_of_no_object_are_not_looked_for(store):
    record = {"kind": "pool", "base_model": "a" * 64, "checks": [{"rows": ["b" * 64]}], "numerics": "c" * 64}
    assert read_below(store, [store.put_json(record)]) == 1


def chosen_champion(instance: Instance) -> None:
    """What whoever can write to the database would have served: a version that waits for people."""
    with instance.db.begin() as connection:
        other = approvals.candidates.get(connection, instance.assistant, 2).digest
        connection.execute(tables.champion.update().values(version=other))


def test_a_champion_that_nobody_decided_is_not_served(approved, tmp_path):
    loop = approved.copy(tmp_path)
    instance = loop.open()
    instance.tell_registry()
    before = instance.registry.champion()
    chosen_champion(instance)
    refused = "is not what entry .* of the log decided"
    with pytest.raises(ChampionUnexplained, match=refused):
        registry.sync(instance, OPS)
    with pytest.raises(ChampionUnexplained, match=refused):
        instance.need_statement(instance.champion())
    (told,) = instance.tell_registry()
    assert not told.ok
    assert "MLflow is not updated" in told.message
    assert instance.registry.champion() == before
    patient = Installation(instance.home, None, instance.settings)
    words = {one.check: one for one in [*state.check_log(patient), *services.check_mlflow(patient)]}
    assert "do not explain the state: champion of assistant has version" in words["log"].words
    assert "not compared with the champion" in words["mlflow"].words
    assert not audit.verify(instance).ok
