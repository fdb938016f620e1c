"""SIGKILL while a train is decided or carried over: run again, and the end is that of a train nobody disturbed."""

from functools import partial
from pathlib import Path

import pytest
from shared import once
from small_loop import OPS, SITE, SmallLoop, loop_in
from victim import Kill, killed

from lcia.instance import Instance
from lcia.operations import audit, decisions, status
from lcia.worker import loop as worker


def reject_undisturbed(made_train: Path, folder: Path) -> None:
    """The train below `folder` without its first version, and what was carried over promoted."""
    loop = loop_in(made_train).copy(folder)
    instance = loop.open()
    decisions.reject(instance, "4", OPS, "the rows are wrong")
    worker.work(instance, SITE, print)
    (folder / "digest").write_text(carried(instance), encoding="utf-8")


def carried(instance: Instance) -> str:
    """Digest of the version that carries over the one behind the rejected one."""
    states = [(one["number"], one["state"]) for one in status.status(instance)["candidates"]][-3:]
    assert states == [(4, "rejected"), (5, "superseded"), (6, "pending")]
    return str(status.status(instance)["candidates"][-1]["digest"])


@pytest.fixture
def undisturbed(made_train: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the version that a worker carries over when nobody kills it."""
    folder = once(tmp_path_factory, "undisturbed-train", partial(reject_undisturbed, made_train))
    return (folder / "digest").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "kill",
    [
        Kill("components.promotion.train:set_aside", after=True),
        Kill("components.promotion.candidates:move", call=2, after=True),
    ],
)
def test_a_rejection_that_was_cut_short_sets_nothing_aside(train: SmallLoop, undisturbed: str, kill: Kill) -> None:
    killed(train, "reject", "4", kill)
    instance = train.open()
    assert [one["state"] for one in status.status(instance)["candidates"]][-2:] == ["pending", "pending"]
    assert audit.verify(instance).ok
    decisions.reject(instance, "4", OPS, "the rows are wrong")
    worker.work(instance, SITE, print)
    assert carried(instance) == undisturbed
    assert audit.verify(instance).ok


@pytest.mark.parametrize(
    "kill",
    [
        Kill("components.storage.results:record", call=2, after=True),
        Kill("components.evaluation.prior_tasks:PriorTasks.under_candidate", after=True),
        Kill("components.promotion.candidates:register", after=True),
        Kill("components.registry.registry:Registry.publish_candidate", after=True),
    ],
)
def test_a_worker_that_died_while_carrying_over_goes_on(train: SmallLoop, undisturbed: str, kill: Kill) -> None:
    decisions.reject(train.open(), "4", OPS, "the rows are wrong")
    killed(train, "work", "", kill)
    instance = train.open()
    assert audit.verify(instance).ok
    worker.work(instance, SITE, print)
    assert carried(instance) == undisturbed
    assert audit.verify(instance).ok
    assert decisions.approve(instance, "6", OPS, "read")["epoch"] is not None


@pytest.mark.parametrize(
    ("kill", "champion"),
    [
        (Kill("components.promotion.champion:_swap", after=True), 2),
        (Kill("components.promotion.champion:_swap", call=2), 4),
        (Kill("components.promotion.champion:_swap", call=2, after=True), 4),
        (Kill("components.registry.outbox:_deliver"), 5),
    ],
)
def test_a_version_approved_before_its_turn_is_promoted_after_a_crash(
    train: SmallLoop, kill: Kill, champion: int
) -> None:
    decisions.approve(train.open(), "5", OPS, "read")
    killed(train, "approve", "4", kill)
    instance = train.open()
    now = instance.champion()
    assert now is not None
    assert now.number == champion
    assert audit.verify(instance).ok
    decisions.approve(instance, "4" if champion == 2 else "5", OPS, "read")
    now = instance.champion()
    assert now is not None
    assert now.number == 5
    assert status.status(instance)["champion"]["served"] == now.digest
    assert audit.verify(instance).ok
