"""Laws of carried-over predictions: equal to recomputed ones after any history, resumable after any kill."""

import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from work_area import Killed, Memory

from components.evaluation.carrying import Predictor, Version
from components.evaluation.forgetting import Forgetting, ParentVersion
from components.evaluation.prediction import Evaluator
from components.evaluation.recheck import EvaluationFailed, Mismatch, compare, reevaluate
from components.grouping.pool import GroupTask, Pool
from components.grouping.router import extend
from components.model.adapters import AdapterSlot, store_adapter
from components.model.trunk import Trunk
from components.model.workbench import Workbench
from components.settings import EvaluationSettings, GroupingSettings, Settings
from components.storage.objects import ObjectStore
from components.tasks.package import Package
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot, take_snapshot
from components.tasks.task_file import Decoding

CONFIG = "c" * 64
INSTRUCTIONS = (
    "Is the review positive or negative?",
    "Tell whether the film review is good or bad.",
    "Say if this comment praises or blames.",
    "Is the sentence grammatical English?",
    "Judge the grammar of the sentence.",
    "Name the topic of the request.",
    "Which topic does the comment have?",
)
WORDS = ("fine", "bad", "dull film", "good grammar", "the weather", "a song")
EVALUATION = EvaluationSettings(validation_rows=1, recheck_rows=2, batch_rows=4)


@dataclass
class World:
    """A store, the tiny model, and random adapters instead of tuned ones."""

    store: ObjectStore
    settings: Settings
    bench: Workbench
    template: Snapshot
    versions: list[ParentVersion] = field(default_factory=list)

    def adapter(self, seed: int) -> str:
        draw = torch.Generator().manual_seed(seed)
        slot = self.bench.slot
        tensors = {n: torch.randn(p.shape, generator=draw) * 0.2 for n, p in slot.parameters.items()}
        return store_adapter(self.store, slot.files(tensors, self.bench.base.digest))

    def task(self, number: int, seed: int) -> Snapshot:
        draw = random.Random(seed)
        train = draw.sample(INSTRUCTIONS, draw.randint(1, 2))
        test = [*train, draw.choice(INSTRUCTIONS)]  # one may belong to another task, or be nobody's own
        rows = [Example(text, draw.choice(WORDS), "yes", ("yes", "no")) for text in test]
        choose = draw.random() < 0.5
        decoding = Decoding(mode="choose") if choose else Decoding(max_new_tokens=2)
        task = self.template.task.model_copy(update={"name": f"task{number}", "decoding": decoding, "choices": None})
        splits = {"train": tuple(rows[: len(train)]), "validation": tuple(rows[:1]), "test": tuple(rows)}
        return take_snapshot(Package(Path(), task, splits, ()), self.store)

    def evaluate(
        self, champion: ParentVersion, snapshot: Snapshot, tuning: dict[str, Any], grouping: Any, work: Any = None
    ):
        changed = self.settings.model_copy(update={"evaluation": EVALUATION, "grouping": grouping})
        evaluator = Evaluator(self.bench.trunk, self.bench.slot, EVALUATION.batch_rows)
        digest = Forgetting(self.store, changed, evaluator, champion, snapshot, work=work).run(tuning, CONFIG)
        record = self.store.get_json(digest)
        return digest, ParentVersion(record["pool"], Pool.from_manifest(self.store.get_json(record["pool"])), record)

    def rows(self, champion: ParentVersion, task: str) -> list[dict[str, Any]]:
        return self.store.get_json(champion.evaluation["predictions"][task])["rows"]


@pytest.fixture(scope="module")
def world(tiny_settings, load_tiny, example_in, tmp_path_factory) -> World:
    base = load_tiny()
    slot = AdapterSlot(base, tiny_settings.adapter)
    store = ObjectStore(f"file://{tmp_path_factory.mktemp('carrying')}")
    bench = Workbench(base, slot, Trunk(base, slot))
    return World(store, tiny_settings, bench, example_in(store, "movie_sentiment"))


def tuning_of(world: World, pool: Pool, kind: str, seed: int) -> dict[str, Any]:
    """What a tuning run would hand over: a group of its own, or a reused one."""
    groups = [group.id for group in pool.groups]
    reused = random.Random(seed).choice(groups) if kind == "reuse" and groups else None
    return {"group": reused, "points": {"live": world.adapter(seed)}, "curvature": None, "kept_rows": None}


STEP = st.tuples(
    st.sampled_from(["open", "reuse"]),
    st.integers(0, 40),  # the task
    st.sampled_from([None, 0.0, 0.35, 0.8]),  # another threshold re-routes requests
    st.sampled_from(["embedding", "tfidf"]),  # so does another encoder; word counts are fitted again in each version
    st.one_of(st.none(), st.integers(0, 3)),  # roll back to this version first
)


@settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
@given(st.lists(STEP, min_size=2, max_size=4))
def test_what_is_carried_over_is_what_would_be_computed(world, steps) -> None:
    champion = ParentVersion(None, Pool.empty("assistant", world.bench.base.digest), None)
    history: list[ParentVersion] = []
    for number, (kind, seed, threshold, encoder, back) in enumerate(steps):
        if back is not None and back < len(history):
            champion = history[back]
        grouping = GroupingSettings(request_threshold=threshold, encoder=encoder)
        snapshot = world.task(number, seed)
        tuning = tuning_of(world, champion.pool, kind, 100 * number + seed)
        _, carried = world.evaluate(champion, snapshot, tuning, grouping)
        _, fresh = world.evaluate(replace(champion, evaluation=None), snapshot, tuning, grouping)
        assert carried.digest == fresh.digest
        assert carried.evaluation["predictions"].keys() == fresh.evaluation["predictions"].keys()
        for task in fresh.evaluation["predictions"]:
            ours, theirs = world.rows(carried, task), world.rows(fresh, task)
            assert [(r["row"], r["group"]) for r in ours] == [(r["row"], r["group"]) for r in theirs]
            assert all(m.near_tie for m in compare(task, ours, theirs, EVALUATION.tie_gap))
            proof = carried.evaluation["proofs"][task]
            assert proof["rows"] == len(ours) >= sum(proof["from"].values())
            _moves_are_told(world, champion, carried, task)
        predicted = sum(p["rows"] - sum(p["from"].values()) for p in carried.evaluation["proofs"].values())
        assert (
            predicted + len(snapshot.rows("test")) == carried.evaluation["predicted"]
        )  # the champion's on the new one
        history.append(carried)
        champion = carried
    changed = world.settings.model_copy(update={"evaluation": EVALUATION})
    predictor = Predictor(world.store, changed, Evaluator(world.bench.trunk, world.bench.slot, 4))
    assert reevaluate(predictor, champion.evaluation).ok


def _moves_are_told(world: World, before: ParentVersion, after: ParentVersion, task: str) -> None:
    """Every prior example that another group answers now is counted in the record."""
    told = after.evaluation["rerouted"].get(task, [])
    moved = 0
    if before.evaluation and task in before.evaluation["predictions"]:
        pairs = zip(world.rows(before, task), world.rows(after, task), strict=True)
        moved = sum(old["group"] != new["group"] for old, new in pairs)
    assert sum(move["rows"] for move in told) == moved


def test_the_histories_above_hold_what_they_are_meant_to(world) -> None:
    """A new group steals a prior example: it is predicted again, and the record says so."""
    stolen = INSTRUCTIONS[1]  # shares a word with the first
    grouping = GroupingSettings(request_threshold=0.0)
    nobody = ParentVersion(None, Pool.empty("assistant", world.bench.base.digest), None)
    first = _task(world, "first", INSTRUCTIONS[:1], (*INSTRUCTIONS[:1], stolen))
    second = _task(world, "second", (stolen,), (stolen,))
    _, one = world.evaluate(nobody, first, tuning_of(world, nobody.pool, "open", 1), grouping)
    _, two = world.evaluate(one, second, tuning_of(world, one.pool, "open", 2), grouping)
    assert [r["group"] for r in world.rows(two, "first")] == ["g1", "g2"]
    assert two.evaluation["rerouted"] == {"first": [{"from": "g1", "to": "g2", "rows": 1}]}
    origin = one.evaluation["predictions"]["first"]
    assert [r["from"] for r in world.rows(two, "first")] == [origin, None]
    assert two.evaluation["proofs"]["first"] == {"rows": 2, "from": {origin: 1}}


def _task(world: World, name: str, train: tuple[str, ...], test: tuple[str, ...]) -> Snapshot:
    rows = {k: tuple(Example(text, "fine", "yes") for text in v) for k, v in (("train", train), ("test", test))}
    task = world.template.task.model_copy(
        update={"name": name, "decoding": Decoding(max_new_tokens=2), "choices": None}
    )
    return take_snapshot(Package(Path(), task, {**rows, "validation": rows["train"]}, ()), world.store)


