"""The whole evaluation on tiny tasks with a real store: what is carried over equals what is computed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from components.evaluation.carrying import Predictor
from components.evaluation.forgetting import EvaluationFailed, Forgetting, ParentVersion
from components.evaluation.history import curve_drop, curve_points, report
from components.evaluation.prediction import Evaluator
from components.evaluation.prior_tasks import PriorTasks
from components.evaluation.rerouting import Rerouting
from components.gate.gate import decide_gate
from components.grouping.encoders import fit_encoder
from components.grouping.pool import Pool
from components.grouping.router import Router
from components.model.adapters import AdapterSlot, config_of, store_adapter
from components.model.trunk import Trunk
from components.model.workbench import Workbench
from components.promotion.evidence import change_gate_evidence
from components.settings import GroupingSettings, Settings
from components.storage.objects import ObjectStore
from components.tasks.package import Package
from components.tasks.snapshot import Snapshot, load_snapshot, take_snapshot
from components.tasks.task_file import Decoding
from components.tasks.wordings import WordingChange
from components.tuning.task import tune_task

CONFIG = "c" * 64


@dataclass
class World:
    """A store, the tiny model, and the two verbs of a loop without people."""

    store: ObjectStore
    settings: Settings
    bench: Workbench
    take: Callable[..., Snapshot]

    def tune(self, snapshot: Snapshot, pool: Pool, group: str | None) -> dict[str, Any]:
        key = f"{snapshot.digest} {self.store.put_json(pool.to_manifest())} {group}"
        return self.store.get_json(tune_task(self.store, self.settings, self.bench, snapshot, pool, group, key))

    def evaluation(self, snapshot: Snapshot, champion: ParentVersion, **settings: Any) -> Forgetting:
        changed = self.settings.evaluation.model_copy(update=settings)
        evaluator = Evaluator(self.bench.trunk, self.bench.slot, 8)
        return Forgetting(
            self.store, self.settings.model_copy(update={"evaluation": changed}), evaluator, champion, snapshot
        )

    def learn(
        self, snapshot: Snapshot, champion: ParentVersion, group: str | None = None, **settings: Any
    ) -> ParentVersion:
        """Tune and evaluate; the candidate becomes the champion at once."""
        tuning = self.tune(snapshot, champion.pool, group)
        return self.champion(self.evaluation(snapshot, champion, **settings).run(tuning, CONFIG))

    def champion(self, digest: str) -> ParentVersion:
        record = self.store.get_json(digest)
        return ParentVersion(record["pool"], Pool.from_manifest(self.store.get_json(record["pool"])), record)

    def rows(self, champion: ParentVersion, task: str) -> list[dict[str, Any]]:
        return self.store.get_json(champion.evaluation["predictions"][task])["rows"]

    @property
    def nobody(self) -> ParentVersion:
        return ParentVersion(None, Pool.empty("assistant", self.bench.base.digest), None)


@pytest.fixture(scope="module")
def world(tiny_settings, load_tiny, quick, example_in, tmp_path_factory) -> World:
    base = load_tiny()
    slot = AdapterSlot(base, tiny_settings.adapter)
    store = ObjectStore(f"file://{tmp_path_factory.mktemp('evaluation')}")
    settings = tiny_settings.model_copy(update={"tuning": quick})

    def take(name: str, **fields: Any) -> Snapshot:
        return example_in(store, name, **fields)

    return World(store, settings, Workbench(base, slot, Trunk(base, slot)), take)


@pytest.fixture(scope="module")
def movie(world) -> ParentVersion:
    """The first version: one task in one group."""
    return world.learn(world.take("movie_sentiment"), world.nobody)


@pytest.fixture(scope="module")
def product(world, movie) -> ParentVersion:
    """The second version: another task in the same group."""
    return world.learn(world.take("product_sentiment"), movie, "g1")


@pytest.fixture(scope="module")
def grammar(world, product) -> ParentVersion:
    """The third version: a group of its own."""
    return world.learn(world.take("grammar_check"), product)


def essence(rows: list[dict[str, Any]]) -> list[tuple]:
    return [(r["row"], r["key"], r["group"], r["text"], r["score"]) for r in rows]


def test_a_first_task_is_compared_with_the_base_model(world, movie) -> None:
    record, snapshot = movie.evaluation, world.take("movie_sentiment")
    assert (record["parent"], record["chosen"], record["before"]) == (None, "live", {})
    assert "nothing to protect" in record["reason"]
    assert record["predictions"].keys() == record["champion"].keys() == record["anchors"].keys() == {"movie_sentiment"}
    before = world.store.get_json(record["champion"]["movie_sentiment"])["rows"]
    assert [r["group"] for r in before] == [None] * 8
    after = world.rows(movie, "movie_sentiment")
    assert [r["row"] for r in after] == [e.id for e in snapshot.rows("test")]
    assert record["scores"]["movie_sentiment"] == sum(r["score"] for r in after) / 8 > 0
    own = {"version": None, "predictions": record["predictions"]["movie_sentiment"]}
    assert record["anchors"]["movie_sentiment"] == own
    assert (record["carried"], record["predicted"], record["routing_share"]) == (0, 16, 1.0)
    assert [len(values) for values in record["validation"].values()] == [6, 6]
    assert movie.pool.tasks()[0].task == snapshot.digest


def test_a_second_task_of_the_group_is_chosen_on_the_curve(world, movie, product) -> None:
    record = product.evaluation
    assert [p["name"] for p in record["points"]] == ["ema", "mix-0.5", "live"]
    assert record["parent"] == movie.digest
    assert record["before"].keys() == record["points"][0]["prior"].keys() == {"movie_sentiment"}
    assert record["chosen"] in ("ema", "mix-0.5", "live")
    assert record["validation_rows"] == {"movie_sentiment": 6}
    for point in record["points"]:
        drop = record["before"]["movie_sentiment"] - point["prior"]["movie_sentiment"]
        assert point["loss"]["mean"] == pytest.approx(drop)
        assert point["loss"]["worst"] == "movie_sentiment"
    new = next(p["new"] for p in record["points"] if p["name"] == record["chosen"])
    assert new == pytest.approx(sum(record["validation"]["candidate"]) / 6)
    assert record["carried"] == 0  # the group's adapter is another one: nothing can be carried over
    assert record["anchors"]["movie_sentiment"]["version"] == movie.digest
    assert record["anchors"]["movie_sentiment"]["predictions"] == movie.evaluation["predictions"]["movie_sentiment"]
    assert record["champion"]["movie_sentiment"] == movie.evaluation["predictions"]["movie_sentiment"]


def test_what_is_carried_over_equals_what_is_computed(world, product, grammar) -> None:
    record = grammar.evaluation
    assert record["carried"] == 16
    assert record["recheck"] == {"rows": 8, "ties": []}
    fresh = world.learn(world.take("grammar_check"), replace(product, evaluation=None))
    assert fresh.evaluation["predicted"] > record["predicted"]
    assert fresh.digest == grammar.digest
    for task in ("movie_sentiment", "product_sentiment", "grammar_check"):
        assert essence(world.rows(grammar, task)) == essence(world.rows(fresh, task))
    for task in ("movie_sentiment", "product_sentiment"):  # whole tasks are carried over as the same object
        digest = product.evaluation["predictions"][task]
        assert record["predictions"][task] == digest
        assert record["proofs"][task] == {"rows": 8, "from": {digest: 8}}
    assert record["proofs"]["grammar_check"] == {"rows": 8, "from": {}}
    assert record["rerouted"] == {}


def test_the_same_evaluation_twice_is_the_same_record(world, product, grammar) -> None:
    again = world.learn(world.take("grammar_check"), product)
    assert again.evaluation == grammar.evaluation


def test_anchors_stay_with_the_version_that_first_promoted_a_task(movie, product, grammar) -> None:
    anchors = grammar.evaluation["anchors"]
    assert anchors["movie_sentiment"] == {
        "version": movie.digest,
        "predictions": movie.evaluation["predictions"]["movie_sentiment"],
    }
    assert anchors["product_sentiment"]["version"] == product.digest
    assert anchors["grammar_check"]["version"] is None


def test_under_other_numerics_everything_is_predicted_again(world, movie, product, grammar) -> None:
    other = replace(product, evaluation={**product.evaluation, "numerics_digest": "0" * 64})
    again = world.learn(world.take("grammar_check"), other)
    assert again.evaluation["predicted"] > grammar.evaluation["predicted"]
    for task in ("movie_sentiment", "product_sentiment"):
        remade, kept = (e.evaluation["anchors"][task] for e in (again, grammar))
        assert remade["version"] == kept["version"]
        rows = [world.store.get_json(a["predictions"])["rows"] for a in (remade, kept)]
        assert essence(rows[0]) == essence(rows[1])
        assert essence(world.rows(again, task)) == essence(world.rows(grammar, task))


def test_rows_that_the_new_router_sends_elsewhere_are_predicted_again(world) -> None:
    """A prior task's test rows whose instruction the new task owns word for word."""
    taken = "Is this comment a happy one?"
    first = reworded(world, world.take("movie_sentiment", version="9"), taken, test=range(3))
    champion = world.learn(first, world.nobody)
    before = world.rows(champion, "movie_sentiment")
    second = reworded(world, world.take("grammar_check", version="9"), taken, train=range(4))
    after = world.rows(world.learn(second, champion), "movie_sentiment")
    assert [r["group"] for r in after] == ["g2"] * 3 + ["g1"] * 5
    origin = champion.evaluation["predictions"]["movie_sentiment"]
    assert [r["from"] for r in after] == [None] * 3 + [origin] * 5
    assert [a["key"] == b["key"] for a, b in zip(after, before, strict=True)] == [False] * 3 + [True] * 5


