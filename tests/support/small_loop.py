"""A small instance of the whole product for tests: a tiny base model, three short real tasks, homes of their own."""

import json
import os
import shutil
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from components.registry import locations
from components.settings import load_settings
from components.storage.objects import Json
from infra import environment, zenml_places
from lcia.instance import Instance, actor
from lcia.operations import decisions, status, tasks
from lcia.worker import loop as worker
from tests.support.shared import once

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
TASKS = ("movie_sentiment", "product_sentiment", "passive_voice")
TRAIN = ("booking_slot", "negate_sentence")
ROWS = {"train": 30, "validation": 15, "test": 15}
SITE, OPS = actor("site"), actor("ops")
SECTIONS: dict[str, Json] = {
    "adapter": {"rank": 2, "alpha": 4, "top_layers": 1},
    "tuning": {"steps": 6, "batch_size": 2, "checkpoint_every": 2, "learning_rate": 0.02, "ema": {"fisher_rows": 4}},
    "evaluation": {"validation_rows": 6, "recheck_rows": 2},
    "quality": {"validation": {"min_rows": 10}},
    "policy": {"gate": {"enforce": False}},
}


@dataclass(frozen=True)
class SmallLoop:
    """One state folder with its settings file and task packages."""

    home: Path
    config: Path
    packages: Path

    def enter(self) -> None:
        """Make this home the process's own, as a new process would find it."""
        before = os.environ.get("ZENML_CONFIG_PATH")
        environment.prepare(self.home)
        if "zenml" in sys.modules and before != os.environ["ZENML_CONFIG_PATH"]:
            from zenml.client import Client
            from zenml.config.global_config import GlobalConfiguration
            from zenml.stack import stack

            GlobalConfiguration._reset_instance()
            Client._reset_instance()
            stack._STACK_CACHE.clear()  # it would write to the home before

    def open(self, *overrides: str) -> Instance:
        """What the command line opens before each verb."""
        self.enter()
        return Instance.open(self.home, load_settings(self.config, overrides, home_folder=self.home))

    def package(self, name: str) -> Path:
        """A task package, complete and correct."""
        return self.packages / name

    def copy(self, folder: Path) -> "SmallLoop":
        """The same state elsewhere, to be changed freely."""
        found = self.copy_as_it_is(folder)
        told = load_settings(found.config, home_folder=found.home).registry
        before = f"{self.home.as_uri()}/mlflow-artifacts"
        locations.correct(told.tracking_uri, found.home, before, told.artifacts)
        zenml_places.correct(found.home)
        return found

    def copy_as_it_is(self, folder: Path) -> "SmallLoop":
        """The same files elsewhere: what MLflow and ZenML remember still names the files of this one."""
        shutil.copytree(self.home, folder / "home")
        shutil.copytree(self.packages, folder / "packages")
        return replace(self, home=folder / "home", packages=folder / "packages")


@dataclass(frozen=True)
class Learnt:
    """A loop that learnt the three tasks, and copies made on the way."""

    loop: SmallLoop
    pending: SmallLoop
    """The first candidate waits for people; nothing was promoted yet."""
    waiting: SmallLoop
    """The third candidate waits for people; the second version is the champion."""
    digests: list[str]
    """The champions, in order."""


def learn_all(base: Path, folder: Path) -> None:
    """Three tasks one after the other below `folder`, each promoted by another identity; see `Learnt`."""
    loop = write_loop(folder, base)
    instance = loop.open()
    digests = []
    for name in TASKS:
        learn(instance, loop.package(name))
        if not digests:
            loop.copy(folder / "pending")
        if len(digests) == len(TASKS) - 1:
            loop.copy(folder / "waiting")
        digests.append(promote(instance))
    (folder / "digests.json").write_text(json.dumps(digests), encoding="utf-8")


def learn(instance: Instance, package: Path) -> Json:
    """Submit a package, work on it; returns where it stands."""
    item = tasks.submit(instance, package, SITE)
    worker.work(instance, SITE, print, item.id)
    return standing(instance, item.id)


def promote(instance: Instance) -> str:
    """Approve the newest candidate; returns its digest."""
    number = status.status(instance)["candidates"][-1]["number"]
    answer = decisions.approve(instance, str(number), OPS, "read the evidence")
    assert answer["epoch"] is not None
    return str(answer["digest"])


def standing(instance: Instance, item: int) -> Json:
    """One queue item as `status` shows it."""
    return next(i for i in status.status(instance)["queue"]["items"] if i["id"] == item)


def write_loop(folder: Path, base: Path) -> SmallLoop:
    """Settings and three packages below `folder`."""
    settings = {"base_model": {"name": str(base), "device": "cpu", "threads": 1}, **SECTIONS}
    config = folder / "zenml.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    for name in TASKS:
        write_package(folder / "packages", name)
    return loop_in(folder)


