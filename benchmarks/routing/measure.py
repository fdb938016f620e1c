"""Route the frozen requests of requests.yaml over a pool of the eight example tasks, with each encoder.

python -m benchmarks.routing.measure        # prints the tables, writes risk_coverage.png beside this file
"""

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import yaml

mpl.use("Agg")
from matplotlib import pyplot as plt

from components.grouping.calibration import Rate, RiskPoint, risk_coverage
from components.grouping.encoders import thresholds
from components.grouping.pool import GroupTask, Pool, distinct_instructions
from components.grouping.router import Route, Router, decide, extend
from components.settings import GroupingSettings

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples" / "tasks"
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="TF-IDF alone, no picture")
    quick = parser.parse_args().quick
    requests = yaml.safe_load((HERE / "requests.yaml").read_text(encoding="utf-8"))
    curves, headline = {}, {}
    for encoder in ("tfidf",) if quick else ("tfidf", "embedding"):
        settings = GroupingSettings(encoder=encoder)
        pool, held = learn(list(requests["tasks"]), settings)
        router, home = Router.of(pool, settings), pool.groups_by_name()
        print(
            f"\n== {encoder}: request threshold {thresholds(settings).request_threshold}, {len(pool.groups)} groups"
            + (f"; a person was asked about {', '.join(held)}" if held else "")
        )
        routes = {name: router.route_many(texts) for name, texts in requests["tasks"].items()}
        foreign = router.route_many(requests["unrelated"])
        curves[encoder] = report(routes, foreign, home)
        own = [route.group == home[name] for name, found in routes.items() for route in found]
        headline[f"{encoder}_right"] = round(sum(own) / len(own), 3)
        headline[f"{encoder}_unrelated_to_none"] = round(sum(r.group is None for r in foreign) / len(foreign), 3)
        for name, found in routes.items():
            for text, route in zip(requests["tasks"][name], found, strict=True):
                if route.group != home[name]:
                    near = f"{route.nearest_task} {route.similarity:.2f}"
                    print(f"  missed: {name} -> {route.group or 'none'} ({near}): {text}")
        for text, route in zip(requests["unrelated"], foreign, strict=True):
            if route.group:
                print(f"  routed: {route.nearest_task} {route.similarity:.2f}: {text}")
        more_wordings(requests, settings)
    if not quick:
        draw(curves, HERE / "risk_coverage.png")
    print(json.dumps(headline))


def more_wordings(requests: dict, settings: GroupingSettings) -> None:
    """Half of each task's requests join its instructions, the other half is routed; and the reverse."""
    for count in (3, 6, 12):
        right = wrong = total = kept_out = 0
        for first in (0, 1):
            extra = {name: texts[first::2][:count] for name, texts in requests["tasks"].items()}
            pool, _ = learn(list(requests["tasks"]), settings, extra)
            router, home = Router.of(pool, settings), pool.groups_by_name()
            for name, texts in requests["tasks"].items():
                groups = [route.group for route in router.route_many(texts[1 - first :: 2])]
                right += sum(group == home[name] for group in groups)
                wrong += sum(group not in (home[name], None) for group in groups)
                total += len(groups)
            kept_out += sum(route.group is None for route in router.route_many(requests["unrelated"]))
        print(
            f"  with {count} more wordings a task: right {Rate.of(right, total)}, wrong group {wrong}, "
            f"unrelated to none {Rate.of(kept_out, 2 * len(requests['unrelated']))}"
        )


def report(routes: dict[str, list[Route]], foreign: list[Route], home: dict[str, str]) -> list[RiskPoint]:
    """Print the tables; returns the curve over all requests, the unrelated included."""
    own = [(route, home[name]) for name, found in routes.items() for route in found]
    for name, found in routes.items():
        print(f"  {name:18} {Rate.of(sum(r.group == home[name] for r in found), len(found))}")
    print(f"  routing accuracy   {Rate.of(sum(r.group == group for r, group in own), len(own))}")
    print(f"  of them to none    {Rate.of(sum(r.group is None for r, _ in own), len(own))}")
    nearest = [route.nearest_task is not None and home[route.nearest_task] == group for route, group in own]
    print(f"  without a none     {Rate.of(sum(nearest), len(own))}")
    print(f"  unrelated to none  {Rate.of(sum(r.group is None for r in foreign), len(foreign))}")
    similarities = [route.similarity for route, _ in own] + [route.similarity for route in foreign]
    for title, curve in (
        ("own requests alone", risk_coverage(similarities[: len(own)], nearest)),
        ("own and unrelated requests", points := risk_coverage(similarities, nearest + [False] * len(foreign))),
    ):
        print(f"  risk at coverage, {title}:")
        chosen = (next((p for p in curve if p.coverage.share >= c - 1e-9), curve[-1]) for c in COVERAGES)
        for at in dict.fromkeys(chosen):
            print(f"    {at.coverage.share:.2f}  threshold {at.threshold:.2f}  risk {at.risk}")
    return points


def learn(
    names: list[str], settings: GroupingSettings, extra: dict[str, list[str]] | None = None
) -> tuple[Pool, list[str]]:
    """The pool the product would make; where it holds a task, the person joins it to the nearest group.

    `extra` adds instructions to tasks.
    """
    pool, held = Pool.empty("benchmark", "b" * 64), []
    for i, name in enumerate(names):
        lines = (EXAMPLES / name / "train.jsonl").read_text(encoding="utf-8").splitlines()
        own = [json.loads(line)["instruction"] for line in lines]
        texts = distinct_instructions([*own, *(extra or {}).get(name, [])])
        decision = decide(pool, texts, settings)
        if decision.action == "hold":
            held.append(f"{name} ({decision.similarity:.2f} to {decision.scores[0].nearest_task})")
        pool = extend(
            pool,
            GroupTask(f"{i:064x}", name, texts),
            group=None if decision.action == "open" else decision.group,
            adapter="f" * 64,
            curvature=None,
            parent=None,
            config="c" * 64,
            settings=settings,
        )
    return pool, held


def draw(curves: dict[str, list[RiskPoint]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 4.2), dpi=130)
    for (encoder, points), colour in zip(curves.items(), ("#b4532a", "#1f5f8b"), strict=True):
        coverage = [point.coverage.share for point in points]
        axes.plot(coverage, [point.risk.share for point in points], color=colour, label=encoder)
        axes.fill_between(
            coverage, [p.risk.low for p in points], [p.risk.high for p in points], color=colour, alpha=0.15, linewidth=0
        )
        limit = thresholds(GroupingSettings(encoder=encoder)).request_threshold
        at = min(points, key=lambda point: (point.threshold < limit, abs(point.threshold - limit)))
        axes.plot([at.coverage.share], [at.risk.share], "o", color=colour)
        axes.annotate(
            f"threshold {limit:.2f}",
            (at.coverage.share, at.risk.share),
            textcoords="offset points",
            xytext=(8, -12) if encoder == "embedding" else (-40, 12),
            color=colour,
            fontsize=9,
        )
    axes.set_xlabel("coverage: share of all requests that are routed to a group")
    axes.set_ylabel("risk: share of those routed wrongly")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 0.5)
    axes.grid(color="#e3e8ee")
    axes.set_title("192 requests of the tasks and 110 unrelated; bands: 95 % Wilson intervals", fontsize=9)
    axes.legend(frameon=False, loc="upper center")
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