def test_answers_that_were_cut_are_marked_and_counted(world, movie) -> None:
    snapshot = world.take("booking_slot", decoding=Decoding(max_new_tokens=2))
    record = world.learn(snapshot, world.nobody).evaluation
    rows = world.store.get_json(record["predictions"]["booking_slot"])["rows"]
    ends = world.bench.base.tokenizer
    for row in rows:
        tokens = ends(row["text"], add_special_tokens=False)["input_ids"]
        assert row.get("cut", False) == (len(tokens) >= 2) or row["score"] == 1
    cut = sum(row.get("cut", False) for row in rows)
    assert cut > 0
    assert f"booking_slot: {cut} of 8 answers were cut at decoding.max_new_tokens." in report(
        world.store, [record], 0.02
    )
    assert not any("cut" in row for row in world.rows(movie, "movie_sentiment") if row["score"] == 1)


def as_before(world: World, digest: str) -> str:
    """A predictions object as the release without dictionaries wrote it: words ended at white space alone."""
    value = world.store.get_json(digest)
    assert value.pop("words")
    value["rows"] = [{**row, "score": 0.0} for row in value["rows"]]
    return world.store.put_json(value)


def test_scores_that_rest_on_another_segmentation_are_made_again(world) -> None:
    japanese = "病院の売店が開きました"
    known = world.take("movie_sentiment", version="8", metric="rouge_l", choices=None)
    splits = {s: tuple(replace(row, output=japanese) for row in known.rows(s)) for s in known.splits}
    champion = world.learn(take_snapshot(Package(Path(), known.task, splits, ()), world.store), world.nobody)
    record = champion.evaluation
    present = record["predictions"]["movie_sentiment"]
    old = as_before(world, present)
    assert old != present
    stale = {
        **record,
        "predictions": {"movie_sentiment": old},
        "scores": {"movie_sentiment": 0.0},
        "anchors": {"movie_sentiment": {"version": None, "predictions": old}},
    }
    after = world.learn(world.take("grammar_check"), replace(champion, evaluation=stale)).evaluation
    assert after["champion"]["movie_sentiment"] == after["predictions"]["movie_sentiment"] == present
    assert after["anchors"]["movie_sentiment"]["predictions"] == present
    assert after["scores"]["movie_sentiment"] == record["scores"]["movie_sentiment"] > 0
    assert after["carried"] == 8


