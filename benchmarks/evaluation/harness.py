"""Examples a second of the evaluator and of lm-evaluation-harness: same model, adapter, prompts and references.

    build/lm-eval/bin/python -m benchmarks.evaluation.harness            # README: how to make that environment
    build/lm-eval/bin/python -m benchmarks.evaluation.harness --quick

Both get the model with the adapter in it, in one process and on one thread; loading is not timed. The harness gets the
rendered prompt as text, the end-of-turn token as its stop string and as many tokens as the task allows; with
`choose` it gets the choices. CPU time, the least of `--rounds` alternating rounds.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import lm_eval
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks.evaluation.chain import EXAMPLES, FULL, Chain
from components.evaluation.metrics import METRICS
from components.evaluation.prediction import Query, choices_of
from components.tasks.package import Package, read_package
from components.tasks.snapshot import take_snapshot
from components.tasks.task_file import Decoding

TASKS = ("movie_sentiment", "request_domain", "passive_voice", "grammar_check", "assistant_intent")
BATCHES = (32, 8)


def main() -> None:
    """Compare both on some tasks; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=60, help="test rows a task")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--work", type=Path, default=Path("build/benchmark-evaluation"))
    parser.add_argument("--models", default=".lcia/models", help="folder of converted base models")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    work = arguments.work / "harness"
    work.mkdir(parents=True, exist_ok=True)
    chain = Chain(work, arguments.models, FULL)
    print(f"lm_eval {lm_eval.__version__}, torch {torch.__version__}")
    harness = {
        size: HFLM(chain.bench.base.model, tokenizer=chain.bench.base.tokenizer, batch_size=size) for size in BATCHES
    }
    totals, identical = {"lcia": 0.0, "harness": 0.0}, True
    names = arguments.tasks.split(",")[: 2 if arguments.quick else None]
    rows, rounds = (16, 1) if arguments.quick else (arguments.rows, arguments.rounds)
    for name in names:
        for mode in ("generate", "choose"):
            queries, adapter = prepare(chain, name, mode, rows)
            if not queries:
                continue
            own, other, same = contest(chain, harness, queries, adapter, rounds, f"{name}, {mode}")
            totals["lcia"] += own
            totals["harness"] += other
            identical = identical and same
    speedup = totals["harness"] / totals["lcia"]
    print(json.dumps({"speedup": round(speedup, 1), "identical": identical}))


def prepare(chain: Chain, name: str, mode: str, rows: int) -> tuple[list[Query], str]:
    """Test queries of an example task under an adapter tuned on it; none where it has no choices to choose from."""
    package = read_package(EXAMPLES / name)
    splits = {split: package.splits[split][:size] for split, size in (("train", 60), ("test", rows), ("validation", 2))}
    snapshot = take_snapshot(Package(package.path, package.task, splits, ()), chain.store)
    task = package.task
    if mode == "choose":
        if not task.choices:
            return [], ""
        task = task.model_copy(update={"decoding": Decoding(mode="choose"), "metric": "choice_accuracy"})
    adapter = chain.adapter(snapshot, None)
    return [chain.evaluator().query(task, example, adapter) for example in snapshot.rows("test")], adapter


def contest(chain, harness, queries, adapter, rounds, words) -> tuple[float, float, bool]:
    """Least CPU seconds of both, and whether the accuracy is the same; prints a line."""
    slot = chain.bench.slot
    tensors = slot.fetch(chain.store, adapter)
    best: dict[str, float] = {}
    scores: dict[str, list[float]] = {}
    for _ in range(rounds):
        for who in ("lcia", *harness):
            slot.load(tensors)
            start = time.process_time()
            if who == "lcia":
                texts = [p.text for p in chain.evaluator().predict(queries, {adapter: tensors})]
            else:
                texts = asked(chain, harness[who], queries)
            seconds = time.process_time() - start
            best[who] = min(seconds, best.get(who, seconds))
            pairs = zip(queries, texts, strict=True)
            scores[who] = [METRICS[q.task.metric](text, q.example.output) for q, text in pairs]
    fastest = min(best[size] for size in harness)
    differ = max(sum(a != b for a, b in zip(scores["lcia"], scores[size], strict=True)) for size in harness)
    mean = {who: sum(values) / len(values) for who, values in scores.items()}
    count = len(queries)
    speeds = ", ".join(f"{mean[size]:.3f}" for size in harness)
    rates = ", ".join(f"{count / best[size]:.2f} (batches of {size})" for size in harness)
    print(f"{words:28s} accuracy: lcia {mean['lcia']:.3f}, harness {speeds}; {differ} rows differ")
    print(
        f"{'':28s} examples/s: lcia {count / best['lcia']:.2f}, harness {rates}; ratio {fastest / best['lcia']:.1f}",
        flush=True,
    )
    return best["lcia"], fastest, differ == 0


def asked(chain: Chain, lm: HFLM, queries: list[Query]) -> list[str]:
    """The harness's answers."""
    tokenizer = chain.bench.base.tokenizer
    prompts = [tokenizer.decode(query.rendering.prompt) for query in queries]
    if queries[0].task.decoding.mode == "choose":
        choices = [choices_of(query.task, query.example) for query in queries]
        requests = [
            Instance("loglikelihood", {}, (prompt, choice + tokenizer.eos_token), i)
            for i, (prompt, each) in enumerate(zip(prompts, choices, strict=True))
            for choice in each
        ]
        values = iter(value for value, _ in lm.loglikelihood(requests, disable_tqdm=True))
        return [max((next(values), -k, choice) for k, choice in enumerate(each))[2] for each in choices]
    limit = queries[0].task.decoding.max_new_tokens
    arguments = {"until": [tokenizer.eos_token], "max_gen_toks": limit, "do_sample": False}
    requests = [Instance("generate_until", {}, (prompt, dict(arguments)), i) for i, prompt in enumerate(prompts)]
    for query, prompt in zip(queries, prompts, strict=True):
        if tuple(lm.tok_encode(prompt)) != query.rendering.prompt:
            raise SystemExit(f"the harness reads other tokens than lcia: {prompt!r}")
    return lm.generate_until(requests, disable_tqdm=True)


if __name__ == "__main__":
    main()
