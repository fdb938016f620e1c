"""Pseudo-rehearsal: earlier tasks recalled without a single kept row.

After Robins (1995), "Catastrophic forgetting, rehearsal and pseudorehearsal": the old network labels made-up
inputs, and the new one must go on agreeing with it there. Here a recalled row is an *instruction* of an
earlier task, which every version names anyway, with an *input* that the task never had: one of the new
task's, or one that the base model, which has seen no rows either, writes below the instruction. If the owner of a task
handed in unlabelled rows and lets some stay, its own questions come first. The parent
adapter answers; its distribution at each token of the answer is the target (distillation). If the new task shows
images, the input is always one of its own with its images: the base model writes texts only.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from transformers import DynamicCache

from components.model.adapters import AdapterSlot
from components.model.base import BaseModel
from components.model.generation import generate_greedy, left_padded, next_logits
from components.model.prompts import Rendered, TooLong, control_of, render_prompt
from components.settings import PseudoRehearsalSettings
from components.tasks.images import Picture
from components.tasks.rows import Unlabelled

Input: TypeAlias = tuple[str, tuple[Picture, ...]]
"""Text and images that an instruction is applied to."""
INPUT_TOKENS, TOP_K, BATCH = 40, 50, 32
"""Longest written input, in tokens; the sampler's choice per token; rows sampled together."""


@dataclass(frozen=True)
class Recollection:
    """Part of an earlier task that may be recalled: its instructions, and the limit of its answers in tokens."""

    instructions: tuple[str, ...]
    limit: int
    has_inputs: bool = True
    """False if every row was an instruction alone; it is recalled as such."""
    questions: tuple[Unlabelled, ...] = ()
    """Questions of its own that may be asked again: unlabelled rows that were kept."""


@dataclass(frozen=True)
class Recall:
    """One prompt for the parent to answer within `limit` tokens."""

    prompt: tuple[int, ...]
    limit: int


def recall_prompts(
    base: BaseModel,
    slot: AdapterSlot,
    tasks: Sequence[Recollection],
    inputs: Sequence[Input],
    settings: PseudoRehearsalSettings,
    seed: int,
) -> list[Recall]:
    """Prompts in even shares over `tasks`; prompts longer than the base model's limit are left out.

    Each task has up to `rows_per_task` of them, so that their number grows with the tasks until it reaches `rows`.
    Where even shares leave a remainder, or there are more tasks than rows, chance decides which tasks have one more.
    """
    draw = random.Random(seed)  # noqa: S311 - not cryptography
    turns = _turns(tasks, settings, draw)
    own = _own_questions(turns, draw)
    instructions = [own[i].instruction if i in own else draw.choice(task.instructions) for i, task in enumerate(turns)]
    contents: dict[int, Input] = {i: (row.input or "", row.images) for i, row in own.items()}
    contents.update((i, ("", ())) for i, task in enumerate(turns) if i not in own and not task.has_inputs)
    order = [i for i in draw.sample(range(len(turns)), len(turns)) if i not in contents]
    shows = any(images for _, images in inputs)
    count = 0 if shows else round(settings.written * len(order)) if inputs else len(order)
    with slot.switched_off():
        texts = write_inputs(base, [instructions[i] for i in order[:count]], seed)
    contents.update(zip(order, ((text, ()) for text in texts), strict=False))
    contents.update((i, draw.choice(inputs)) for i in order[count:])
    out = []
    for i, task in enumerate(turns):
        try:
            prompt = render_prompt(base.reader, base.settings, instructions[i], *contents[i])
        except TooLong:
            continue
        out.append(Recall(prompt, task.limit))
    return out


def _own_questions(turns: Sequence[Recollection], draw: random.Random) -> dict[int, Unlabelled]:
    """Questions of their own by turn, each at most once; a task's first turns have them."""
    queues = {id(task): draw.sample(task.questions, len(task.questions)) for task in turns}
    return {i: queue.pop() for i, task in enumerate(turns) if (queue := queues[id(task)])}


def _turns(tasks: Sequence[Recollection], settings: PseudoRehearsalSettings, draw: random.Random) -> list[Recollection]:
    """The task of each recalled row.

    A task of instructions alone has no more rows than instructions: a repeated one would say nothing new.
    """
    count = min(settings.rows, settings.rows_per_task * len(tasks))
    order = draw.sample(range(len(tasks)), len(tasks))
    most = [settings.rows_per_task if t.has_inputs else min(settings.rows_per_task, len(t.instructions)) for t in tasks]
    shares = Counter[int]()
    while count and any(shares[k] < most[k] for k in order):
        for k in order:
            if count and shares[k] < most[k]:
                shares[k] += 1
                count -= 1
    return [tasks[k] for k in range(len(tasks)) for _ in range(shares[k])]


def write_inputs(base: BaseModel, instructions: Sequence[str], seed: int) -> list[str]:
    """One input per instruction, sampled from the model as the second line of the user's turn."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [_open_turn(base, text) for text in instructions]
    batches = [prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH)]
    return [text for batch in batches for text in _sample(base, batch, generator)]


def parents_answers(base: BaseModel, slot: AdapterSlot, recalls: Sequence[Recall], batch_rows: int) -> list[Rendered]:
    """The recalled rows with the answers that the adapter in `slot` gives (greedy)."""
    out: dict[int, Rendered] = {}
    for limit in sorted({recall.limit for recall in recalls}):
        members = [i for i, recall in enumerate(recalls) if recall.limit == limit]
        answers = generate_greedy(
            slot.model, [recalls[i].prompt for i in members], limit, base.ends, batch_rows, sight=base.sight
        )
        for i, answer in zip(members, answers, strict=True):
            out[i] = Rendered(recalls[i].prompt, (*answer.tokens, base.ends[0]))
    return [out[i] for i in range(len(recalls))]


def _open_turn(base: BaseModel, instruction: str) -> list[int]:
    """Token ids of the prompt up to the beginning of the input."""
    whole = render_prompt(base.reader, base.settings, instruction, "a")
    other = render_prompt(base.reader, base.settings, instruction, "7")
    return list(whole[: next(i for i, (a, b) in enumerate(zip(whole, other, strict=False)) if a != b)])


@torch.no_grad()
def _sample(base: BaseModel, prompts: list[list[int]], generator: torch.Generator) -> list[str]:
    """Top-k sampling at temperature 1, up to a line break or control token."""
    tokenizer, cache = base.tokenizer, DynamicCache()
    ids, mask, positions = left_padded(prompts, base.device)
    control = control_of(base.reader).ids.union(tokenizer.all_special_ids)
    texts: list[list[int]] = [[] for _ in prompts]
    running = set(range(len(prompts)))
    for _ in range(INPUT_TOKENS):
        logits = next_logits(base.model, ids, mask, positions, cache)
        top = logits.float().cpu().topk(min(TOP_K, logits.shape[-1]), dim=-1)
        draws = top.indices.gather(1, torch.multinomial(top.values.softmax(-1), 1, generator=generator))
        for i in list(running):
            token = int(draws[i])
            has_text = tokenizer.decode(texts[i]).strip() != ""
            if token in control or (has_text and "\n" in tokenizer.decode([token])):
                running.discard(i)
            else:
                texts[i].append(token)
        if not running:
            break
        ids = draws.to(base.device)
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return [tokenizer.decode(tokens).strip() for tokens in texts]
