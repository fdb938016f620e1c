"""Several adapters per pass: batches that mix them (PEFT's `adapter_names`) against batches sorted by adapter.

    python -m benchmarks.evaluation.adapters

Real prompts, padded, read once and decoded for some steps, one thread, CPU time, the least of alternating rounds.
`one at a time` gives every row a batch of its own.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import get_peft_model
from transformers import DynamicCache

from benchmarks.evaluation.chain import EXAMPLES, GROUPS
from components.model.adapters import AdapterSlot
from components.model.base import load_base
from components.model.generation import left_padded
from components.model.prompts import render_prompt
from components.settings import AdapterSettings, BaseModelSettings
from components.tasks.package import read_package

ADAPTERS = 4


def main() -> None:
    """Print seconds and examples a second by way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path(".lcia/models"), help="folder of converted base models")
    parser.add_argument("--rows", type=int, default=8, help="rows per adapter")
    parser.add_argument("--steps", type=int, default=6, help="tokens decoded per row")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    base = load_base(BaseModelSettings(device="cpu", threads=1), given.models)
    config = AdapterSlot(base, AdapterSettings()).config
    base = load_base(base.settings, given.models)
    model = get_peft_model(base.model, config, adapter_name="a0")
    for k in range(1, ADAPTERS):
        model.add_adapter(f"a{k}", config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.02)
    model.eval()
    rows = [
        (f"a{k}", render_prompt(base.tokenizer, base.settings, row.instruction, row.input))
        for k, task in zip(range(ADAPTERS), GROUPS, strict=False)
        for row in read_package(EXAMPLES / task).splits["test"][: given.rows]
    ]
    interleaved = [row for i in range(given.rows) for row in rows[i :: given.rows]]
    by_adapter = [rows[i : i + given.rows] for i in range(0, len(rows), given.rows)]
    ways = {
        "mixed": lambda: decoded(model, [interleaved], given.steps, mixed=True),
        "sorted": lambda: decoded(model, by_adapter, given.steps, mixed=False),
        "one at a time": lambda: decoded(model, [[row] for row in rows], given.steps, mixed=False),
    }
    best = dict.fromkeys(ways, float("inf"))
    made = {}
    for _ in range(given.rounds):
        for way, run in ways.items():
            start = time.process_time()
            made[way] = run()
            best[way] = min(best[way], time.process_time() - start)
    for way, seconds in best.items():
        same = sum(made[way][row] == made["sorted"][row] for row in made["sorted"])
        print(
            f"{way:14s} {seconds:6.2f} s, {len(rows) / seconds:5.2f} examples/s, {same} of {len(rows)} rows as sorted"
        )


@torch.no_grad()
def decoded(model, batches, steps: int, *, mixed: bool) -> dict:
    """Greedy tokens of each row; a batch has one adapter, or names one for each row."""
    out = {}
    for batch in batches:
        names = [name for name, _ in batch]
        options = {"adapter_names": names} if mixed else {}
        if not mixed:
            model.set_adapter(names[0])
        ids, mask, positions = left_padded([tokens for _, tokens in batch], torch.device("cpu"))
        cache, tokens = DynamicCache(), []
        for _ in range(steps):
            logits = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                logits_to_keep=1, **options,
            ).logits  # fmt: skip
            ids = logits[:, -1].argmax(-1, keepdim=True)
            tokens.append(ids)
            mask = torch.cat([mask, mask.new_ones(len(batch), 1)], dim=1)
            positions = positions[:, -1:] + 1
        out |= dict(zip(batch, torch.cat(tokens, dim=1).tolist(), strict=True))
    return out


if __name__ == "__main__":
    main()
