"""Measures the gateway: equality, switches, overhead, kills, memory; the last line of the output is one JSON object.

python -m benchmarks.gateway                        all parts; equality and memory need a state of `lcia demo`
python -m benchmarks.gateway --only switches kills  some of them
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.gateway import before_vllm, kills, memory, overhead, switches
from benchmarks.gateway.before_vllm import Size
from benchmarks.gateway.installation import Installation, installation
from tests.support.vllm_servers import PYTHON

QUICK, FULL = Size(20, (8,), 4.0, 2), Size(200, (8, 16), 15.0, 6)
POLL_SECONDS = 2.0
"""Default of `gateway.poll_seconds`."""
ROWS = 3
"""Rows of each task whose equality is measured with `--quick`."""


NO_VLLM = f"{PYTHON} names no Python with vLLM (docs/gateway.md)"


class Skipped(Exception):
    """A part that can't be measured here; the words say why."""


class Run:
    """One run of the parts that were asked for; what they share is made when the first one needs it."""

    def __init__(self, stack: ExitStack, demo: Path | None, *, quick: bool) -> None:
        self._stack, self._demo, self.quick = stack, demo, quick
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lcia-gateway-")))

    @cached_property
    def system(self) -> Installation:
        """The installation on the tiny model."""
        place = self.folder / "installation"
        place.mkdir()
        return self._stack.enter_context(installation(place))

    @property
    def demo(self) -> Path:
        """State of the demo.

        Raises:
            Skipped: none was named.
        """
        if self._demo is None:
            raise Skipped("name a state with the models of the demo: --demo FOLDER (`lcia demo` makes one)")
        return self._demo

    def equality(self) -> Any:
        """Answers of the embedded engine next to those that are stored; `equality.py` itself asks vLLM."""
        argv = [sys.executable, "-m", "benchmarks.gateway.equality", "--engine", "embedded"]
        argv += ["--rows", str(ROWS)] if self.quick else []
        environment = {**os.environ, "LCIA_HOME": str(self.demo)}
        done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    def switches(self) -> Any:
        """Real decisions, then signed ones that come faster."""
        real, signed = (4, 6) if self.quick else (100, 100)
        first = switches.measure(self.system, real, POLL_SECONDS)
        return [first, switches.measure_signed(self.system.loop, signed, POLL_SECONDS / 10)]

    def kills(self) -> Any:
        """The kill matrix."""
        if not kills.can_run():
            raise Skipped(NO_VLLM)
        return kills.measure(self.system)

    def overhead(self) -> Any:
        """The router alone, then the gateway before vLLM."""
        out: dict[str, Any] = {f"router, {one}": overhead.router(one) for one in ("tfidf", "embedding")}
        if not kills.can_run():
            return {**out, "skipped": NO_VLLM}
        size = QUICK if self.quick else FULL
        out["tiny model"] = before_vllm.on_tiny(self.system, size)
        if self._demo is not None:
            out["demo's model"] = before_vllm.on_demo(self.demo, self.folder, size)
        return out

    def memory(self) -> Any:
        """Memory by number of groups."""
        return memory.measure(self.demo, (2, 20) if self.quick else memory.SIZES)

    @property
    def parts(self) -> Mapping[str, Callable[[], Any]]:
        """Every part by name."""
        own = (self.equality, self.switches, self.overhead, self.kills, self.memory)
        return {part.__name__: part for part in own}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="minutes instead of hours")
    parser.add_argument("--only", nargs="*", help="parts by name")
    parser.add_argument("--demo", type=Path, help="state folder with the champion of `lcia demo`; it is only read")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        run = Run(stack, arguments.demo, quick=arguments.quick)
        for name, part in run.parts.items():
            if arguments.only and name not in arguments.only:
                continue
            try:
                results[name] = part()
            except Skipped as reason:
                print(f"{name} is skipped: {reason}", flush=True)
                results[name] = {"skipped": str(reason)}
            print(name, json.dumps(results[name]), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
