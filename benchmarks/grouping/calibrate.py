"""Calibrate both encoders on jobs.yaml and look at what the thresholds do to the example tasks.

    python -m benchmarks.grouping.calibrate            # both encoders; `tfidf` or `embedding` names one

Tasks are placed and requests routed by the product's own functions, in pools of one group per job.
"""

import argparse
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from components.grouping.calibration import Pair, Rate, calibrate, calibrate_requests
from components.grouping.pool import GroupTask, Pool, distinct_instructions
from components.grouping.router import Router, decide, extend
from components.settings import GroupingSettings

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples" / "tasks"
SITES = (("a", "b"), ("b", "a"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", nargs="*", default=["tfidf", "embedding"])
    parser.add_argument("--quick", action="store_true", help="TF-IDF alone")
    arguments = parser.parse_args()
    headline = {}
    for encoder in ["tfidf"] if arguments.quick else arguments.encoders:
        settings = GroupingSettings(encoder=encoder, rule="per_task", request_threshold=0.0, max_groups=1000)
        work = Work.read()
        pairs = task_pairs(work, settings)
        calibration = calibrate(pairs)
        print(f"\n== {encoder}")
        for same in (True, False):
            values = np.array([pair.similarity for pair in pairs if pair.same == same])
            levels = " ".join(f"{np.quantile(values, q):.2f}" for q in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1))
            kind = "same" if same else "different"
            print(f"{kind} pairs ({len(values)}), similarity at 0 10 25 50 75 90 100 %: {levels}")
        print(f"threshold {calibration.threshold}, review band {calibration.review_band}")
        print(f"  wrong joins  {calibration.wrong_joins}\n  missed joins {calibration.missed_joins}")
        print(f"  reviewed     {calibration.for_review}")
        own, right, general, akin = requests(work, settings)
        threshold = calibrate_requests(general)
        routed = [similarity >= threshold for similarity in own]
        print(f"request threshold {threshold}")
        print(f"  general requests to none     {below(general, threshold)}")
        print(f"  requests of unlearnt jobs to none {below(akin, threshold)}")
        print(f"  own requests routed          {Rate.of(sum(routed), len(own))}")
        hits = sum(a and b for a, b in zip(routed, right, strict=True))
        print(f"  own requests, own group      {Rate.of(hits, len(own))}")
        examples(settings)
        rates = {"wrong_joins": calibration.wrong_joins.share, "missed_joins": calibration.missed_joins.share}
        headline[encoder] = {
            "threshold": calibration.threshold,
            **{name: round(rate, 4) for name, rate in rates.items()},
        }
    print(json.dumps(headline))


@dataclass(frozen=True)
class Work:
    """Jobs by two sites, families whose members are neither same nor different, and general requests."""

    jobs: dict[str, dict[str, list[str]]]
    families: list[list[str]]
    general: list[str]

    @classmethod
    def read(cls) -> "Work":
        jobs = yaml.safe_load((HERE / "jobs.yaml").read_text(encoding="utf-8"))
        return cls(**jobs, general=yaml.safe_load((HERE / "general.yaml").read_text(encoding="utf-8")))

    def akin(self, a: str, b: str) -> bool:
        return a == b or any(a in family and b in family for family in self.families)


def task_pairs(work: Work, settings: GroupingSettings) -> list[Pair]:
    """Pairs that decide each placement: a task against its own job, and against the nearest job not akin to it.

    The pool holds one site's wording of every job, the task is the other site's.
    """
    pairs = []
    for old, new in SITES:
        pool = learn({name: sites[old] for name, sites in work.jobs.items()}, settings)
        for name, sites in work.jobs.items():
            scores = decide(pool, sites[new], settings).scores
            pairs.append(Pair(next(s.similarity for s in scores if s.nearest_task == name), same=True))
            pairs.append(Pair(max(s.similarity for s in scores if not work.akin(name, s.nearest_task)), same=False))
    return pairs


def requests(work: Work, settings: GroupingSettings) -> tuple[list[float], list[bool], list[float], list[float]]:
    """Single requests: of the other site in the pool of all jobs, general ones, and in pools without their family."""
    own, right, general, akin = [], [], [], []
    for old, new in SITES:
        everything = {name: sites[old] for name, sites in work.jobs.items()}
        router = Router.of(learn(everything, settings))
        general += [route.similarity for route in router.route_many(work.general)]
        for name, sites in work.jobs.items():
            for route in router.route_many(sites[new]):
                own.append(route.similarity)
                right.append(route.nearest_task == name)
            others = {n: texts for n, texts in everything.items() if not work.akin(n, name)}
            akin += [route.similarity for route in Router.of(learn(others, settings)).route_many(sites[new])]
    return own, right, general, akin


def below(values: list[float], threshold: float) -> Rate:
    return Rate.of(sum(value < threshold for value in values), len(values))


def examples(settings: GroupingSettings) -> None:
    """The example tasks' pairs that come closest, over all pools that hold them."""
    texts = {}
    for folder in sorted(path for path in EXAMPLES.iterdir() if path.is_dir()):
        lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
        texts[folder.name] = distinct_instructions([json.loads(line)["instruction"] for line in lines])
    ranges: dict[tuple[str, str], list[float]] = {}
    for size in (1, 4, len(texts) - 1):
        for known in itertools.islice(itertools.combinations(texts, size), 0, None, 3 if size == 4 else 1):
            pool = learn({name: texts[name] for name in known}, settings)
            for new in texts.keys() - set(known):
                for score in decide(pool, texts[new], settings).scores:
                    ranges.setdefault(tuple(sorted((new, score.nearest_task))), []).append(score.similarity)
    print("example tasks, closest pairs:")
    for pair, values in sorted(ranges.items(), key=lambda item: -max(item[1]))[:5]:
        print(f"  {' / '.join(pair)}: {min(values):.2f} to {max(values):.2f}")


def learn(tasks: dict, settings: GroupingSettings) -> Pool:
    """A pool with one group per task; digests are placeholders, nothing is trained."""
    pool = Pool.empty("benchmark", "b" * 64)
    *first, last = [GroupTask(f"{i:064x}", name, distinct_instructions(t)) for i, (name, t) in enumerate(tasks.items())]
    for entry in first:
        pool = pool.with_task(
            entry, group=None, adapter="f" * 64, curvature=None, parent=None, config="c" * 64, router={}
        )
    return extend(
        pool, last, group=None, adapter="f" * 64, curvature=None, parent=None, config="c" * 64, settings=settings
    )


if __name__ == "__main__":
    main()