def loop_in(folder: Path) -> SmallLoop:
    """The loop that `write_loop` put there."""
    return SmallLoop(folder / "home", folder / "zenml.yaml", folder / "packages")


def write_package(folder: Path, name: str, first: int = 0, **header: Json) -> Path:
    """Rows of an example task from `first` on, with keys of its header changed.

    The sentiment tasks choose between their labels: a random model would never write one.
    """
    package = folder / name
    package.mkdir(parents=True)
    task = yaml.safe_load((EXAMPLES / name / "task.yaml").read_text(encoding="utf-8"))
    if task.get("choices"):
        task["decoding"] = {"mode": "choose"}
    (package / "task.yaml").write_text(yaml.safe_dump({**task, **header}), encoding="utf-8")
    for split, rows in ROWS.items():
        lines = (EXAMPLES / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[first : first + rows]
        (package / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return package


def rewrite_row(file: Path, **fields: Json) -> None:
    """Change fields of the first row of a split; None removes a field."""
    first, *rest = file.read_text(encoding="utf-8").splitlines()
    row = {name: value for name, value in (json.loads(first) | fields).items() if value is not None}
    file.write_text("\n".join([json.dumps(row), *rest]) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def learnt(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """Three tasks learnt and promoted, undisturbed, for all workers; look, but change only copies."""
    folder = once(tmp_path_factory, "learnt", partial(learn_all, tiny_folder))
    loop = loop_in(folder)
    pending, waiting = (
        replace(loop, home=folder / name / "home", packages=folder / name / "packages")
        for name in ("pending", "waiting")
    )
    return Learnt(loop, pending, waiting, json.loads((folder / "digests.json").read_text(encoding="utf-8")))


def learn_fourth(learnt: Learnt, folder: Path) -> None:
    """The three tasks learnt and promoted, below `folder`, and a fourth whose version waits for people."""
    shutil.copy(learnt.loop.config, folder)
    learnt.loop.copy(folder)
    write_package(folder / "packages", "booking_slot")
    loop = loop_in(folder)
    learn(loop.open(), loop.package("booking_slot"))


@pytest.fixture
def fourth(learnt: Learnt, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    """A copy of the loop with three promoted versions and a fourth that waits for people."""
    return loop_in(once(tmp_path_factory, "fourth", partial(learn_fourth, learnt))).copy(tmp_path)


@pytest.fixture
def pending(learnt: Learnt, tmp_path: Path) -> SmallLoop:
    """A copy of the loop in which the first candidate waits for people."""
    return learnt.pending.copy(tmp_path)


@pytest.fixture
def waiting(learnt: Learnt, tmp_path: Path) -> SmallLoop:
    """A copy of the loop with two promoted versions and a third that waits for people."""
    return learnt.waiting.copy(tmp_path)


@pytest.fixture
def champion(learnt: Learnt, tmp_path: Path) -> SmallLoop:
    """A copy of the loop with three promoted versions."""
    return learnt.loop.copy(tmp_path)


def learn_train(learnt: Learnt, folder: Path) -> None:
    """Two tasks learnt and promoted, and below `folder` a train of two further ones, each with a group of its own."""
    shutil.copy(learnt.loop.config, folder)
    loop = learnt.waiting.copy(folder)
    decisions.reject(loop.open(), "3", OPS, "to begin with two")
    for name in TRAIN:
        write_package(loop.packages, name)
    write_package(loop.packages / "more", TRAIN[0], first=40, version="2")
    (folder / "before").mkdir()
    loop.copy(folder / "before")
    instance = loop.open()
    for name in TRAIN:
        tasks.submit(instance, loop.package(name), SITE)
    worker.work(instance, SITE, print)


@pytest.fixture
def made_train(learnt: Learnt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `learn_train` put everything; only to be copied."""
    return once(tmp_path_factory, "train", partial(learn_train, learnt))


@pytest.fixture
def train(made_train: Path, tmp_path: Path) -> SmallLoop:
    """A copy of the train: versions 4 and 5 wait for people."""
    return loop_in(made_train).copy(tmp_path)


@pytest.fixture
def before_train(made_train: Path, tmp_path: Path) -> SmallLoop:
    """A copy of the state before the two were learnt."""
    (tmp_path / "before").mkdir()
    state = replace(
        loop_in(made_train), home=made_train / "before" / "home", packages=made_train / "before" / "packages"
    )
    return state.copy(tmp_path / "before")


@pytest.fixture
def fresh(tiny_folder: Path, tmp_path: Path) -> SmallLoop:
    """An empty home with settings and packages."""
    return write_loop(tmp_path, tiny_folder)
