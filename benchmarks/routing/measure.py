"""Route frozen requests over pools of tasks: to the right group, a wrong one, or none.

python -m benchmarks.routing.measure               # every set and encoder; writes risk_coverage.png
python -m benchmarks.routing.measure --quick       # TF-IDF on the old requests, no picture

The last line is JSON: {"right", "wrong", "none_unrelated", "none_hard"} of the shipped encoder on the later requests.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml

mpl.use("Agg")
from matplotlib import pyplot as plt

from components.grouping.calibration import Rate, RiskPoint, risk_coverage
from components.grouping.encoders import fit_encoder
from components.grouping.pool import GroupTask, Pool, distinct_instructions
from components.grouping.route import Route
from components.grouping.router import Router, decide, extend
from components.settings import Fallback, GroupingSettings

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples" / "tasks"
SETS = ("old", "fresh", "later")
"""On `old` the constants were chosen; `fresh` was looked at once before the last of them was set; `later` after."""
JAPANESE = "ja"
"""Tasks and requests in Japanese, for the encoder that `auto` takes there, and any sentence model by its folder."""
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class Asked:
    """A request with the task it belongs to; None: to none."""

    task: str | None
    instruction: str
    input: str | None


@dataclass(frozen=True)
class Work:
    """Tasks and requests: instructions and training inputs by task, requests by kind."""

    name: str
    instructions: dict[str, list[str]]
    inputs: dict[str, list[str]]
    descriptions: dict[str, str]
    requests: dict[str, list[Asked]]
    """`with_input` and `alone` belong to tasks; `unrelated`, and `hard` with an input of a task, belong to none."""


def old(draws: random.Random) -> Work:
    """The eight example tasks; the requests on which the router's constants were chosen."""
    requests = yaml.safe_load((HERE / "requests.yaml").read_text(encoding="utf-8"))
    rows = {n: {s: _rows(n, s) for s in ("train", "test")} for n in requests["tasks"]}
    inputs = {name: [row["input"] for row in splits["test"]] for name, splits in rows.items()}
    every = [text for texts in inputs.values() for text in texts]
    pairs = [(name, text) for name, texts in requests["tasks"].items() for text in texts]
    return Work(
        "old",
        {name: sorted({row["instruction"] for row in splits["train"]}) for name, splits in rows.items()},
        {name: [row["input"] for row in splits["train"]] for name, splits in rows.items()},
        {name: yaml.safe_load((EXAMPLES / name / "task.yaml").read_text())["description"] for name in rows},
        {
            "with_input": [Asked(name, text, draws.choice(inputs[name])) for name, text in pairs],
            "alone": [Asked(name, text, None) for name, text in pairs],
            "unrelated": [Asked(None, text, None) for text in requests["unrelated"]],
            "hard": [Asked(None, text, draws.choice(every)) for text in requests["unrelated"]],
        },
    )


def written(name: str, draws: random.Random) -> Work:
    """Tasks and requests written for this benchmark: `fresh` or `later`."""
    tasks = yaml.safe_load((HERE / f"{name}_tasks.yaml").read_text(encoding="utf-8"))
    requests = yaml.safe_load((HERE / f"{name}_requests.yaml").read_text(encoding="utf-8"))
    every = [text for task in tasks.values() for text in task["test_inputs"]]
    own = requests["tasks"]
    return Work(
        name,
        {name: task["instructions"] for name, task in tasks.items()},
        {name: task["train_inputs"] for name, task in tasks.items()},
        {name: task["description"] for name, task in tasks.items()},
        {
            "with_input": [
                Asked(name, text, given)
                for name, task in tasks.items()
                for text, given in zip(own[name]["with_input"], task["test_inputs"], strict=True)
            ],
            "alone": [Asked(name, text, None) for name in tasks for text in own[name]["alone"]],
            "unrelated": [Asked(None, text, None) for text in requests["unrelated"]],
            "hard": [Asked(None, text, draws.choice(every)) for text in requests["unrelated_with_input"]],
        },
    )


