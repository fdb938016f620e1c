"""A task that arrives at the cap: two groups become one, and the evaluation sees it like any changed adapter."""

import torch

from components.evaluation.forgetting import Forgetting, ParentVersion
from components.evaluation.prediction import Evaluator
from components.grouping.pool import Pool
from components.grouping.router import decide
from components.model.adapters import AdapterSlot, fetch_adapter, read_weights
from components.model.merging import merge_adapters
from components.model.trunk import Trunk
from components.model.workbench import Workbench
from components.promotion.evidence import gate_evidence
from components.storage.objects import ObjectStore
from components.tuning.task import tune_task

TASKS = ("movie_sentiment", "passive_voice", "grammar_check")


def test_merged_groups_are_predicted_again_and_reach_the_gate(tiny_settings, load_tiny, quick, example_in, tmp_path):
    base = load_tiny()
    slot = AdapterSlot(base, tiny_settings.adapter)
    bench, store = Workbench(base, slot, Trunk(base, slot)), ObjectStore(f"file://{tmp_path}/objects")
    grouping = tiny_settings.grouping.model_copy(update={"rule": "per_task", "max_groups": 2, "at_cap": "merge"})
    ema = quick.ema.model_copy(update={"rule": "curvature", "fisher_rows": 2})
    tuned = quick.model_copy(update={"ema": ema})
    settings = tiny_settings.model_copy(update={"tuning": tuned, "grouping": grouping})
    champion, decision, tuning = ParentVersion(None, Pool.empty("assistant", base.digest), None), None, {}
    parents = [champion]
    for name in TASKS:
        snapshot = example_in(store, name)
        decision = decide(champion.pool, snapshot.instructions(), grouping)
        tuning = store.get_json(
            tune_task(store, settings, bench, snapshot, champion.pool, None, name, merge=decision.merge)
        )
        evaluator = Evaluator(bench.trunk, bench.slot, 8)
        digest = Forgetting(store, settings, evaluator, champion, snapshot).run(tuning, "c" * 64)
        record = store.get_json(digest)
        champion = ParentVersion(record["pool"], Pool.from_manifest(store.get_json(record["pool"])), record)
        parents.append(champion)
    before = parents[-2].pool
    assert decision.merge == ("g1", "g2")
    assert {g.id: [t.name for t in g.tasks] for g in champion.pool.groups} == {
        "g1": ["movie_sentiment", "passive_voice"], "g3": ["grammar_check"],
    }  # fmt: skip

    curvatures = tuple(read_weights(store.get(group.curvature)) for group in before.groups)
    adapters = [fetch_adapter(store, group.adapter) for group in before.groups]
    expected, fisher = merge_adapters(adapters[0], adapters[1], curvatures=curvatures)
    merged = champion.pool.group("g1")
    found, found_fisher = fetch_adapter(store, merged.adapter), read_weights(store.get(merged.curvature))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(torch.equal(found_fisher[name], fisher[name]) for name in fisher)
    assert champion.pool.group("g3").adapter != merged.adapter

    assert champion.evaluation["carried"] == 0
    for name in TASKS[:2]:
        rows = store.get_json(champion.evaluation["predictions"][name])["rows"]
        old = store.get_json(parents[-2].evaluation["predictions"][name])["rows"]
        assert {row["group"] for row in rows} == {"g1"}
        assert all(new["key"] != was["key"] for new, was in zip(rows, old, strict=True))
    fine = store.put_json({"verdict": "pass"})
    evidence = gate_evidence(
        store, settings, {"validation": fine, "drift": store.put_json({"verdict": "new"})}, tuning,
        champion.evaluation, attempt=1, drift_accepted=False,
    )  # fmt: skip
    assert [(task.name, task.group, task.may_differ) for task in evidence.prior] == [
        ("movie_sentiment", "g1", True), ("passive_voice", "g1", True),
    ]  # fmt: skip