def reworded(world: World, snapshot: Snapshot, instruction: str, **which: range) -> Snapshot:
    splits = {split: list(snapshot.rows(split)) for split in ("train", "validation", "test")}
    for split, indices in which.items():
        for i in indices:
            splits[split][i] = replace(splits[split][i], instruction=instruction)
    package = Package(Path(), snapshot.task, {split: tuple(rows) for split, rows in splits.items()}, ())
    return take_snapshot(package, world.store)


def tampered(world: World, champion: ParentVersion, **changes: Any) -> ParentVersion:
    """The champion with every stored prediction of its first task altered."""
    name = "movie_sentiment"
    value = world.store.get_json(champion.evaluation["predictions"][name])
    value["rows"] = [{**row, **changes} for row in value["rows"]]
    predictions = {**champion.evaluation["predictions"], name: world.store.put_json(value)}
    return replace(champion, evaluation={**champion.evaluation, "predictions": predictions})


def test_a_carried_prediction_that_does_not_repeat_is_caught(world, product) -> None:
    snapshot = world.take("grammar_check")
    altered = tampered(world, product, text="made up", gap=1e6)
    with pytest.raises(EvaluationFailed, match=r"does not repeat: movie_sentiment \(row .*another text ") as failed:
        world.learn(snapshot, altered, recheck_rows=16)
    assert "made up" not in str(failed.value), "reasons go into the log, which outlives the rows"


