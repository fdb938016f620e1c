"""benchmarks/superni without a model: its folder, the cut, equal visits, figures; all sentences are of this file."""

import json
from pathlib import Path

import pytest

from benchmarks.superni import run
from benchmarks.superni.direct import joint_settings
from benchmarks.superni.folder import ORDERS, FolderUnusable, Source, cut, read_tasks, shortest, write_package
from benchmarks.superni.methods import METHODS
from benchmarks.superni.report import events, table
from benchmarks.superni.scores import best_scores, difference
from benchmarks.superni.stream import count_visits
from components.grouping.pool import Group, GroupTask
from components.settings import load_settings
from components.storage.objects import ObjectStore
from components.tasks.package import read_package
from components.tasks.rows import Example
from components.tuning.rehearsal import batches

LAKES = ["The lake is deep", "A road is long", "The hill is steep", "Some rain is cold"]


def instances(count: int, first: int = 0) -> list[dict[str, object]]:
    return [
        {"id": f"x-{n}", "input": f"{LAKES[n % 4]} on day {n}.", "output": [f"day {n}", f"the day {n}"]}
        for n in range(first, first + count)
    ]


def write_task(folder: Path, name: str, train: int = 80, dev_first: int | None = None, **content: object) -> Path:
    """A task of SuperNI's layout; dev.json equals test.json unless `dev_first` numbers its first row."""
    task = folder / name
    task.mkdir(parents=True)
    test = instances(12, 1000)
    dev = test if dev_first is None else instances(12, dev_first)
    for split, rows in (("train", instances(train)), ("dev", dev), ("test", test)):
        value = {"Definition": ["Name the day."], "Instance License": ["CC0"], "Instances": rows, **content}
        (task / f"{split}.json").write_text(json.dumps(value), encoding="utf-8")
    return task


def source(tmp_path: Path, **options: object) -> Source:
    write_task(tmp_path, "task1_days", **options)
    return read_tasks(tmp_path, ["task1_days"])[0]


class TestFolder:
    def test_both_orders_have_the_same_fifteen_tasks(self):
        assert sorted(ORDERS["1"]) == sorted(ORDERS["2"])
        assert len(set(ORDERS["1"])) == 15
        assert ORDERS["1"] != ORDERS["2"]

    def test_lists_and_plain_texts_are_read_alike(self, tmp_path):
        one = source(tmp_path / "lists")
        row = {"input": "A road is long on day 3.", "output": "day 3"}
        other = source(tmp_path / "texts", Definition="Name the day.", Instances=[row])
        assert one.definition == other.definition == "Name the day."
        assert one.licence == "CC0"
        assert one.train[3].outputs == ("day 3", "the day 3")
        assert other.train[0].outputs == ("day 3",)

    def test_a_copy_of_the_whole_repository_will_do(self, tmp_path):
        write_task(tmp_path / "CL_Benchmark" / "SuperNI", "task1_days")
        assert read_tasks(tmp_path, ["task1_days"])[0].name == "task1_days"

    def test_what_is_missing_or_of_another_form_is_named(self, tmp_path):
        task = write_task(tmp_path, "task1_days")
        with pytest.raises(FolderUnusable, match="no folder task2_none"):
            read_tasks(tmp_path, ["task1_days", "task2_none"])
        (task / "dev.json").write_text(json.dumps({"Instances": [{"input": "x"}]}))
        with pytest.raises(FolderUnusable, match=r"dev\.json, instance 1"):
            read_tasks(tmp_path, ["task1_days"])
        (task / "train.json").write_text("{")
        with pytest.raises(FolderUnusable, match=r"train\.json can't be read"):
            read_tasks(tmp_path, ["task1_days"])


