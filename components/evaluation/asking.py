"""Answering one instruction by a version, under the decoding contract of the task it resembles most."""

from contextlib import nullcontext

from components.evaluation.prediction import Evaluator
from components.grouping.codebook import Route
from components.grouping.pool import Pool
from components.model.adapters import fetch_adapter
from components.model.generation import generate_greedy
from components.model.prompts import render_prompt
from components.storage.objects import ObjectStore
from components.tasks.package import Decoding, Task
from components.tasks.rows import Example
from components.tasks.snapshot import load_snapshot
from components.tuning.task import Workbench

FREE = Decoding(max_new_tokens=64)
"""Contract of requests that resemble no task."""


def answer(
    store: ObjectStore, bench: Workbench, pool: Pool | None, route: Route | None, instruction: str, text: str | None
) -> str:
    """The routed adapter's answer; the base model's own where the route is None or leads nowhere."""
    task: Task | None = None
    adapter: str | None = None
    if pool is not None and route is not None and route.group is not None:
        group = pool.group(route.group)
        adapter = group.adapter
        entry = next(e for e in group.tasks if e.name == route.nearest_task)
        task = load_snapshot(store, entry.task).task
        bench.slot.load(fetch_adapter(store, adapter))
    if task is not None and task.decoding.mode == "choose":
        evaluator = Evaluator(bench.trunk, bench.slot, 1)
        query = evaluator.query(task, Example(instruction, text, (task.choices or ("",))[0]), adapter)
        return evaluator.predict([query], {str(adapter): fetch_adapter(store, str(adapter))})[0].text or ""
    tokenizer = bench.base.tokenizer
    prompt = render_prompt(tokenizer, bench.base.settings, instruction, text)
    limit = (task.decoding if task else FREE).max_new_tokens
    with nullcontext() if adapter else bench.slot.switched_off():
        made = generate_greedy(bench.base.model, [prompt], limit, tokenizer.eos_token_id, 1)[0]
    return str(tokenizer.decode(made.tokens, skip_special_tokens=True)).strip()
