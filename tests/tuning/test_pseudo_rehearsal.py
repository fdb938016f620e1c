"""What is recalled of earlier tasks, from what, and that recalling holds the parent's answers."""

from collections import Counter

import pytest
import torch

from components.model.generation import generate_greedy
from components.model.prompts import render, render_prompt
from components.settings import PseudoRehearsalSettings, RehearsalSettings, TuningSettings
from components.tuning.pseudo_rehearsal import Recollection, parents_answers, recall_prompts, write_inputs
from components.tuning.tuner import Parent, tune

TASKS = (Recollection(("Say yes or no.", "Answer yes or no."), 4), Recollection(("Turn it round.",), 9))
INPUTS = ("The first text.", "Another one", "and a third")


def recalled(bench, written: float = 0.5, rows: int = 12, inputs=INPUTS, seed: int = 0, tasks=TASKS, each: int = 30):
    settings = PseudoRehearsalSettings(share=0.3, rows=rows, rows_per_task=each, written=written)
    shown = [(text, ()) for text in inputs]
    return recall_prompts(bench.base, bench.slot, tasks, shown, settings, seed)


def task_of(recall) -> Recollection:
    return next(task for task in TASKS if task.limit == recall.limit)


def prompts_of(bench, task: Recollection, texts) -> set[tuple[int, ...]]:
    base = bench.base
    return {render_prompt(base.tokenizer, base.settings, i, t) for i in task.instructions for t in texts}


def loud(bench) -> dict[str, torch.Tensor]:
    bench.slot.initialise(0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in bench.slot.parameters.values():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return bench.slot.tensors()


def test_tasks_have_even_shares_and_only_the_new_tasks_inputs_are_used(tiny_bench) -> None:
    recalls = recalled(tiny_bench, written=0)
    assert Counter(recall.limit for recall in recalls) == {4: 6, 9: 6}
    assert all(recall.prompt in prompts_of(tiny_bench, task_of(recall), INPUTS) for recall in recalls)


def test_recalled_rows_grow_with_the_tasks_up_to_their_limit(tiny_bench) -> None:
    assert [len(recalled(tiny_bench, written=0, each=3, tasks=TASKS * n)) for n in (1, 2, 5)] == [6, 12, 12]


def test_every_task_is_recalled_sooner_or_later_however_many_there_are(tiny_bench) -> None:
    many = [Recollection((f"Do work number {number}.",), number + 1) for number in range(20)]
    runs = [recalled(tiny_bench, written=0, rows=12, tasks=many, seed=seed) for seed in range(12)]
    assert all(len({recall.limit for recall in run}) == 12 for run in runs)
    assert {recall.limit for run in runs for recall in run} == set(range(1, 21))


def test_a_task_of_instructions_alone_is_recalled_without_inputs_and_each_instruction_once(tiny_bench) -> None:
    bare = Recollection(("Name a colour.", "Name a river."), 4, has_inputs=False)
    recalls = recalled(tiny_bench, tasks=(bare, TASKS[1]))
    assert Counter(recall.limit for recall in recalls) == {4: 2, 9: 10}
    assert {recall.prompt for recall in recalls if recall.limit == 4} == prompts_of(tiny_bench, bare, [None])


def test_the_written_share_is_the_base_models_whatever_the_adapter(tiny_bench) -> None:
    tiny_bench.slot.initialise(0)
    plain = recalled(tiny_bench, written=0.5)
    loud(tiny_bench)
    assert recalled(tiny_bench, written=0.5) == plain
    assert sum(r.prompt in prompts_of(tiny_bench, task_of(r), INPUTS) for r in plain) == 6
    without = recalled(tiny_bench, inputs=(), written=0)
    assert not any(r.prompt in prompts_of(tiny_bench, task_of(r), INPUTS) for r in without)


def test_equal_seeds_recall_alike_and_others_do_not(tiny_bench) -> None:
    assert recalled(tiny_bench, seed=3) == recalled(tiny_bench, seed=3) != recalled(tiny_bench, seed=4)


def test_nothing_known_recalls_nothing_and_long_inputs_are_left_out(tiny_bench) -> None:
    settings = PseudoRehearsalSettings(share=0.3)
    assert recall_prompts(tiny_bench.base, tiny_bench.slot, (), [(text, ()) for text in INPUTS], settings, 0) == []
    assert recalled(tiny_bench, written=0, inputs=("word " * tiny_bench.base.settings.longest,)) == []


def test_written_inputs_are_one_line_each(tiny_bench) -> None:
    texts = write_inputs(tiny_bench.base, ["Say yes or no."] * 40, 0)
    assert len(texts) == 40
    assert len(set(texts)) > 20
    assert not any("\n" in text or "<|im_end|>" in text or "<|endoftext|>" in text for text in texts)


def test_the_answers_are_the_adapters_own(tiny_bench) -> None:
    loud(tiny_bench)
    base, recalls = tiny_bench.base, recalled(tiny_bench, written=0)
    end = base.tokenizer.eos_token_id
    for recall, row in zip(recalls, parents_answers(base, tiny_bench.slot, recalls, 4), strict=True):
        (alone,) = generate_greedy(base.model, [recall.prompt], recall.limit, (end,), 1)
        assert row.prompt == recall.prompt
        assert row.answer == (*alone.tokens, end)


@pytest.mark.parametrize("source", ["pseudo", "parent"])
def test_distilled_rows_hold_the_parents_distribution(tiny_bench, take_example, source) -> None:
    """The divergence from the parent on unseen prompts of the earlier tasks is far smaller than without.

    It is between .48 and .63 of it, by which texts the random model writes.
    """
    base, slot, trunk = tiny_bench.base, tiny_bench.slot, tiny_bench.trunk
    examples = take_example("passive_voice").rows("train")
    new = [render(base.tokenizer, base.settings, e.instruction, e.input, e.output) for e in examples]
    parent = loud(tiny_bench)
    unseen = parents_answers(base, slot, recalled(tiny_bench, written=0, inputs=("Quite another text.",)), 8)
    recalls = recalled(tiny_bench, rows=24)
    kept = parents_answers(base, slot, recalls, 8) if source == "parent" else []

    def logits() -> torch.Tensor:
        with torch.no_grad():
            states = trunk.states([row.tokens for row in unseen], 8)
            return torch.cat(trunk.answer_logits(states, [len(row.prompt) for row in unseen])).log_softmax(-1)

    def divergence(share: float) -> float:
        settings = TuningSettings(
            steps=12,
            learning_rate=1e-2,
            ema={"rule": "none"},
            rehearsal=RehearsalSettings(share=share if source == "parent" else 0, targets="parent"),
            pseudo_rehearsal=PseudoRehearsalSettings(share=share if source == "pseudo" else 0),
        )
        given = recalls if source == "pseudo" and share else ()
        result = tune(trunk, slot, new, kept, Parent(parent, None), settings, None, 8, recalls=given)
        assert (result.recalled_rows, result.kept_rows) == (len(given), len(kept) if share else 0)
        slot.load(result.points["live"])
        return float(torch.nn.functional.kl_div(logits(), before, reduction="batchmean", log_target=True))

    slot.load(parent)
    before = logits()
    assert divergence(0.5) < 0.75 * divergence(0)