class TestValidationCut:
    def test_dev_that_is_test_is_noticed_and_never_validates(self, tmp_path):
        trap, fair = source(tmp_path / "trap"), source(tmp_path / "fair", dev_first=2000)
        assert trap.dev_is_test
        assert not fair.dev_is_test
        assert "dev.json equals test.json" in cut(trap, 0).notes[0]
        assert cut(fair, 0).notes == ()
        for each in (trap, fair):
            parts = cut(each, 0)
            assert not set(parts.dev) & (set(each.test) | set(each.dev))
            assert set(parts.dev) < set(each.train)
            assert not set(parts.dev) & set(parts.train)
            assert len(parts.dev) + len(parts.train) == len(each.train)

    def test_it_takes_a_tenth_and_at_least_thirty(self, tmp_path):
        assert len(cut(source(tmp_path / "small"), 0).dev) == 30
        assert len(cut(source(tmp_path / "large", train=500), 0).dev) == 50
        with pytest.raises(FolderUnusable, match="50 different training rows, expected at least 60"):
            cut(source(tmp_path / "tiny", train=50), 0)

    def test_the_seed_decides_it(self, tmp_path):
        whole = source(tmp_path)
        assert cut(whole, 1, rows=20) == cut(whole, 1, rows=20)
        assert cut(whole, 1).dev != cut(whole, 2).dev

    def test_a_limit_on_rows_changes_no_validation_row(self, tmp_path):
        whole = source(tmp_path)
        reduced = cut(whole, 0, rows=20, test_rows=5)
        assert (len(reduced.train), len(reduced.test)) == (20, 5)
        assert reduced.dev == cut(whole, 0).dev

    def test_rows_that_leak_or_that_no_package_may_have_are_left_out(self, tmp_path):
        rows = instances(80)
        rows += [instances(1, 1000)[0], instances(1, 5)[0]]  # a test row, and a training row again
        rows += [{"input": "Rain.", "output": [" "]}, {"input": "Ra\u0096in.", "output": ["x"]}]
        task = write_task(tmp_path, "task1_days")
        (task / "train.json").write_text(json.dumps({"Definition": "Name the day.", "Instances": rows}))
        parts = cut(read_tasks(tmp_path, ["task1_days"])[0], 0)
        assert len(parts.train) + len(parts.dev) == 80
        assert "4 train and 0 test rows" in parts.notes[1]

    def test_the_shortest_keep_the_order(self, tmp_path):
        long = [{"input": f"{'word ' * 30}{n}", "output": "x"} for n in range(80)]
        write_task(tmp_path, "a")
        write_task(tmp_path, "b", Instances=long)
        write_task(tmp_path, "c")
        assert [s.name for s in shortest(read_tasks(tmp_path, ["c", "b", "a"]), 2)] == ["c", "a"]


class TestSuperniPackage:
    def test_the_product_reads_it_and_sets_the_answer_limit(self, tmp_path):
        parts = cut(source(tmp_path), 0)
        package = read_package(write_package(parts, tmp_path / "packages", 0.1))
        assert package.set_aside == ()
        assert "max_new_tokens" not in (tmp_path / "packages" / "task1_days" / "task.yaml").read_text(encoding="utf-8")
        assert package.task.metric == "rouge_l"
        assert package.task.retention.train_rows == 5  # of 50
        assert package.task.licence == "CC0"
        assert package.splits["test"][0] == Example("Name the day.", "The lake is deep on day 1000.", "day 1000")
        assert [len(package.splits[s]) for s in ("train", "validation", "test")] == [50, 30, 12]

    def test_a_row_is_found_again_by_its_input(self, tmp_path):
        rows = [{"input": f"Day {n}.\r\n  It rained. ", "output": f"day {n}"} for n in range(80)]
        task = write_task(tmp_path, "task1_days", Instances=rows)
        test = [{"input": f"Night {n}.\r\n  It rained. ", "output": [f"night {n}", "dark"]} for n in range(12)]
        (task / "test.json").write_text(json.dumps({"Instances": test}), encoding="utf-8")
        parts = cut(read_tasks(tmp_path, ["task1_days"])[0], 0)
        package = read_package(write_package(parts, tmp_path / "packages", 0))
        assert best_scores(["dark"] * 12, package.splits["test"], parts.references) == [1.0] * 12

    def test_an_owner_may_allow_no_row(self, tmp_path):
        package = read_package(write_package(cut(source(tmp_path), 0), tmp_path / "packages", 0))
        assert package.task.retention.train_rows == 0


def group(*kept: bool) -> Group:
    entries = tuple(
        GroupTask(f"{n:064x}", f"t{n}", ("Do it.",), f"{n + 100:064x}" if rows else None) for n, rows in enumerate(kept)
    )
    return Group("g1", "a" * 64, None, entries)


