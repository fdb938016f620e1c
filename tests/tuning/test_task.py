"""The step's work with a real object store: from snapshot and pool to one tuning record."""

from pathlib import Path

import pytest
import torch

from components.grouping.pool import GroupTask, Pool
from components.grouping.router import extend
from components.model.adapters import AdapterError, AdapterSlot, fetch_adapter, read_weights
from components.model.prompts import render_prompt
from components.model.trunk import Trunk
from components.model.workbench import Workbench
from components.settings import EmaSettings, TuningSettings
from components.tasks.rows import Unlabelled
from components.tasks.task_file import EVALUATED, Retention
from components.tuning import pseudo_rehearsal
from components.tuning.task import tune_task

TUNING = TuningSettings(
    steps=6,
    max_rows=10,
    learning_rate=1e-2,
    checkpoint_every=2,
    curve=(0.5,),
    ema=EmaSettings(rule="curvature", fisher_rows=3),
)


@pytest.fixture
def settings(tiny_settings):
    return tiny_settings.model_copy(update={"tuning": TUNING})


@pytest.fixture
def learn(store, settings, tiny_bench):
    """Tune a task on a pool; returns the record and the pool that has learnt it with its live weights."""

    def learn(snapshot, pool, group=None, settings=settings, bench=tiny_bench):
        digest = tune_task(store, settings, bench, snapshot, pool, group, f"key {snapshot.digest}")
        record = store.get_json(digest)
        entry = GroupTask(
            snapshot.digest, snapshot.task.name, snapshot.instructions(), record["kept_rows"],
            kept_questions=record.get("kept_questions"),
        )  # fmt: skip
        grown = extend(
            pool, entry, group=group, adapter=record["points"]["live"], curvature=record["curvature"], parent=None,
            config="c" * 64, settings=settings.grouping,
        )  # fmt: skip
        return record, grown

    return learn


@pytest.fixture
def empty(tiny_bench):
    return Pool.empty("assistant", tiny_bench.base.digest)


def test_a_new_group_and_then_a_second_task_in_it(store, learn, take_example, empty, tiny_bench) -> None:
    first, pool = learn(take_example("movie_sentiment"), empty)
    assert set(first["points"]) == {"live"}
    assert (first["rule"], first["group"], first["rehearsed_rows"], first["rows"]) == ("none", None, 0, 10)
    second, _ = learn(take_example("product_sentiment"), pool, "g1")
    assert set(second["points"]) == {"live", "ema", "mix-0.5"}
    assert (second["rule"], second["group"], second["rehearsed_rows"]) == ("curvature", "g1", 16)
    assert len(second["losses"]) == len(second["history"]["beta_median"]) == TUNING.steps
    assert second["base_model"] == tiny_bench.base.digest
    old, new = (read_weights(store.get(record["curvature"])) for record in (first, second))
    assert all((new[name] >= TUNING.ema.decay * old[name] - 1e-6).all() for name in old)
    tiny_bench.slot.load(fetch_adapter(store, second["points"]["ema"]))


@pytest.mark.parametrize(
    ("train_rows", "tasks", "seen"),
    [(30, "without_rows", (16, 0)), (0, "without_rows", (0, 8)), (30, "all", (16, 8)), (0, "all", (0, 8))],
)
def test_tasks_without_kept_rows_are_recalled_instead(learn, take_example, empty, settings, train_rows, tasks, seen):
    pseudo = settings.tuning.pseudo_rehearsal.model_copy(update={"share": 0.2, "rows": 8, "tasks": tasks})
    changed = settings.model_copy(update={"tuning": TUNING.model_copy(update={"pseudo_rehearsal": pseudo})})
    first = take_example("movie_sentiment", retention=Retention(train_rows=train_rows))
    _, pool = learn(first, empty, settings=changed)
    second, _ = learn(take_example("product_sentiment"), pool, "g1", settings=changed)
    assert (second["rehearsed_rows"], second["recalled_rows"]) == seen