def test_a_near_tie_may_differ_and_is_listed(world, product) -> None:
    altered = tampered(world, product, text="made up", gap=1e-4)
    record = world.learn(world.take("grammar_check"), altered, recheck_rows=100).evaluation
    assert record["recheck"]["rows"] == 16
    assert all(set(tie) == {"task", "row", "gaps"} for tie in record["recheck"]["ties"]), "rows are named, not shown"
    assert len(record["recheck"]["ties"]) == 8


def test_an_altered_score_is_caught_too(world, product) -> None:
    altered = tampered(world, product, score=0.5)
    with pytest.raises(EvaluationFailed, match=r"movie_sentiment .*: another score "):
        world.learn(world.take("grammar_check"), altered, recheck_rows=16)


def test_a_record_of_an_earlier_release_is_carried_over_row_by_row(world, product, grammar) -> None:
    """It has no routes and no proofs, and its rows do not say what they rest on."""
    old = {k: v for k, v in product.evaluation.items() if k not in ("routes", "proofs", "contract", "rerouted")}
    for name, digest in old["predictions"].items():
        value = world.store.get_json(digest)
        value["rows"] = [{k: v for k, v in row.items() if k != "from"} | {"carried": False} for row in value["rows"]]
        old["predictions"] = {**old["predictions"], name: world.store.put_json(value)}
    again = world.learn(world.take("grammar_check"), replace(product, evaluation=old))
    assert again.evaluation["carried"] == grammar.evaluation["carried"] == 16
    for task in ("movie_sentiment", "product_sentiment"):
        assert essence(world.rows(again, task)) == essence(world.rows(grammar, task))
        assert again.evaluation["proofs"][task] == {"rows": 8, "from": {old["predictions"][task]: 8}}


def test_two_test_rows_that_ask_the_same_are_scored_each_for_itself(world) -> None:
    snapshot = world.take("movie_sentiment", version="7")
    rows = snapshot.rows("test")
    twins = tuple(replace(rows[0], output=label) for label in ("negative", "positive", "negative"))
    splits = {"train": snapshot.rows("train"), "validation": snapshot.rows("validation"), "test": twins + rows[1:]}
    first = world.learn(take_snapshot(Package(Path(), snapshot.task, splits, ()), world.store), world.nobody)
    after = world.rows(first, "movie_sentiment")[:3]
    assert len({(r["key"], r["text"]) for r in after}) == 1
    assert [r["score"] for r in after] == [float(after[0]["text"] == t.output) for t in twins]
    # The same through the shortcut that leaves misses undecoded: the champion on a task that is new to it.
    again = take_snapshot(Package(Path(), snapshot.task.model_copy(update={"version": "8"}), splits, ()), world.store)
    record = world.learn(again, first, "g1").evaluation
    before = world.store.get_json(record["champion"]["movie_sentiment@8"])["rows"][:3]
    assert [r["score"] for r in before] == [r["score"] for r in after]