def test_killed_at_any_write_and_resumed_is_as_if_undisturbed(world, monkeypatch) -> None:
    monkeypatch.setattr("components.evaluation.carrying.PORTION", 1)
    grouping = GroupingSettings(request_threshold=0.0)
    nobody = ParentVersion(None, Pool.empty("assistant", world.bench.base.digest), None)
    _, champion = world.evaluate(nobody, world.task(0, 3), tuning_of(world, nobody.pool, "open", 3), grouping)
    snapshot = _task(world, "long", INSTRUCTIONS[:1], INSTRUCTIONS * 2)  # more than one portion
    tuning = tuning_of(world, champion.pool, "reuse", 5)
    whole, area = Memory(), {}
    digest, _ = world.evaluate(champion, snapshot, tuning, grouping, whole)
    assert world.evaluate(champion, snapshot, tuning, grouping)[0] == digest  # nor does a work area change anything
    assert whole.writes > 8
    for fatal in range(1, whole.writes + 1):
        memory = Memory(fatal=fatal)
        with pytest.raises(Killed):
            world.evaluate(champion, snapshot, tuning, grouping, memory)
        assert len(memory.files) == fatal - 1
        memory.fatal, memory.writes = 0, 0
        assert world.evaluate(champion, snapshot, tuning, grouping, memory)[0] == digest
        assert memory.writes == whole.writes - (fatal - 1)  # nothing was predicted twice
        area = memory.files
    again = Memory(dict(area))
    assert world.evaluate(champion, snapshot, tuning, grouping, again)[0] == digest
    assert again.writes == 0


class TestReevaluate:
    """What was stored against what is computed."""

    @pytest.fixture(scope="class")
    def version(self, world) -> ParentVersion:
        nobody = ParentVersion(None, Pool.empty("assistant", world.bench.base.digest), None)
        task = _task(world, "seen", INSTRUCTIONS[:3], INSTRUCTIONS[:3])
        return world.evaluate(nobody, task, tuning_of(world, nobody.pool, "open", 7), GroupingSettings())[1]

    def found(self, world, version, **changes) -> tuple[Mismatch, ...]:
        value = world.store.get_json(version.evaluation["predictions"]["seen"])
        value["rows"][1] |= changes
        record = {**version.evaluation, "predictions": {"seen": world.store.put_json(value)}}
        predictor = Predictor(world.store, world.settings, Evaluator(world.bench.trunk, world.bench.slot, 4))
        return reevaluate(predictor, record).mismatches

    @pytest.mark.parametrize(
        ("changes", "what", "tie"),
        [
            ({"text": "made up"}, "text", False),
            ({"text": "made up", "gap": 1e-5}, "text", True),
            ({"score": 0.5}, "score", False),
            ({"key": "0" * 64}, "key", False),
        ],
    )
    def test_every_alteration_is_found_and_only_near_ties_are_excused(self, world, version, changes, what, tie) -> None:
        assert self.found(world, version) == ()
        (mismatch,) = self.found(world, version, **changes)
        assert (mismatch.what, mismatch.near_tie) == (what, tie)
        assert mismatch.row == world.rows(version, "seen")[1]["row"]

    def test_a_row_that_its_origin_does_not_hold_is_unproven(self, world, version) -> None:
        other = world.store.put_json({"kind": "predictions", "rows": []})
        (mismatch,) = self.found(world, version, **{"from": other})
        assert (mismatch.what, mismatch.near_tie) == ("proof", False)
        assert self.found(world, version, **{"from": version.evaluation["predictions"]["seen"]}) == ()

    def test_other_numerics_are_refused(self, world, version) -> None:
        record = {**version.evaluation, "numerics": {"torch": "0"}, "numerics_digest": "0" * 64}
        predictor = Predictor(world.store, world.settings, Evaluator(world.bench.trunk, world.bench.slot, 4))
        with pytest.raises(EvaluationFailed, match=r"torch 0, now "):
            reevaluate(predictor, record)


def test_a_version_routes_as_its_router_does(world) -> None:
    rows = [Example(text, word, "yes") for text in INSTRUCTIONS for word in (None, *WORDS)]
    nobody = Version.of(Pool.empty("assistant", world.bench.base.digest), world.settings)
    assert nobody.groups(rows) == [None] * len(rows)
    assert nobody.adapters == {None: None}
    grouping = GroupingSettings(request_threshold=0.01, fallback="ask", margin=1.0)
    pool = nobody.pool
    for name, texts in (("film", INSTRUCTIONS[:2]), ("english", INSTRUCTIONS[3:4])):
        entry = GroupTask(name[0] * 64, name, texts)
        pool = extend(
            pool, entry, group=None, adapter="f" * 64, curvature=None, parent=None, config=CONFIG, settings=grouping
        )
    version = Version.of(pool, world.settings)
    inputs = [row.input for row in rows]
    asked = version.router.route_many([row.instruction for row in rows], inputs)
    assert any(route.unsure_between for route in asked)
    answered = version.router.route_many([row.instruction for row in rows], inputs, "answer")
    assert version.groups(rows) == [route.group for route in answered]
    assert {"g1", "g2"} <= set(version.groups(rows))