@pytest.mark.parametrize("train_rows", [30, 0])
def test_replaced_tasks_are_neither_rehearsed_nor_recalled_nor_held_on_to(
    store, learn, take_example, empty, settings, tiny_bench, train_rows
):
    pseudo = settings.tuning.pseudo_rehearsal.model_copy(update={"share": 0.2, "rows": 8})
    changed = settings.model_copy(update={"tuning": TUNING.model_copy(update={"pseudo_rehearsal": pseudo})})
    retention = Retention(train_rows=train_rows)
    first, pool = learn(take_example("movie_sentiment", retention=retention), empty, settings=changed)
    new = take_example("product_sentiment")

    def tune(name: str, leave_out: tuple[str, ...]) -> dict:
        return store.get_json(tune_task(store, changed, tiny_bench, new, pool, "g1", name, leave_out=leave_out))

    held, free = tune("held", ()), tune("free", ("movie_sentiment",))
    assert held["rehearsed_rows"] + held["recalled_rows"] > 0
    assert (free["rehearsed_rows"], free["recalled_rows"]) == (0, 0)

    def held_by(record: dict) -> float:
        tensors = read_weights(store.get(record["curvature"])).values()
        return float(torch.cat([tensor.flatten() for tensor in tensors]).mean())

    assert held_by(free) == pytest.approx(held_by(first), rel=0.01)
    assert held_by(held) == pytest.approx((1 + TUNING.ema.decay) * held_by(first), rel=0.01)


def test_only_the_tasks_that_stand_are_rehearsed(store, learn, take_example, empty, settings, tiny_bench) -> None:
    _, pool = learn(take_example("movie_sentiment", retention=Retention(train_rows=5)), empty)
    _, pool = learn(take_example("product_sentiment", retention=Retention(train_rows=7)), pool, "g1")
    third = take_example("movie_sentiment", version="2")
    digest = tune_task(store, settings, tiny_bench, third, pool, "g1", "third", leave_out=("movie_sentiment",))
    assert store.get_json(digest)["rehearsed_rows"] == 7


def test_kept_rows_are_no_more_than_owner_and_settings_allow(store, learn, take_example, empty, settings) -> None:
    def kept(train_rows: int, rows_per_task: int, share: float) -> int:
        rehearsal = settings.tuning.rehearsal.model_copy(update={"rows_per_task": rows_per_task, "share": share})
        changed = settings.model_copy(update={"tuning": TUNING.model_copy(update={"rehearsal": rehearsal})})
        snapshot = take_example("movie_sentiment")
        retention = snapshot.task.retention.model_copy(update={"train_rows": train_rows})
        record, _ = learn(take_example("movie_sentiment", retention=retention), empty, settings=changed)
        return len(store.get_lines(record["kept_rows"])) if record["kept_rows"] else 0

    assert [kept(5, 30, 0.2), kept(30, 7, 0.2), kept(0, 30, 0.2), kept(5, 30, 0.0)] == [5, 7, 0, 0]


def test_unlabelled_rows_are_kept_within_what_the_owner_allows(store, learn, take_unlabelled, empty) -> None:
    def kept(train_rows: int, rows: int | list[Unlabelled] = 12) -> list[Unlabelled]:
        snapshot = take_unlabelled("movie_sentiment", rows, retention=Retention(train_rows=train_rows))
        digest = learn(snapshot, empty)[0].get("kept_questions")
        return [Unlabelled.from_row(row) for row in store.get_lines(digest)] if digest else []

    assert [len(kept(n)) for n in (0, 16, 20, 60)] == [0, 0, 4, 12]
    snapshot = take_unlabelled("movie_sentiment", 0)
    evaluated = [Unlabelled(row.instruction, row.input) for split in EVALUATED for row in snapshot.rows(split)[:3]]
    own = Unlabelled(evaluated[0].instruction, "A film like no other.")
    assert kept(60, [*evaluated, own]) == [own]


def test_kept_questions_are_recalled_and_the_new_tasks_unlabelled_inputs_lent(
    store, learn, take_unlabelled, empty, settings, tiny_bench, monkeypatch
) -> None:
    first = take_unlabelled("movie_sentiment", 12, retention=Retention(train_rows=60))
    record, pool = learn(first, empty)
    questions = {row["input"] for row in store.get_lines(record["kept_questions"])}
    second = take_unlabelled("product_sentiment", 12)
    lent = {row.input for row in (*second.rows("train"), *second.unlabelled_rows())}
    pseudo = settings.tuning.pseudo_rehearsal.model_copy(update={"rows": 200, "rows_per_task": 200, "written": 0.0})
    changed = settings.model_copy(update={"tuning": TUNING.model_copy(update={"pseudo_rehearsal": pseudo})})
    texts: list[str] = []
    monkeypatch.setattr(
        pseudo_rehearsal, "render_prompt",
        lambda *args: texts.append(args[3]) or render_prompt(*args),
    )  # fmt: skip
    tune_task(store, changed, tiny_bench, second, pool, "g1", "second")
    assert questions <= set(texts) <= questions | lent
    assert sum(text in questions for text in texts) == len(questions)
    assert set(texts) & {row.input for row in second.unlabelled_rows()}