def test_an_adapter_without_effect_is_refused(world) -> None:
    slot, snapshot = world.bench.slot, world.take("movie_sentiment")
    slot.initialise(0)  # B = 0
    adapter = store_adapter(world.store, slot.files(slot.tensors(), world.bench.base.digest))
    tuning = {**world.tune(snapshot, world.nobody.pool, None), "points": {"live": adapter}}
    with pytest.raises(EvaluationFailed, match="does not change the model's output"):
        world.evaluation(snapshot, world.nobody).run(tuning, CONFIG)


def test_a_broken_adapter_is_refused(world) -> None:
    snapshot = world.take("movie_sentiment")
    nan = {n: torch.full_like(t, float("nan")) for n, t in world.bench.slot.tensors().items()}
    adapter = store_adapter(world.store, world.bench.slot.files(nan, world.bench.base.digest))
    tuning = {**world.tune(snapshot, world.nobody.pool, None), "points": {"live": adapter}}
    with pytest.raises(EvaluationFailed):
        world.evaluation(snapshot, world.nobody).run(tuning, CONFIG)


def test_a_champion_of_another_base_model_is_refused(world, movie) -> None:
    foreign = replace(movie, pool=replace(movie.pool, base_model="a" * 64))
    snapshot = world.take("grammar_check")
    tuning = world.tune(snapshot, movie.pool, None)
    with pytest.raises(EvaluationFailed, match="`lcia rebase` lets another model learn"):
        world.evaluation(snapshot, foreign).run(tuning, CONFIG)


def test_a_task_whose_rows_may_not_be_kept_is_measured_once(world) -> None:
    retention = world.take("movie_sentiment").task.retention.model_copy(update={"evaluation_rows": False})
    first = world.learn(world.take("movie_sentiment", retention=retention), world.nobody)
    assert first.evaluation["not_measurable"] == []
    second = world.learn(world.take("product_sentiment"), first, "g1")
    record = second.evaluation
    assert record["not_measurable"] == ["movie_sentiment"]
    assert record["predictions"].keys() == record["champion"].keys() == {"product_sentiment"}
    assert record["before"] == {}
    third = world.learn(world.take("grammar_check"), second)
    assert third.evaluation["not_measurable"] == ["movie_sentiment"]


def test_the_next_version_of_a_task_stands_beside_the_first(world, movie) -> None:
    second = world.learn(world.take("movie_sentiment", version="2", train=14, test=6), movie, "g1")
    assert [entry.name for entry in second.pool.tasks()] == ["movie_sentiment", "movie_sentiment@2"]
    record = second.evaluation
    assert {name: len(world.rows(second, name)) for name in record["predictions"]} == {
        "movie_sentiment": 8,
        "movie_sentiment@2": 6,
    }
    assert record["before"].keys() == {"movie_sentiment"}
    assert record["champion"]["movie_sentiment"] == movie.evaluation["predictions"]["movie_sentiment"]


def test_a_replaced_task_is_shown_but_not_counted_and_keeps_no_shared_instruction(world, movie) -> None:
    old, new = movie.pool.tasks()[0], world.take("movie_sentiment", version="2", train=14, test=6)
    tuning = world.tune(new, movie.pool, "g1")
    evaluation = world.evaluation(new, movie)
    evaluation.replaced = {old.name}
    second = world.champion(evaluation.run(tuning, CONFIG))
    record = second.evaluation
    assert record["before"] == {}
    assert "nothing to protect" in record["reason"]
    assert record["predictions"].keys() == {"movie_sentiment", "movie_sentiment@2"}
    assert second.pool.router["replaced"] == ["movie_sentiment"]
    assert {r.nearest_task for r in Router.of(second.pool).route_many(old.instructions)} == {"movie_sentiment@2"}
    later = world.learn(world.take("grammar_check"), second)
    assert later.pool.router["learnt"] == ["movie_sentiment", "movie_sentiment@2", "grammar_check"]