def _rows(task: str, split: str) -> list[dict[str, Any]]:
    lines = (EXAMPLES / task / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def learn(
    work: Work, settings: GroupingSettings, wordings: dict[str, list[str]] | None = None
) -> tuple[Pool, list[str]]:
    """The pool the product would make, and the tasks it held; where it holds one, a person joins it to the nearest."""
    pool, held = Pool.empty("benchmark", "b" * 64), []
    for i, name in enumerate(work.instructions):
        texts = distinct_instructions(work.instructions[name])
        decision = decide(pool, texts, settings)
        if decision.action == "hold":
            held.append(f"{name} ({decision.similarity:.2f} to {decision.scores[0].nearest_task})")
        profile = fit_encoder(settings, texts).profile(work.inputs[name])
        further = (work.descriptions[name], *(wordings or {}).get(name, ()))
        entry = GroupTask(f"{i:064x}", name, texts, wordings=further, inputs=profile)
        pool = extend(
            pool, entry, group=None if decision.action == "open" else decision.group, adapter="f" * 64, curvature=None,
            parent=None, config="c" * 64, settings=settings,
        )  # fmt: skip
    return pool, held


def routed(router: Router, requests: Sequence[Asked], fallback: Fallback = "answer") -> list[Route]:
    """Routes of requests."""
    return router.route_many([one.instruction for one in requests], [one.input for one in requests], fallback)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="TF-IDF on the old requests, no picture")
    parser.add_argument("--missed", action="store_true", help="print each request that went wrong")
    parser.add_argument("--only", choices=(*SETS, JAPANESE), help="one of the sets")
    parser.add_argument("--model", help="folder of a sentence model other than the packaged one")
    arguments = parser.parse_args()
    curves, headline = {}, {}
    names = ["old"] if arguments.quick else [arguments.only] if arguments.only else list(SETS)
    for name in names:
        work = old(random.Random(1)) if name == "old" else written(name, random.Random(1))
        for encoder in ("tfidf",) if arguments.quick else ("tfidf", "embedding"):
            settings = GroupingSettings(
                encoder=encoder, **({"encoder_model": arguments.model} if arguments.model else {})
            )
            pool, held = learn(work, settings)
            router, home = Router.of(pool, settings), pool.groups_by_name()
            limits = [pool.router[key] for key in ("request_threshold", "input_threshold")]
            print(f"\n== {name}, {encoder}: {len(home)} tasks in {len(pool.groups)} groups, thresholds {limits}")
            if held:
                print(f"  a person was asked about {', '.join(held)}")
            routes = {kind: routed(router, asked) for kind, asked in work.requests.items()}
            headline[name, encoder] = report(work, routes, home)
            curves[name, encoder] = curve(work, routes, home)
            asking_back(work, router, home)
            if arguments.missed:
                print("\n".join(missed(work, routes, home)))
            if name == "old":
                more_wordings(work, settings)
    if not arguments.quick and not arguments.only:
        draw(curves, HERE / "risk_coverage.png")
    print(json.dumps(headline.get((names[-1], "embedding")) or next(iter(headline.values()))))


def report(work: Work, routes: dict[str, list[Route]], home: dict[str, str]) -> dict[str, float]:
    """Print shares with intervals; the headline: own requests half with and half without an input."""
    counts = {}
    for kind in ("with_input", "alone"):
        pairs = list(zip(work.requests[kind], routes[kind], strict=True))
        right = [route.group == home[one.task] for one, route in pairs if one.task]
        none = [route.group is None for _, route in pairs]
        wrong = [not r and not n for r, n in zip(right, none, strict=True)]
        nearest = [home[str(route.nearest_task)] == home[str(one.task)] for one, route in pairs if route.nearest_task]
        counts[kind] = (sum(right), sum(wrong), len(pairs))
        print(
            f"  {kind:12} right {_rate(right)}  wrong {_rate(wrong)}  to none {_rate(none)}  nearest {_rate(nearest)}"
        )
    kept_out = {kind: [route.group is None for route in routes[kind]] for kind in ("unrelated", "hard")}
    for kind, none in kept_out.items():
        print(f"  {kind:12} to none {_rate(none)}")
    right, wrong, total = (sum(each) for each in zip(*counts.values(), strict=True))
    print(f"  all own      right {Rate.of(right, total)}  wrong {Rate.of(wrong, total)}")
    shares = {"right": right / total, "wrong": wrong / total}
    shares |= {f"none_{kind}": sum(none) / len(none) for kind, none in kept_out.items()}
    return {key: round(share, 3) for key, share in shares.items()}


