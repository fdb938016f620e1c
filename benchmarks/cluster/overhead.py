"""Overhead of a cluster for a task: CPU seconds on the test double of Kubernetes against the same task embedded.

    python -m benchmarks.cluster.overhead --base FOLDER

ZenML's real orchestrator; each of ten pods is an interpreter of its own. Images, scheduling and network are not in it,
nor is ZenML's server. CPU seconds, for the clock says more about what else the machine does.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "tests" / "support")]

WAITING = 3
"""Exit code of a run whose version waits for a person."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="folder of a base model")
    base = parser.parse_args().base.absolute()
    # Here, for each pod's process begins by reading this module.
    from installation import installed, zenml_serving

    with tempfile.TemporaryDirectory() as name, zenml_serving(Path(name, "zenml")) as server:
        folder = Path(name, "site")
        folder.mkdir()
        with installed(folder, server, base, forked=False) as site:
            print(json.dumps(compared(site)))


def compared(site) -> dict[str, object]:
    """The same package learnt both ways, each in a new state folder."""
    began = _used()
    code, out = site.embedded("run", str(site.package), "--as", "site", "--json")
    alone = _used(began)
    digest = _digest(code, out)
    code, out = site.lcia("stack", "up", "kubernetes")
    assert code == 0, out
    began = _used()
    code, out = site.lcia("run", str(site.package), "--as", "site", "--json")
    cluster = _used(began)
    same = _digest(code, out) == digest
    pods = len(site.cluster.pods())
    return {
        "cpu_seconds": {"embedded": round(alone[0], 1), "cluster": round(cluster[0], 1)},
        "cpu_ratio": round(cluster[0] / alone[0], 2),
        "added_cpu_seconds_per_pod": round((cluster[0] - alone[0]) / pods, 1),
        "clock_seconds": {"embedded": round(alone[1]), "cluster": round(cluster[1])},
        "pods": pods,
        "same_version": same,
    }


def _digest(code: int, out: str) -> str:
    """Of the version that a run made: the last JSON object of its output, whatever is logged after it."""
    if code not in (0, WAITING):
        sys.exit(f"lcia run ended with {code}:\n{out}")
    record, _ = json.JSONDecoder().raw_decode(out, f"\n{out}".rindex("\n{"))
    return str(record["digest"])


def _used(since: tuple[float, float] = (0.0, 0.0)) -> tuple[float, float]:
    """CPU seconds of processes that ended, and the clock, since then."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime - since[0], time.monotonic() - since[1]


if __name__ == "__main__":
    main()
