"""Tuning and evaluation shared by two processes, as the pipeline starts them (gloo, on the CPU)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from small_loop import OPS, SITE, SmallLoop, learn, promote, standing, write_package

import steps.evaluate_forgetting
import steps.tune
from components.model.adapters import fetch_adapter
from components.model.ranks import ALONE
from components.settings import BaseModelSettings
from components.storage.objects import ObjectStore
from lcia.operations import decisions, tasks
from lcia.worker import loop as worker
from steps.order import open_learning
from steps.processes import ProcessesFailed, number_of, together

TWO = "base_model.processes=2"


@dataclass
class Recorder:
    """What the steps asked several processes for, and what they were answered."""

    asked: dict[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)

    def together(self, name: str, work: Callable[..., str], context, store: str, order: str, *rest: str) -> str:
        answer = together(name, work, context, store, order, *rest)
        self.asked[work.__module__] = ((store, order, *rest), answer)
        return answer


def alone(step, asked: tuple[str, ...]) -> str:
    """The answer of one process that starts from nothing."""
    store, order, *rest = asked
    context = open_learning(store, order)
    assert context.settings.base_model.processes == 2
    context.store.scratch(context.order.scratch).clear()
    return step.work(context, ALONE, *rest)


def test_two_processes_learn_and_evaluate(champion: SmallLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    for step in (steps.tune, steps.evaluate_forgetting):
        monkeypatch.setattr(step, "together", recorder.together)
    place = champion.open(TWO)
    item = learn(place, write_package(champion.packages, "grammar_check"))
    assert item["state"] == "candidate", item
    monkeypatch.undo()

    asked, evaluation = recorder.asked["steps.evaluate_forgetting"]
    assert alone(steps.evaluate_forgetting, asked) == evaluation, "to the last bit, however many share it"

    asked, tuning = recorder.asked["steps.tune"]
    store = ObjectStore(asked[0])
    made, again = (store.get_json(digest) for digest in (tuning, alone(steps.tune, asked)))
    assert made["losses"] == pytest.approx(again["losses"], rel=1e-4)
    for point, digest in made["points"].items():
        others = fetch_adapter(store, again["points"][point])
        assert all((t - others[n]).norm() <= 1e-3 * t.norm() for n, t in fetch_adapter(store, digest).items())
    assert promote(place)


def test_a_refusal_reaches_people_in_its_own_words(fresh: SmallLoop) -> None:
    item = learn(fresh.open(TWO, "tuning.learning_rate=1e30"), fresh.package("movie_sentiment"))
    assert item["state"] == "failed"
    assert "the loss is not finite at step 2; lower tuning.learning_rate" in item["reason"]


def test_killed_they_leave_with_their_step_and_one_process_goes_on(fresh: SmallLoop) -> None:
    place = fresh.open(TWO)
    item = tasks.submit(place, fresh.package("movie_sentiment"), SITE)
    more = ("--set", "tuning.steps=300", "--set", "base_model.processes=2")
    command = [sys.executable, "-m", "lcia.cli.main", "work", "--config", str(fresh.config), "--as", "site", *more]
    environment = {**os.environ, "LCIA_HOME": str(fresh.home)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as started:
        wait_for(lambda: list((fresh.home / "objects" / "scratch").rglob("checkpoint.safetensors")))
        started.send_signal(signal.SIGKILL)
    wait_for(lambda: not ranks_of(fresh))
    place = fresh.open("tuning.steps=300")
    assert [each.state for each in worker.work(place, SITE, print)] == ["candidate"]
    decisions.approve(place, "1", OPS, "read")
    assert standing(place, item.id)["state"] == "promoted"


def wait_for(condition: Callable[[], object], seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.2)


def ranks_of(loop: SmallLoop) -> list[str]:
    """Command lines of processes that still work for a loop."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in listed if "steps.rank" in line and str(loop.home) in line]


def test_as_many_processes_as_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert number_of(BaseModelSettings(processes="auto")) == 4
    assert number_of(BaseModelSettings(processes=3)) == 3
    assert number_of(BaseModelSettings(processes=8, device="cpu")) == 8
    with pytest.raises(ProcessesFailed, match="processes is 8, but this machine has 4 GPUs; set it to auto"):
        number_of(BaseModelSettings(processes=8))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert number_of(BaseModelSettings(processes="auto")) == 1
    assert number_of(BaseModelSettings(processes=2)) == 2
