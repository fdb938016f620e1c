"""One changed byte in anything that an approval rests on voids it, whatever kind of object it is in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_loop import OPS, TASKS, SmallLoop, learn, promote
from sqlalchemy import select

from components.audit import log
from components.promotion import approvals, champion
from components.promotion.approvals import EvidenceVoid
from components.promotion.candidates import Candidate
from components.storage import tables
from lcia.workplace import Workplace

Named = Callable[[Workplace, Candidate], str]


def _evidence(*path: str) -> Named:
    """The object at a path of the evidence; each record on the way is opened."""

    def named(place: Workplace, version: Candidate) -> str:
        value: Any = version.evidence
        for part in path:
            if isinstance(value, str):
                value = place.store.get_json(value)
            value = value[int(part)] if isinstance(value, list) else value[part]
        return str(value)

    return named


def _adapter(place: Workplace, version: Candidate) -> str:
    return place.store.folder_files(place.pool(version.digest).groups[0].adapter)["adapter_model.safetensors"]


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
    place = loop.open()
    promote(place)
    learn(place, loop.package(TASKS[1]))
    approvals.approve(
        place.db, place.store, assistant=place.assistant, version=2, actor=OPS, reason="read", policy=_policy(place)
    )
    return loop


def _policy(place: Workplace) -> Any:
    return place.settings.policy


def _promote(place: Workplace) -> champion.Promotion:
    return champion.promote(
        place.db, place.store, assistant=place.assistant, version=2, actor=OPS, policy=_policy(place)
    )


def _state(place: Workplace) -> list[Any]:
    shown = (tables.champion, tables.candidates, tables.promotions, tables.approvals, tables.queue, tables.outbox)
    with place.db.read() as connection:
        return [connection.execute(select(table)).all() for table in shown] + [log.head(connection)]


@pytest.mark.parametrize("kind", KINDS)
def test_one_changed_byte_voids_the_approval(approved, kind):
    place = approved.open()
    with place.db.read() as connection:
        version = approvals.candidates.get(connection, place.assistant, 2)
    digest = KINDS[kind](place, version)
    stored = Path(place.settings.storage.objects.removeprefix("file://")) / "sha256" / digest[:2] / digest
    good, before = stored.read_bytes(), _state(place)
    try:
        for position in {0, len(good) // 2, len(good) - 1}:
            stored.chmod(0o644)
            stored.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
            with pytest.raises(EvidenceVoid, match=r"is not whole: object .* hashes to"):
                _promote(place)
            assert _state(place) == before
    finally:
        stored.write_bytes(good)


def test_unchanged_it_is_promoted(approved, tmp_path):
    place = approved.copy(tmp_path).open()
    assert _promote(place).epoch == 2
