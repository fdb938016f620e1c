"""A small instance of the whole product for tests: a tiny base model, three short real tasks, a home of their own."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from components.settings import load_settings
from infra import environment
from lcia.workplace import Workplace, actor

EXAMPLES = Path(__file__).parents[1] / "examples" / "tasks"
TASKS = ("movie_sentiment", "product_sentiment", "passive_voice")
ROWS = {"train": 30, "validation": 15, "test": 15}
SITE, OPS = actor("site"), actor("ops")


@dataclass(frozen=True)
class SmallLoop:
    """One state folder with its settings file and task packages."""

    home: Path
    config: Path
    packages: Path

    def open(self, *overrides: str) -> Workplace:
        """What the command line opens before each verb."""
        environment.prepare(self.home)
        return Workplace.open(self.home, load_settings(self.config, overrides, home_folder=self.home))

    def package(self, name: str) -> Path:
        """A task package, complete and correct."""
        return self.packages / name


def write_loop(folder: Path, base: Path, **sections: object) -> SmallLoop:
    """Settings and three packages below `folder`; `sections` replace whole sections of the settings."""
    settings = {
        "base_model": {"name": str(base), "device": "cpu", "threads": 1},
        "adapter": {"rank": 2, "alpha": 4, "top_layers": 1},
        "tuning": {
            "steps": 6,
            "batch_size": 2,
            "checkpoint_every": 2,
            "learning_rate": 0.02,
            "ema": {"fisher_rows": 4},
        },
        "evaluation": {"validation_rows": 6, "recheck_rows": 2},
        "quality": {"validation": {"min_rows": 10}},
        "policy": {"gate": {"enforce": False}},
        **sections,
    }
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "zenml.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    for name in TASKS:
        write_package(folder / "packages", name)
    return SmallLoop(folder / "home", config, folder / "packages")


def write_package(folder: Path, name: str) -> Path:
    """The first rows of an example task."""
    package = folder / name
    package.mkdir(parents=True)
    shutil.copy(EXAMPLES / name / "task.yaml", package)
    for split, rows in ROWS.items():
        lines = (EXAMPLES / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:rows]
        (package / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return package


def rewrite_rows(file: Path, **fields: str | None) -> None:
    """Change fields of the first row of a split; None removes the field."""
    first, *rest = file.read_text(encoding="utf-8").splitlines()
    row = {**json.loads(first), **fields}
    kept = {name: value for name, value in row.items() if value is not None}
    file.write_text("\n".join([json.dumps(kept), *rest]) + "\n", encoding="utf-8")


def subprocess_environment(loop: SmallLoop) -> dict[str, str]:
    """Environment of a real `lcia` process on this loop."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LCIA", "ZENML"))}
    return {**kept, "LCIA_HOME": str(loop.home)}