def test_a_champion_whose_router_names_no_order_is_carried_on(world, product, grammar) -> None:
    """A version of an earlier release: shared instructions go on where they went, and all is carried over."""
    state = {key: value for key, value in product.pool.router.items() if key not in ("learnt", "replaced")}
    pool = replace(product.pool, router=state)
    old = ParentVersion(world.store.put_json(pool.to_manifest()), pool, product.evaluation)
    after = world.learn(world.take("grammar_check"), old)
    assert after.evaluation["carried"] == grammar.evaluation["carried"] == 16
    assert after.pool.router == grammar.pool.router


def test_points_are_chosen_on_rows_drawn_from_the_whole_split(world, product) -> None:
    evaluation = world.evaluation(world.take("grammar_check"), product, validation_rows=3)
    rows = evaluation.snapshot.rows("validation")
    samples = []
    for seed in range(20):
        tuning = evaluation.settings.tuning.model_copy(update={"seed": seed})
        evaluation.settings = evaluation.settings.model_copy(update={"tuning": tuning})
        work = evaluation._choosing(evaluation.snapshot, product.pool.groups[0].adapter)
        samples.append([query.example.id for query in work.queries])
    assert {len(sample) for sample in samples} == {3}
    assert {row for sample in samples for row in sample} == {row.id for row in rows}


def test_curves_of_records_of_earlier_releases_show_what_they_were_chosen_by(product) -> None:
    record = {
        "before": {"a": 0.9, "b": 0.5},
        "points": [{"name": n, "new": 0.5, "prior": {"a": 0.8, "b": 0.5}} for n in ("ema", "live")],
    }
    assert curve_drop(record) == "largest"
    assert curve_points(record)[0] == ("ema", 0.5, pytest.approx(0.1))
    assert curve_drop(product.evaluation) == "average"
    for (name, new, drop), point in zip(curve_points(product.evaluation), product.evaluation["points"], strict=True):
        assert (name, new) == (point["name"], point["new"])
        assert drop == pytest.approx(point["loss"]["mean"])


