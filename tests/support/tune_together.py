"""One of the processes that tune the tiny model together, started by torchrun: what test_ranks.py looks at."""

import json
import os
import signal
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from components.model.prompts import Rendered
from components.model.ranks import Ranks
from components.model.workbench import Workbench
from components.settings import Settings, TuningSettings
from components.storage.objects import ObjectStore
from components.tuning.run import Run
from components.tuning.tuner import Parent, tune


def stopped_at(step: int, number: int) -> None:
    """Let process `number` get SIGTERM within a step, as one node of several does when it is drained."""
    whole = Run.step

    def stepping(self: Run, done: int, *rest: object) -> None:
        if done == step and self.ranks.number == number:
            os.kill(os.getpid(), signal.SIGTERM)
        whole(self, done, *rest)

    Run.step = stepping


def main(folder: Path) -> None:
    told = json.loads((folder / "told.json").read_text())
    settings = Settings.model_validate(told["settings"])
    ranks = Ranks.join("cpu")
    bench = Workbench.load(settings, ranks=ranks)
    new, kept = ([Rendered(tuple(p), tuple(a)) for p, a in told[name]] for name in ("new", "kept"))
    parent = Parent(load_file(folder / "parent.safetensors"), load_file(folder / "curvature.safetensors"))
    area = ObjectStore(f"file://{folder}/objects")
    if told.get("stop"):
        stopped_at(*told["stop"])
    for name, changes in told["runs"].items():
        tuning = TuningSettings.model_validate(changes)
        result = tune(
            bench.trunk, bench.slot, new, kept, parent, tuning, area.scratch(name), batch_rows=8,
            validation=[Rendered(tuple(p), tuple(a)) for p, a in told.get("validation", ())],
        )  # fmt: skip
        tensors = {f"{point}/{n}": t for point, each in result.points.items() for n, t in each.items()}
        tensors |= {f"curvature/{n}": t for n, t in (result.curvature or {}).items()}
        save_file(tensors, folder / f"{name}.{ranks.number}.safetensors")
        told_after = {"losses": result.losses, "old": result.old_losses, "across": result.resumed_across}
        told_after["stopping"] = result.stopping
        (folder / f"{name}.{ranks.number}.json").write_text(json.dumps(told_after))
    held = sum(getattr(p, "_local_tensor", p).nbytes for p in bench.base.model.get_decoder().layers.parameters())
    (folder / f"held.{ranks.number}.json").write_text(json.dumps(held))
    ranks.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