def test_an_interrupted_call_ends_in_the_same_digest(store, settings, tiny_bench, take_example, empty) -> None:
    snapshot = take_example("movie_sentiment")
    whole = tune_task(store, settings, tiny_bench, snapshot, empty, None, "whole")
    steps = 0

    def stop(stage: str, done: int, total: int) -> None:
        nonlocal steps
        steps += stage == "tune"
        if steps == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune_task(store, settings, tiny_bench, snapshot, empty, None, "broken", stop)
    assert tune_task(store, settings, tiny_bench, snapshot, empty, None, "broken") == whole


def test_a_damaged_checkpoint_starts_from_the_beginning(store, settings, tiny_bench, take_example, empty) -> None:
    snapshot = take_example("movie_sentiment")
    whole = tune_task(store, settings, tiny_bench, snapshot, empty, None, "key")
    path = next(Path(store.scratch("key")._root).iterdir())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert tune_task(store, settings, tiny_bench, snapshot, empty, None, "key") == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [({"alpha": 32.0}, "adapter.alpha"), ({"rank": 2}, "adapter.rank"), ({"top_layers": 1}, "adapter.top_layers is 1;"),
     ({"modules": ("q_proj",)}, "adapter.modules")],
)  # fmt: skip
def test_a_parent_made_under_other_adapter_settings_is_refused(
    learn, take_example, empty, load_tiny, settings, change, words
) -> None:
    _, pool = learn(take_example("movie_sentiment"), empty)
    base = load_tiny()
    slot = AdapterSlot(base, settings.adapter.model_copy(update=change))
    bench = Workbench(base, slot, Trunk(base, slot))
    with pytest.raises(AdapterError, match=words):
        learn(take_example("product_sentiment"), pool, "g1", bench=bench)


def test_the_parent_is_where_a_reused_group_starts(store, learn, take_example, empty, settings) -> None:
    """With a vanishing learning rate everything kept beside the live weights is the parent's adapter."""
    first, pool = learn(take_example("movie_sentiment"), empty)
    slow = settings.model_copy(update={"tuning": TUNING.model_copy(update={"learning_rate": 1e-6})})
    second, _ = learn(take_example("product_sentiment"), pool, "g1", settings=slow)
    before, after = (fetch_adapter(store, r["points"]["live"]) for r in (first, second))
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-4)


def test_a_group_that_learnt_on_fewer_layers_goes_on_under_a_deeper_default(
    store, learn, take_example, empty, settings, load_tiny
) -> None:
    shallow = settings.adapter.model_copy(update={"top_layers": 1})
    base = load_tiny()
    slot = AdapterSlot(base, shallow)
    old = Workbench(base, slot, Trunk(base, slot))
    first, pool = learn(
        take_example("movie_sentiment"), empty, settings=settings.model_copy(update={"adapter": shallow}), bench=old
    )
    deeper = settings.model_copy(update={"adapter": settings.adapter.model_copy(update={"top_layers": "auto"})})
    base = load_tiny()
    slot = AdapterSlot(base, deeper.adapter)
    bench = Workbench(base, slot, Trunk(base, slot))
    bench.fit(store, [group.adapter for group in pool.groups])
    second, grown = learn(take_example("product_sentiment"), pool, "g1", settings=deeper, bench=bench)
    assert (second["rule"], second["group"]) == ("curvature", "g1")
    parent, live = slot.fetch(store, first["points"]["live"]), fetch_adapter(store, second["points"]["live"])
    moved = {name.split(".layers.")[1][0] for name, t in live.items() if not torch.equal(t, parent[name])}
    assert moved == {"0", "1", "2", "3"}, "it learnt on the new layers too"
    curvature = read_weights(store.get(second["curvature"]))
    assert {n: t.shape for n, t in curvature.items()} == {n: t.shape for n, t in live.items()}
    assert min(second["losses"][3:]) < second["losses"][0]
    third, _ = learn(take_example("movie_sentiment", train=8), grown, "g1", settings=deeper, bench=bench)
    assert third["points"].keys() == second["points"].keys()


def test_a_checkpoint_of_another_depth_is_left_aside(store, settings, tiny_bench, load_tiny, take_example, empty):
    snapshot = take_example("movie_sentiment")
    whole = tune_task(store, settings, tiny_bench, snapshot, empty, None, "deep")
    base = load_tiny()
    slot = AdapterSlot(base, settings.adapter.model_copy(update={"top_layers": 1}))
    tune_task(store, settings, Workbench(base, slot, Trunk(base, slot)), snapshot, empty, None, "key")
    assert tune_task(store, settings, tiny_bench, snapshot, empty, None, "key") == whole
