"""Time of placing 1,000 new instructions against 1,000 known ones, and of routing 1,000 requests.

    python -m benchmarks.grouping.speed            # TF-IDF; `embedding` measures the sentence model as well

CPU time of this process, the least of the repetitions.
"""

import random
import sys
import time
from collections.abc import Callable

import yaml

from benchmarks.grouping.calibrate import HERE, learn
from components.grouping.encoders import fit_encoder
from components.grouping.pool import Pool
from components.grouping.router import Router, decide
from components.settings import GroupingSettings

COUNT = 1000


def main() -> None:
    texts = varied(2 * COUNT)
    known, new = texts[:COUNT], texts[COUNT:]
    print(f"words per instruction: {sum(len(text.split()) for text in texts) / len(texts):.1f}")
    tfidf = GroupingSettings(rule="per_task", max_groups=10**6)
    for tasks in (1, 50, 1000):
        share = COUNT // tasks
        line(learn({f"task{i}": known[i * share : (i + 1) * share] for i in range(tasks)}, tfidf), new, tfidf)
    if "embedding" in sys.argv[1:]:
        settings = GroupingSettings(encoder="embedding")
        encoder = fit_encoder(settings, [])
        encoder.encode(["warm up"])
        print(f"embedding, encode {COUNT} instructions: {least(lambda: encoder.encode(new), 1):.0f} ms")


def line(pool: Pool, new: list[str], settings: GroupingSettings) -> None:
    router = Router.of(pool, settings)
    print(
        f"tfidf, {len(pool.groups):4} known groups of {COUNT // len(pool.groups):4}: "
        f"place {least(lambda: decide(pool, new, settings)):6.1f} ms, "
        f"open the router {least(lambda: Router.of(pool, settings)):6.1f} ms, "
        f"route {least(lambda: router.route_many(new)):6.1f} ms"
    )


def least(call: Callable[[], object], times: int = 15) -> float:
    """CPU milliseconds of the quickest call."""
    took = []
    for _ in range(times):
        begin = time.process_time()
        call()
        took.append(time.process_time() - begin)
    return 1000 * min(took)


def varied(count: int) -> list[str]:
    """Distinct instructions: two of jobs.yaml, cut and joined, with a number of their own."""
    jobs = yaml.safe_load((HERE / "jobs.yaml").read_text(encoding="utf-8"))["jobs"]
    source = [text for sites in jobs.values() for wordings in sites.values() for text in wordings]
    draw = random.Random(0)
    texts = [f"{draw.choice(source)} {' '.join(draw.choice(source).split()[:4])} ({i})" for i in range(count)]
    draw.shuffle(texts)
    return texts


if __name__ == "__main__":
    main()