def _rate(flags: Sequence[bool]) -> Rate:
    return Rate.of(sum(flags), len(flags))


def asking_back(work: Work, router: Router, home: dict[str, str]) -> None:
    """What the fallback `ask` changes: requests it asks back about, and those answered wrongly still."""
    own = [*work.requests["with_input"], *work.requests["alone"]]
    routes = routed(router, own, "ask")
    asked = [route.unsure_between is not None for route in routes]
    offered = [
        home[str(one.task)] in {home[name] for name in route.unsure_between}
        for one, route in zip(own, routes, strict=True)
        if route.unsure_between
    ]
    wrong = [route.group not in (None, home[str(one.task)]) for one, route in zip(own, routes, strict=True)]
    print(f"  fallback ask: asks back {_rate(asked)}, offers the right task {_rate(offered)}, wrong {_rate(wrong)}")


def missed(work: Work, routes: dict[str, list[Route]], home: dict[str, str]) -> Iterator[str]:
    """A line for each request that did not go where it belongs."""
    for kind, asked in work.requests.items():
        for one, route in zip(asked, routes[kind], strict=True):
            if route.group != (home[one.task] if one.task else None):
                yield f"  {kind}: {one.task} -> {route.group and route.nearest_task}: {one.instruction} | {route.why}"


def more_wordings(work: Work, settings: GroupingSettings) -> None:
    """Half of each task's requests become wordings of the task, the other half is routed; and the reverse."""
    for count in (3, 6, 12):
        right = wrong = total = kept_out = 0
        for first in (0, 1):
            every = {
                name: [one for one in work.requests["with_input"] if one.task == name] for name in work.instructions
            }
            wordings = {name: [one.instruction for one in asked[first::2][:count]] for name, asked in every.items()}
            pool, _ = learn(work, settings, wordings)
            router, home = Router.of(pool, settings), pool.groups_by_name()
            asked = [one for each in every.values() for one in each[1 - first :: 2]]
            for one, route in zip(asked, routed(router, asked), strict=True):
                right += route.group == home[str(one.task)]
                wrong += route.group not in (home[str(one.task)], None)
                total += 1
            kept_out += sum(route.group is None for route in routed(router, work.requests["hard"]))
        print(
            f"  with {count} more wordings a task: right {Rate.of(right, total)}, wrong {Rate.of(wrong, total)}, "
            f"hard to none {Rate.of(kept_out, 2 * len(work.requests['hard']))}"
        )


def curve(work: Work, routes: dict[str, list[Route]], home: dict[str, str]) -> list[RiskPoint]:
    """Risk against coverage of requests with an input, the hard unrelated ones included; prints some points."""
    pairs = [pair for kind in ("with_input", "hard") for pair in zip(work.requests[kind], routes[kind], strict=True)]
    right = [one.task is not None and home[str(route.nearest_task)] == home[one.task] for one, route in pairs]
    points = risk_coverage([max(route.score, 0.0) for _, route in pairs], right)
    chosen = (next((p for p in points if p.coverage.share >= c - 1e-9), points[-1]) for c in COVERAGES)
    for at in dict.fromkeys(chosen):
        print(f"    coverage {at.coverage.share:.2f}  threshold {at.threshold:.2f}  risk {at.risk}")
    return points


def draw(curves: dict[tuple[str, str], list[RiskPoint]], path: Path) -> None:
    styles = {"old": ":", "fresh": "--", "later": "-"}
    figure, axes = plt.subplots(figsize=(6.4, 4.2), dpi=130)
    for (name, encoder), points in curves.items():
        colour = {"tfidf": "#b4532a"}.get(encoder, "#1f5f8b")
        coverage = [point.coverage.share for point in points]
        axes.plot(
            coverage,
            [point.risk.share for point in points],
            color=colour,
            linestyle=styles[name],
            label=f"{encoder}, {name}",
        )
        if name == "later":
            low, high = [p.risk.low for p in points], [p.risk.high for p in points]
            axes.fill_between(coverage, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("coverage: share of all requests that are routed to a group")
    axes.set_ylabel("risk: share of those routed wrongly")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 0.6)
    axes.grid(color="#e3e8ee")
    axes.set_title("requests with an input, own and unrelated; bands: 95 % Wilson intervals", fontsize=9)
    axes.legend(frameon=False, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
