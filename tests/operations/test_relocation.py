"""A state that was copied or moved: the original's files stay, `status` says so, `lcia sync` mends it, and it works."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_loop import OPS, TASKS, Learnt, SmallLoop

from components.registry.locations import StateMoved
from components.storage.fence import OutsideRoot
from infra import zenml_places
from infra.erasure import delete_runs
from lcia.cli.text import retention as retention_text
from lcia.cli.text import status as status_text
from lcia.doctor import checks
from lcia.doctor.findings import Installation
from lcia.instance import Instance
from lcia.operations import audit, decisions, registry, retention
from lcia.operations import status as status_operations

PASSIVE = TASKS[2]
REFUSE = "retention.withdrawn_adapters=refuse"
FRESH_PROCESS = """
import json, sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
version = mlflow.MlflowClient().get_model_version_by_alias("assistant", "champion")
model = mlflow.pyfunc.load_model("models:/assistant@champion", model_config={"base_model": sys.argv[2]})
asked = pandas.DataFrame([{"instruction": "Rewrite the sentence in the passive voice.", "input": "She read it."}])
answer = model.predict(asked)["answer"][0]
uri = mlflow.get_run(version.run_id).info.artifact_uri
print(json.dumps({"uri": uri, "number": version.tags["number"], "answer": answer}))
"""


@pytest.fixture
def original(learnt: Learnt, tmp_path: Path) -> SmallLoop:
    """Three promoted versions with files of their own."""
    return learnt.loop.copy(tmp_path / "original")


@pytest.fixture
def copied(original: SmallLoop, tmp_path: Path) -> SmallLoop:
    """`cp -r` of it."""
    return original.copy_as_it_is(tmp_path / "copied")


def files(loop: SmallLoop) -> dict[str, tuple[int, int]]:
    """Size and time of every file that MLflow, ZenML or the object store keeps."""
    kept = ("mlflow-artifacts", "zenml", "objects", "heads")
    paths = [path for name in kept for path in (loop.home / name).rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def found(loop: SmallLoop, check: str) -> list[str]:
    instance = loop.open()
    told = checks.examine(Installation(instance.home, loop.config, instance.settings))
    return [one.verdict for one in told if one.check == check]


def test_a_copy_leaves_the_original_alone_and_says_that_it_is_one(original: SmallLoop, copied: SmallLoop) -> None:
    before = files(original)
    instance = copied.open(REFUSE)
    status = status_operations.status(instance)
    assert (status["champion"]["served"], str(original.home) in status["registry"]["moved"]) == (None, True)
    assert "this state was moved or copied from" in status_text.status(status)
    assert "not served by MLflow yet" in status_text.status(status)
    assert (found(copied, "mlflow"), found(copied, "zenml")) == (["problem"], ["problem"])

    decisions.rollback(instance, "2", OPS, "its rows go")
    entries = status_operations.status(instance)["audit"]["entries"]
    with pytest.raises(StateMoved, match="Nothing was changed; `lcia sync` corrects the records"):
        retention.withdraw(instance, PASSIVE, OPS, "no licence")
    with pytest.raises(StateMoved, match="lcia sync"):
        retention.clean(instance, OPS)
    assert status_operations.status(instance)["audit"]["entries"] == entries
    assert files(original) == before


def test_after_sync_a_copy_works_on_its_own(original: SmallLoop, copied: SmallLoop, tiny_folder: Path) -> None:
    before = files(original)
    instance = copied.open(REFUSE)
    told = registry.sync(instance, OPS)
    assert (told["ok"], told["served"], told["differences"]) == (True, True, [])
    assert [one["records"] for one in told["moved"]] == ["MLflow", "ZenML"]
    assert "moved or copied from" in registry.words(told)
    assert registry.sync(instance, OPS)["moved"] == []
    assert (
        status_operations.status(instance)["registry"]["moved"],
        found(copied, "mlflow"),
        found(copied, "zenml"),
    ) == (
        None,
        ["ok"],
        ["ok"],
    )
    decisions.rollback(instance, "2", OPS, "its rows go")
    assert status_operations.status(instance)["champion"]["served"] == instance.version("2").digest
    said = retention.withdraw(instance, PASSIVE, OPS, "no licence")
    assert (said["still_there"], said["registry_untold"], said["zenml_runs"], said["exit_code"]) == ([], [], 2, 0)
    assert "Version(s) 3, tuned on its rows, are erased." in retention_text.withdrawal(said)
    assert files(original) == before
    assert audit.verify(instance).ok
    assert answered(instance, tiny_folder) == 2


def test_a_moved_state_works_after_sync(original: SmallLoop, tmp_path: Path, tiny_folder: Path) -> None:
    moved = original.copy_as_it_is(tmp_path / "moved")
    original.home.rename(tmp_path / "gone")
    instance = moved.open()
    assert status_operations.status(instance)["champion"]["served"] is None
    told = registry.sync(instance, OPS)
    assert (told["ok"], told["differences"]) == (True, [])
    assert answered(instance, tiny_folder) == 3
    assert not original.home.exists(), "nothing was written to the old place"


def test_zenml_files_outside_its_store_stay_and_are_named(original: SmallLoop, copied: SmallLoop) -> None:
    before = files(original)
    copied.open()
    with pytest.raises(OutsideRoot, match=f"{original.home}.* nothing is written or deleted there"):
        delete_runs(["learn_task-3-"])
    assert files(original) == before
    assert zenml_places.moved_from(copied.home) == str(zenml_places.stores(original.home))


def test_weights_that_stay_are_never_called_erased(original: SmallLoop, tmp_path: Path) -> None:
    """MLflow is away, and a copy of the weights lies in a run that MLflow no longer knows."""
    instance = original.open(REFUSE)
    decisions.rollback(instance, "2", OPS, "its rows go")
    weights = next(
        original.home.glob("mlflow-artifacts/*/artifacts/assistant/artifacts/assistant/adapters/g2/*.safetensors")
    )
    lost = original.home / "mlflow-artifacts" / ("f" * 32) / weights.name
    lost.parent.mkdir()
    lost.write_bytes(weights.read_bytes())
    (tmp_path / "no folder").write_text("")
    away = f"registry.tracking_uri=sqlite:///{tmp_path}/no folder/mlflow.db"

    said = retention.withdraw(original.open(REFUSE, away), PASSIVE, OPS, "no licence")
    told = retention_text.withdrawal(said)
    assert said["exit_code"] == 1
    assert "are erased" not in told
    assert f"Still there: {lost} holds what was erased" in told
    assert f"Still there: {weights} holds what was erased" in told
    assert "files of version 3 in MLflow" in told

    said = retention.withdraw(original.open(REFUSE), PASSIVE, OPS, "no licence")
    assert (said["still_there"], said["exit_code"]) == ([f"{lost} holds what was erased"], 1)
    lost.unlink()
    said = retention.withdraw(original.open(REFUSE), PASSIVE, OPS, "no licence")
    assert (said["still_there"], said["exit_code"]) == ([], 0)
    assert "are erased" in retention_text.withdrawal(said)


def answered(instance: Instance, base: Path) -> int:
    """Number of the version that MLflow loads in a fresh process, from files below this state, and that answers."""
    made = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, instance.settings.registry.tracking_uri, str(base)],
        env={name: os.environ[name] for name in ("PATH", "HOME", "OMP_NUM_THREADS") if name in os.environ},
        cwd=base,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout.splitlines()[-1])
    assert told["uri"].startswith(instance.home.as_uri())
    assert isinstance(told["answer"], str)
    return int(told["number"])


@pytest.mark.parametrize("linked", ["mlflow-artifacts", "objects", "zenml/local_stores", "quarantine"])
def test_a_copy_that_keeps_a_link_does_not_touch_what_it_leads_to(
    original: SmallLoop, tmp_path: Path, linked: str
) -> None:
    """A folder on a bigger disk: the copy, and the original too, refuse until it is named or moved back."""
    (original.home / "quarantine").mkdir(exist_ok=True)
    (tmp_path / "disk").mkdir()
    (original.home / linked).rename(tmp_path / "disk" / "big")
    (original.home / linked).symlink_to(tmp_path / "disk" / "big")
    shutil.copytree(original.home, tmp_path / "copied" / "home", symlinks=True)
    copied = replace(original, home=tmp_path / "copied" / "home")
    before = {path: path.read_bytes() for path in (tmp_path / "disk").rglob("*") if path.is_file()}

    instance = copied.open()
    status = status_operations.status(instance)
    assert status["champion"]["served"] is None
    assert f"{copied.home / linked} is a link to {tmp_path}/disk/big" in status_text.status(status)
    assert found(copied, "settings") == ["problem"]
    decisions.rollback(instance, "2", OPS, "its rows go")
    entries = status_operations.status(instance)["audit"]["entries"]
    for refused in (
        lambda: retention.withdraw(instance, PASSIVE, OPS, "no licence"),
        lambda: retention.clean(instance, OPS),
        lambda: registry.sync(instance, OPS),
    ):
        with pytest.raises(OutsideRoot, match="Nothing was changed"):
            refused()
    assert status_operations.status(instance)["audit"]["entries"] == entries
    kept = {path: path.read_bytes() for path in (tmp_path / "disk").rglob("*") if path in before}
    assert kept == before


def test_a_folder_that_settings_name_may_be_anywhere(original: SmallLoop, tmp_path: Path) -> None:
    (original.home / "mlflow-artifacts").rename(tmp_path / "big")
    (original.home / "mlflow-artifacts").symlink_to(tmp_path / "big")
    instance = original.open(f"registry.artifacts={tmp_path}/big", REFUSE)
    assert registry.sync(instance, OPS)["ok"]
    decisions.rollback(instance, "2", OPS, "its rows go")
    said = retention.withdraw(instance, PASSIVE, OPS, "no licence")
    assert (said["still_there"], said["exit_code"]) == ([], 0)