def test_progress_ends_where_it_says(world, product) -> None:
    seen: dict[str, int] = {}
    totals: dict[str, set[int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        seen[stage] = seen.get(stage, 0) + done
        totals.setdefault(stage, set()).add(total)

    snapshot = world.take("grammar_check")
    tuning = world.tune(snapshot, product.pool, None)
    evaluation = world.evaluation(snapshot, product)
    evaluation.progress = progress
    evaluation.run(tuning, CONFIG)
    for stage, rows in {
        "choose, reading": 6,
        "recheck, reading": 8,  # of the two prior tasks together
        "predict grammar_check, champion, reading": 8,
        "predict grammar_check, candidate, reading": 8,
    }.items():
        assert seen[stage] == sum(totals[stage]) == rows


def test_groups_on_fewer_layers_go_on_in_a_deeper_slot_and_their_predictions_carry_over(
    tiny_settings, load_tiny, quick, example_in, tmp_path
) -> None:
    store = ObjectStore(f"file://{tmp_path}/objects")

    def world_with(top_layers) -> World:
        base, adapter = load_tiny(), tiny_settings.adapter.model_copy(update={"top_layers": top_layers})
        slot = AdapterSlot(base, adapter)
        settings = tiny_settings.model_copy(update={"tuning": quick, "adapter": adapter})
        return World(store, settings, Workbench(base, slot, Trunk(base, slot)), partial(example_in, store))

    before = world_with(1)
    movie = before.learn(before.take("movie_sentiment"), before.nobody)
    now = world_with("auto")
    grammar = now.learn(now.take("grammar_check"), movie)
    layers = [config_of(store, group.adapter)["layers_to_transform"] for group in grammar.pool.groups]
    assert layers == [[3], [0, 1, 2, 3]]
    assert grammar.pool.groups[0].adapter == movie.pool.groups[0].adapter, "untouched, so the same object"
    assert grammar.evaluation["predictions"]["movie_sentiment"] == movie.evaluation["predictions"]["movie_sentiment"]
    assert grammar.evaluation["recheck"]["rows"] > 0
    product = now.learn(now.take("product_sentiment"), grammar, "g1")
    assert config_of(store, product.pool.group("g1").adapter)["layers_to_transform"] == [0, 1, 2, 3]
    fresh = Evaluator(now.bench.trunk, now.bench.slot, 8)
    snapshot = now.take("movie_sentiment")
    queries = [fresh.query(snapshot.task, row, movie.pool.groups[0].adapter) for row in snapshot.rows("test")]
    adapters = {movie.pool.groups[0].adapter: now.bench.slot.fetch(store, movie.pool.groups[0].adapter)}
    rows = now.rows(movie, "movie_sentiment")
    assert [query.key for query in queries] == [row["key"] for row in rows]
    assert [prediction.text for prediction in fresh.predict(queries, adapters)] == [row["text"] for row in rows]


def test_rows_that_a_new_wording_takes_are_predicted_by_the_other_adapter(world, grammar) -> None:
    before = {entry.name: entry for entry in grammar.pool.tasks()}
    movie_rows = world.rows(grammar, "movie_sentiment")
    examples = load_snapshot(world.store, before["movie_sentiment"].task).rows("test")
    taken = examples[0].instruction
    change = WordingChange(before["grammar_check"].task, "grammar_check@1", 1, add=(taken,))
    predictor = Predictor(world.store, world.settings, Evaluator(world.bench.trunk, world.bench.slot, 8))

    champion = replace(grammar, pool=replace(grammar.pool, config=None))  # this world's settings are no object
    after = world.champion(Rerouting(PriorTasks(predictor, champion)).run(change, CONFIG))

    assert [group.adapter for group in after.pool.groups] == [group.adapter for group in grammar.pool.groups]
    count = sum(example.instruction == taken for example in examples)
    assert after.evaluation["rerouted"]["movie_sentiment"] == [{"from": "g1", "to": "g2", "rows": count}]
    assert after.evaluation["predicted"] >= count > 0
    for example, old, new in zip(examples, movie_rows, world.rows(after, "movie_sentiment"), strict=True):
        assert new["group"] == ("g2" if example.instruction == taken else "g1")
        if example.instruction != taken:
            assert (new["text"], new["key"]) == (old["text"], old["key"])
    same = "product_sentiment"
    if not any(taken in before[name].instructions for name in (same,)):
        assert after.evaluation["predictions"][same] == grammar.evaluation["predictions"][same]
    evidence = change_gate_evidence(world.store, world.settings, after.evaluation, attempt=1, looks={})
    assert {task.name for task in evidence.prior if task.may_differ} == set(after.evaluation["rerouted"])
    rules = {row.rule for row in decide_gate(evidence, world.settings.policy.gate).rows}
    assert {"step", "lifetime", "unchanged", "reworded"} <= rules


def test_typical_inputs_are_counted_by_the_encoder_of_the_whole_pool(world, grammar) -> None:
    """By `auto` a Japanese task alone would be counted by words; among English ones that would compare with nothing."""
    rows = [SimpleNamespace(input=f"この映画は{number}回見ても面白い。") for number in range(25)]
    snapshot = SimpleNamespace(
        task=SimpleNamespace(retention=SimpleNamespace(train_rows=30)),
        instructions=lambda: ("このレビューは肯定的ですか。",),
        rows=lambda _: rows,
    )
    evaluation = world.evaluation(snapshot, grammar)
    evaluation.settings = evaluation.settings.model_copy(update={"grouping": GroupingSettings(encoder="auto")})
    assert fit_encoder(evaluation.settings.grouping, snapshot.instructions()).kind == "tfidf"
    profile = evaluation._typical_inputs()
    assert profile is not None
    assert profile.kind == "embedding"
