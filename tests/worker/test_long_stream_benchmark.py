"""benchmarks/long_stream without a model: its variants of the example tasks, and its table."""

import json
from collections import defaultdict

import pytest

from benchmarks.long_stream.run import aging, packages, read_arguments, table
from benchmarks.long_stream.variants import (
    WORDINGS,
    TooManyTasks,
    Variant,
    change,
    kinds_of,
    variants,
    write_variants,
)
from components.evaluation.accuracy_matrix import AccuracyMatrix
from components.tasks.package import read_package

ROWS = {"train": 12, "validation": 6, "test": 6}


def row(output: str, instruction: str = "Is it positive or negative?") -> dict[str, str]:
    return {"instruction": instruction, "input": "The lake froze.", "output": output}


class TestVariants:
    def test_sixty_tasks_begin_with_the_examples_and_are_all_different(self):
        stream = variants(60)
        assert [each.name for each in stream[:8]] == list(WORDINGS)
        assert len({each.name for each in stream}) == 60
        assert stream == variants(70)[:60]

    def test_no_row_is_in_two_tasks(self, tmp_path):
        stream = variants(60)
        inputs = defaultdict(list)
        for variant, package in zip(stream, write_variants(stream, tmp_path, ROWS), strict=True):
            field = "output" if variant.kind == "turned" and not WORDINGS[variant.base].label else "input"
            for split in ROWS:
                lines = (package / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
                inputs[variant.base, split] += [json.loads(text)[field] for text in lines]
        for (base, split), texts in inputs.items():
            assert len(set(texts)) == len(texts), (base, split)

    @pytest.mark.parametrize("base", WORDINGS)
    def test_the_product_reads_every_kind(self, base, tmp_path):
        stream = [Variant(base, kind, n) for n, kind in enumerate(kinds_of(base))]
        for package in write_variants(stream, tmp_path, ROWS):
            task = read_package(package)
            assert [len(task.splits[split]) for split in ROWS] == list(ROWS.values())
            assert task.set_aside == ()

    def test_writing_again_writes_the_same(self, tmp_path):
        first, again = (write_variants(variants(12), tmp_path / name, ROWS) for name in "ab")
        for one, other in zip(first, again, strict=True):
            assert (one / "train.jsonl").read_bytes() == (other / "train.jsonl").read_bytes()
            assert (one / "task.yaml").read_bytes() == (other / "task.yaml").read_bytes()

    def test_more_tasks_than_rows_are_refused(self, tmp_path):
        with pytest.raises(TooManyTasks, match="600 rows"):
            write_variants(variants(30), tmp_path, {"train": 300, "validation": 10, "test": 10})


class TestVariantKinds:
    def changed(self, base, kind, output, labels, instruction="Is it positive or negative?"):
        rows, names = change(Variant(base, kind, 1), [row(output, instruction)], labels)
        return rows[0], names

    def test_labels_are_renamed_in_the_instruction_too(self):
        labels = ["negative", "positive"]
        result, names = self.changed("movie_sentiment", "renamed", "positive", labels)
        assert result["instruction"] == "Is it good or bad?"
        assert (result["output"], names) == ("good", ["bad", "good"])

    def test_a_longer_label_is_renamed_whole(self):
        labels = list(WORDINGS["request_domain"].labels)
        result, _ = self.changed("request_domain", "renamed", "credit card", labels, "Topics: car, credit card.")
        assert result["instruction"] == "Topics: vehicle, cards."

    def test_forms_of_the_answer_apply_to_labels_too(self):
        labels = ["negative", "positive"]
        assert self.changed("movie_sentiment", "capitals", "positive", labels)[1] == ["NEGATIVE", "POSITIVE"]
        assert self.changed("movie_sentiment", "brackets", "positive", labels)[0]["output"] == "[positive]"
        result, names = self.changed("movie_sentiment", "numbered", "positive", labels)
        assert result["instruction"].endswith("Give its number only: 1 negative, 2 positive.")
        assert (result["output"], names) == ("2", ["1", "2"])

    def test_a_question_is_turned_round(self):
        assert self.changed("movie_sentiment", "turned", "positive", ["negative", "positive"])[0]["output"] == "no"
        assert self.changed("grammar_check", "turned", "no", ["no", "yes"])[0]["output"] == "true"
        result, names = self.changed("passive_voice", "turned", "It was frozen.", [])
        assert (result["input"], result["output"], names) == ("It was frozen.", "The lake froze.", [])


class TestLongStream:
    def test_the_stream_has_as_many_packages_as_it_should(self, tmp_path):
        arguments = read_arguments(["--work", str(tmp_path), "--tasks", "11", "--rows", "12", "--test-rows", "6"])
        names = [package.name for package in packages(arguments)]
        assert names[:8] == list(WORDINGS)
        assert len(names) == 11

    def test_the_table_has_costs_and_ages(self):
        names = [f"t{n}" for n in range(12)]
        scores = [[[1.0, 0.0 if j - i > 5 else 1.0] for i in range(j + 1)] for j in range(12)]
        matrix = AccuracyMatrix.from_scores(names, scores)
        lines = table(matrix, [facts(name, n) for n, name in enumerate(names)], 5).splitlines()
        assert [each.split(" | ")[0] for each in lines[2:]] == ["| 1", "| 5", "| 10", "| 12"]
        last = [cell.strip() for cell in lines[-1].strip("|").split("|")]
        assert last[1] == "20"  # mean wall seconds of tasks 11 and 12, 10 and 30 more than the first ten's
        assert last[-4:] == ["0.750", "0.700", "-0.300", "1.000"]
        assert aging(matrix, 6)["first_bwt"] == 0

    def test_a_task_that_was_not_learnt_leaves_the_costs(self):
        matrix = AccuracyMatrix.from_scores(["a"], [[[1.0]]])
        other = {"task": "b", "state": "refused"}
        assert len(table(matrix, [facts("a", 0), other], 10).splitlines()) == 3


def facts(name: str, number: int) -> dict[str, object]:
    wall = {10: 10, 11: 30}.get(number, 1)
    costs = {"wall_seconds": wall, "cpu_seconds": 1, "learn_seconds": 1, "predicted": 2, "carried": 3}
    counts = {"visits_new": 4, "visits_old": 0, "groups": 1, "group_tasks": 1, "state_bytes": 2**20}
    return {"task": name, "state": "promoted", **costs, **counts}
