"""Run methods over chains of the example tasks and add what is new to the results file.

    python -m benchmarks.method.run --set main --settings single,grouped --orders a,b --seeds 0,1,2
    python -m benchmarks.method.run --methods plain,default --quick

Everything is kept by key under --work, so an interrupted call goes on where it was, and several calls may run
side by side. --quick: three tasks of 20 steps each, not recorded, to see that nothing is broken.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.method.chain import ORDERS, Chains, Method, Outcome
from benchmarks.method.methods import METHODS, SETS

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run what was asked for, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, help="a named list of methods")
    parser.add_argument("--methods", help="names from methods.py, separated by commas")
    parser.add_argument("--settings", default="single,grouped")
    parser.add_argument("--orders", default="a,b")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--work", type=Path, default=Path(".lcia/method"))
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl")
    parser.add_argument(
        "--layers", help="adapter.top_layers other than 6; the setting is then called single_12 and so on"
    )
    parser.add_argument("--shipped", action="store_true", help="the shipped defaults instead of 60 short steps")
    parser.add_argument(
        "--split", choices=("validation", "test"), default="test", help="rows scored; choose on validation"
    )
    parser.add_argument(
        "--override", action="append", default=[], help="a setting of all runs, such as tuning.epochs=1"
    )
    parser.add_argument("--label", help="name of the setting in the tables, if `--override` changes what it means")
    parser.add_argument("--quick", action="store_true", help="order `quick`: three tasks, 20 steps, not recorded")
    arguments = parser.parse_args()
    if arguments.quick and not (arguments.methods or arguments.set):
        arguments.methods, arguments.settings = "plain,curvature both,rehearsal 5 %:0.2", "single"
    names = arguments.methods.split(",") if arguments.methods else SETS[arguments.set or "main"]
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        parser.error(f"no method {', '.join(unknown)}; there are: {', '.join(METHODS)}")
    common = (*(("tuning.steps=20",) if arguments.quick else ()), *_depth(arguments.layers), *arguments.override)
    orders = ["quick"] if arguments.quick else arguments.orders.split(",")
    found: dict[str, float] = {}
    for base in dict.fromkeys(METHODS[name].base for name in names):
        chains = Chains(arguments.work, (*common, *base), shipped=arguments.shipped, split=arguments.split)
        for seed in map(int, arguments.seeds.split(",")):
            for order in orders:
                for setting in arguments.settings.split(","):
                    for name in names:
                        if METHODS[name].base == base:
                            label = "_".join(filter(None, (setting, arguments.layers, arguments.label)))
                            results = None if arguments.quick else arguments.results
                            outcome = _run(chains, METHODS[name], setting, label, order, seed, results)
                            if outcome is not None:
                                found[f"{name}, {label} {order} {seed}"] = round(_avg_acc(outcome), 3)
    print(json.dumps({"avg_acc": found}))


def _depth(layers: str | None) -> tuple[str, ...]:
    return (f"adapter.top_layers={layers}",) if layers else ()


def _run(
    chains: Chains, method: Method, setting: str, label: str, order: str, seed: int, results: Path | None
) -> Outcome | None:
    key = {"method": method.name, "setting": label, "order": order, "seed": seed}
    if results and results.exists() and any(_is(line, key) for line in results.read_text().splitlines()):
        return None
    family, _, reference = method.name.partition(":")
    if family == "joint":
        outcome = chains.joint(method, order, seed, chains.run(METHODS[reference], setting, order, seed).visits)
    else:
        outcome = chains.run(method, setting, order, seed)
    row = {
        **key,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "split": chains.split,
        "overrides": [*chains.overrides, *method.settings],
        "tasks": list(ORDERS[order]),
        "points": outcome.points,
        "adapters": outcome.adapters,
        "cpu_seconds": round(outcome.cpu_seconds, 1),
        "visits": outcome.visits,
        "scores": [{t: "".join(str(int(s)) for s in scores) for t, scores in each.items()} for each in outcome.scores],
    }
    if results:
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
    print(f"{method.name:28s} {label:8s} {order} {seed}  {_words(outcome)}", flush=True)
    return outcome


def _avg_acc(outcome: Outcome) -> float:
    return sum(sum(s) / len(s) for s in outcome.scores[-1].values()) / len(outcome.scores[-1])


def _words(outcome: Outcome) -> str:
    final = {t: sum(s) / len(s) for t, s in outcome.scores[-1].items()}
    words = f"Avg.ACC {_avg_acc(outcome):.3f}"
    if len(outcome.scores) > 1:
        new = [sum(outcome.scores[j][t]) / len(outcome.scores[j][t]) for j, t in enumerate(outcome.order)]
        back = [final[t] - new[j] for j, t in enumerate(outcome.order[:-1])]
        words += f"  New.ACC {sum(new) / len(new):.3f}  BWT {sum(back) / len(back):+.3f}"
    return f"{words}  CPU {outcome.cpu_seconds:.0f} s"


def _is(line: str, key: dict[str, object]) -> bool:
    row = json.loads(line)
    return all(row[name] == value for name, value in key.items())


if __name__ == "__main__":
    main()