class TestEqualVisits:
    def visits(self, tmp_path, earlier, rehearsed=0, recalled=0, *overrides):
        settings = load_settings(
            None, ["tuning.batch_size=4", "tuning.pseudo_rehearsal.tasks=without_rows", *overrides], {}, tmp_path
        )
        record = {"rows": 40, "rehearsed_rows": rehearsed, "recalled_rows": recalled, "losses": [1.0] * 8}
        return count_visits(ObjectStore(tmp_path.as_uri()), settings, record, earlier)

    def test_a_new_group_reads_its_own_rows_only(self, tmp_path):
        visits = self.visits(tmp_path, None)
        assert (visits.new, visits.old) == (8 * 4, 0)

    def test_rehearsed_and_recalled_rows_count(self, tmp_path):
        share = "tuning.rehearsal.share=0.2", "tuning.pseudo_rehearsal.share=0.2"
        assert self.visits(tmp_path, group(True, True), 10, 0, *share).old == 8  # a fifth of 40
        both = self.visits(tmp_path, group(True, False), 5, 5, *share)  # a tenth, and a fifth for want of rows
        assert (both.new, both.old, both.total) == (32, 13, 45)

    def test_rehearsal_that_is_off_reads_nothing(self, tmp_path):
        off = "tuning.rehearsal.share=0", "tuning.pseudo_rehearsal.share=0"
        assert self.visits(tmp_path, group(True), 0, 0, *off).old == 0

    def test_joint_training_reads_as_many(self, tmp_path):
        settings = load_settings(None, [], {}, tmp_path)
        own = joint_settings(settings, 1235)
        plan = batches(600, [], own.steps, own.batch_size, own.seed)
        assert 1235 - own.batch_size < sum(map(len, plan)) <= 1235
        assert own.max_rows is None


class TestSuperniFigures:
    def test_the_best_reference_counts(self):
        rows = [Example("Name the day.", "Rain on day 7.", "day 7")]
        assert best_scores(["the day 7"], rows, {"Rain on day 7.": ("day 7", "the day 7")}) == [1.0]
        assert best_scores([None], rows, {"Rain on day 7.": ("day 7",)}) == [0.0]

    def test_a_difference_weighs_each_task_alike(self):
        gain = difference(["a", "b"], [[0.0, 0.0], [1.0]], [[1.0, 0.5], [0.75]])
        assert gain.value == pytest.approx((0.75 - 0.25) / 2)
        assert gain.low <= gain.value <= gain.high
        same = difference(["a", "b"], [[0.2, 0.4], [1.0]], [[0.2, 0.4], [1.0]])
        assert (same.low, same.value, same.high) == (0, 0, 0)

    def test_the_table_has_each_method_beside_the_published_ones(self):
        plain, per_task = (
            line("plain", [[[1.0, 0.0]], [[0.0, 0.0], [1.0]]]),
            line("per_task", [[[1.0]], [[1.0], [1.0]]]),
        )
        per_task["scores"] = [[[1.0, 1.0]], [[1.0, 1.0], [1.0]]]
        text = table([plain, per_task])
        row = next(each for each in text.splitlines() if each.startswith("| plain"))
        assert "| 50.0 [" in row  # AP
        assert "| -50.0 [" in row  # BWT, and AP less per_task
        assert "2 of 3" in row
        assert "47.84" in text
        assert "26.37" in text

    def test_a_task_that_was_not_learnt_is_named(self):
        facts = [{"task": "c", "state": "refused", "reason": "too long", "answers": [], "set_aside": {"train: x": 2}}]
        assert events({**line("plain", []), "facts": facts}) == [
            "plain, c: 2 rows set aside (train: x)",
            "plain, c: refused, too long",
        ]


def line(method: str, scores: list[list[list[float]]]) -> dict[str, object]:
    head = {"method": method, "tasks": ["a", "b"], "scores": scores, "planned": 3, "visits": 8, "adapters": 1}
    return {**head, "cpu_seconds": 60.0, "facts": []}


class TestSuperniCommand:
    def test_an_unknown_method_and_a_missing_folder_are_refused(self, capsys):
        with pytest.raises(SystemExit):
            run.read_arguments(["--data", "x", "--methods", "magic"])
        assert "no method magic" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            run.read_arguments([])
        assert "--data is missing" in capsys.readouterr().err

    def test_a_run_is_named_by_all_that_decides_it(self, tmp_path):
        def key(method: str, *more: str) -> str:
            arguments = run.read_arguments(["--data", str(tmp_path), *more])
            return run.key_of(METHODS[method], [cut(whole, arguments.seed, arguments.rows)], arguments)

        whole = source(tmp_path)
        names = [key("plain"), key("replay_2"), key("replay_10"), key("plain", "--seed", "1")]
        names += [key("plain", "--rows", "20"), key("plain", "--set", "tuning.batch_size=2")]
        assert len(set(names)) == len(names)
        assert key("plain") == names[0]

    def test_every_method_is_settings_that_load(self, tmp_path):
        arguments = run.read_arguments(["--data", str(tmp_path), "--work", str(tmp_path)])
        for method in METHODS.values():
            load_settings(None, run.overrides_of(method, arguments), {}, tmp_path)
