"""Routing in large pools: accuracy with all written tasks in one pool; time, memory and state with hundreds of tasks.

python -m benchmarks.routing.scale
"""

import json
import random
import time
from dataclasses import replace
from itertools import islice

from benchmarks.routing.measure import Work, learn, old, report, routed, written
from components.grouping.general import general_inputs, general_requests
from components.grouping.pool import Pool
from components.grouping.router import Router
from components.settings import GroupingSettings

SIZES = (36, 300)
ASKED = 200
"""Requests that are timed, each with an input that was not read before."""


def main() -> None:
    figures: dict[str, float] = {}
    draws = random.Random(1)
    together = joined([old(draws), written("fresh", draws), written("later", draws)])
    for encoder in ("tfidf", "embedding"):
        settings = GroupingSettings(encoder=encoder, rule="per_task", max_groups=1000)
        for size in SIZES:
            work = together if size == len(together.instructions) else padded(together, size)
            pool, _ = learn(work, settings)
            print(f"\n== {encoder}, {len(pool.tasks())} tasks", flush=True)
            router = Router.of(Pool.from_manifest(pool.to_manifest()), settings)
            if work is together:
                kinds = {kind: routed(router, asked) for kind, asked in work.requests.items()}
                figures |= {f"{encoder}_{k}": v for k, v in report(work, kinds, pool.groups_by_name()).items()}
            figures |= {f"{encoder}_{size}_{k}": v for k, v in costs(router, pool, work).items()}
    print(json.dumps(figures))


def joined(works: list[Work]) -> Work:
    """All tasks and requests as one."""
    whole = works[0]
    for work in works[1:]:
        whole = Work(
            "joined",
            whole.instructions | work.instructions,
            whole.inputs | work.inputs,
            whole.descriptions | work.descriptions,
            {kind: [*asked, *work.requests[kind]] for kind, asked in whole.requests.items()},
        )
    return whole


def padded(work: Work, size: int) -> Work:
    """Further tasks made of general texts, for time and size alone."""
    texts, inputs = iter(general_requests()), general_inputs()
    extra = {f"more_{n}": list(islice(texts, 3)) for n in range(size - len(work.instructions))}
    return replace(
        work,
        instructions=work.instructions | extra,
        inputs=work.inputs
        | {name: [inputs[(7 * n + k) % len(inputs)] for k in range(20)] for n, name in enumerate(extra)},
        descriptions=work.descriptions | {name: texts_[0] for name, texts_ in extra.items()},
    )


def costs(router: Router, pool: Pool, work: Work) -> dict[str, float]:
    """CPU milliseconds of a request, kilobytes of the manifest for each task, seconds until a router is ready."""
    asked = work.requests["with_input"][:ASKED]
    router.route("Warm up.", "A first input.")
    began = time.process_time()
    for number, one in enumerate(asked):
        router.route(f"{one.instruction} ({number})", f"{one.input} {number}")
    each = (time.process_time() - began) / len(asked) * 1000
    size = len(json.dumps(pool.to_manifest())) / 1000
    bare = len(json.dumps({**pool.to_manifest(), "groups": []})) / 1000
    began = time.process_time()
    Router.of(pool)
    figures = {
        "ms": round(each, 2),
        "kB_fixed": round(bare, 1),
        "kB_task": round((size - bare) / len(pool.tasks()), 2),
        "ready_s": round(time.process_time() - began, 2),
    }
    print(f"  {figures}", flush=True)
    return figures


if __name__ == "__main__":
    main()
