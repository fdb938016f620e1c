"""Several processes that tune together (gloo, on the CPU) end where one alone does, each with the same bits."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.model.ranks import ALONE, Ranks, RanksDisagree, shares
from components.settings import RehearsalSettings, Settings, TuningSettings
from components.storage.objects import ObjectStore
from components.tuning.rehearsal import batches
from components.tuning.tuner import CHECKPOINT, Parent, tune
from tests.tuning.test_tuner import changed

PROGRAM = Path(__file__).parents[1] / "support" / "tune_together.py"
STEPS = 5
REHEARSAL = RehearsalSettings(share=0.25, targets="parent")
RUNS = {
    rule: changed(rule, steps=STEPS, batch_size=3, rehearsal=REHEARSAL) for rule in ("scale_free", "curvature", "paper")
}


@dataclass(frozen=True)
class Together:
    """What `count` processes left behind."""

    folder: Path
    count: int
    code: int
    said: str

    def adapters(self, run: str) -> list[dict[str, torch.Tensor]]:
        return [load_file(self.folder / f"{run}.{number}.safetensors") for number in range(self.count)]

    def told(self, run: str) -> dict:
        return json.loads((self.folder / f"{run}.0.json").read_text())


def tune_together(
    folder: Path, settings: Settings, rows, parent: Parent, runs: dict[str, TuningSettings], count: int, **told
) -> Together:
    folder.mkdir(exist_ok=True)
    told |= {
        "settings": settings.model_dump(mode="json"),
        "runs": {name: run.model_dump(mode="json") for name, run in runs.items()},
    }
    told |= {name: [[r.prompt, r.answer] for r in each] for name, each in zip(("new", "kept"), rows, strict=True)}
    (folder / "told.json").write_text(json.dumps(told))
    save_file(parent.adapter, folder / "parent.safetensors")
    save_file(parent.curvature or {}, folder / "curvature.safetensors")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    done = subprocess.run(
        [*torchrun, str(PROGRAM), str(folder)], capture_output=True, text=True, check=False, timeout=300
    )
    return Together(folder, count, done.returncode, done.stdout + done.stderr)


@pytest.fixture
def alone(tiny_bench, rows, parent, tmp_path):
    """Points, curvature and losses of the runs in this process."""

    def run(settings: TuningSettings, name: str = "alone"):
        area = ObjectStore(f"file://{tmp_path}/alone").scratch(name)
        return tune(tiny_bench.trunk, tiny_bench.slot, *rows, parent, settings, area, batch_rows=8)

    return run


def apart(alone, together: dict[str, torch.Tensor], parent: Parent) -> float:
    """Largest distance of any point from what one process makes, as a share of how far tuning went."""
    worst = 0.0
    for point, tensors in alone.points.items():
        way = sum(float((t - parent.adapter[n]).square().sum()) for n, t in alone.points["live"].items()) ** 0.5
        gap = sum(float((t - together[f"{point}/{n}"]).square().sum()) for n, t in tensors.items()) ** 0.5
        worst = max(worst, gap / way)
    return worst


@pytest.mark.parametrize("count", [2, 4])
def test_several_end_where_one_does(count, tiny_settings, rows, parent, alone, tmp_path) -> None:
    """Batches of 4 rows: with 4 processes each reads one; every process has the same bits in every point."""
    found = tune_together(tmp_path / "together", tiny_settings, rows, parent, RUNS, count)
    assert found.code == 0, found.said
    for name, settings in RUNS.items():
        one, several = alone(settings, name), found.adapters(name)
        assert {key.split("/")[0] for key in several[0]} - {"curvature"} == one.points.keys()
        for other in several[1:]:
            assert all(torch.equal(tensor, other[key]) for key, tensor in several[0].items())
        assert apart(one, several[0], parent) < 1e-3
        assert found.told(name)["losses"] == pytest.approx(one.losses, rel=1e-4)
        assert found.told(name)["old"] == pytest.approx(one.old_losses, rel=1e-4)
        for n, tensor in (one.curvature or {}).items():
            torch.testing.assert_close(several[0][f"curvature/{n}"], tensor, rtol=1e-2, atol=1e-3)


def test_several_measure_and_stop_alike(tiny_bench, tiny_settings, rows, parent, tmp_path) -> None:
    """Five validation rows among two processes, with a base that is whole in each and one that is spread."""
    settings = changed("scale_free", steps=12, checkpoint_every=2, learning_rate=1e-3)
    validation = [[r.prompt, r.answer] for r in rows[0][:5]]
    one = tune(tiny_bench.trunk, tiny_bench.slot, *rows, parent, settings, None, 2, validation=rows[0][:5])
    spread = tiny_settings.base_model.model_copy(update={"sharded": True})
    for name, model in (("whole", tiny_settings.base_model), ("spread", spread)):
        group = tiny_settings.model_copy(update={"base_model": model})
        ended = tune_together(tmp_path / name, group, rows, parent, {"run": settings}, 2, validation=validation)
        assert ended.code == 0, ended.said
        several = ended.adapters("run")
        assert all(torch.equal(tensor, several[1][key]) for key, tensor in several[0].items())
        assert apart(one, several[0], parent) < 1e-3
        checks, own = ended.told("run")["stopping"]["checks"], one.stopping["checks"]
        assert [check[:2] for check in checks] == [list(check[:2]) for check in own]
        assert [check[2] for check in checks] == pytest.approx([check[2] for check in own], rel=1e-4)


def test_one_that_is_drained_stops_all_and_another_number_goes_on(tiny_settings, rows, parent, alone, tmp_path) -> None:
    settings = RUNS["curvature"].model_copy(update={"checkpoint_every": 100})
    folder = tmp_path / "together"
    stopped = tune_together(folder, tiny_settings, rows, parent, {"run": settings}, 2, stop=[1, 1])
    assert stopped.code != 0
    assert not list(folder.glob("run.*"))
    assert ObjectStore(f"file://{folder}/objects").scratch("run").read(CHECKPOINT)
    resumed = tune_together(folder, tiny_settings, rows, parent, {"run": settings}, 3)
    assert resumed.code == 0, resumed.said
    assert [place[-11:] for place in resumed.told("run")["across"]] == ["2 processes"]
    assert apart(alone(settings), resumed.adapters("run")[0], parent) < 1e-3


def test_a_base_model_that_is_spread_ends_where_a_whole_one_does(
    tiny_settings, load_tiny, rows, parent, alone, tmp_path
) -> None:
    base = tiny_settings.base_model.model_copy(update={"sharded": True})
    settings = tiny_settings.model_copy(update={"base_model": base})
    runs = {name: RUNS[name] for name in ("scale_free", "curvature")}
    runs["scale_free"] = runs["scale_free"].model_copy(update={"gradient_checkpointing": True})
    found = tune_together(tmp_path / "spread", settings, rows, parent, runs, 2)
    assert found.code == 0, found.said
    for name in runs:
        several = found.adapters(name)
        assert all(torch.equal(tensor, several[1][key]) for key, tensor in several[0].items())
        assert apart(alone(RUNS[name], name), several[0], parent) < 1e-3
    whole = sum(p.nbytes for p in load_tiny().model.get_decoder().layers.parameters())
    adapter = sum(t.nbytes for t in parent.adapter.values())
    held = [json.loads((found.folder / f"held.{number}.json").read_text()) - adapter for number in range(2)]
    assert all(abs(part - whole / 2) < 0.02 * whole for part in held)


def test_shares_are_even_and_rows_stay_where_they_are_known() -> None:
    plan = batches(20, [(5, 0.2)], 30, 4, 0)
    for count in (1, 2, 3, 4, 8):
        parts = shares(plan, count)
        for batch, part in zip(plan, parts, strict=True):
            assert sorted(place for each in part for place in each) == list(range(len(batch)))
            assert max(map(len, part)) == -(-len(batch) // count)
    places = {
        (row, number)
        for b, part in zip(plan, shares(plan, 2), strict=True)
        for number, each in enumerate(part)
        for row in (b[place] for place in each)
    }
    assert len(places) < 1.5 * 25  # of 25 rows most are read by one process only


def test_one_process_alone_talks_to_nobody() -> None:
    assert Ranks.join("cpu") is ALONE
    assert ALONE.gather(b"x") == [b"x"]
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)
    ALONE.agree("anything", b"x")


def test_processes_that_differ_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "gather", lambda *_: [b"a", b"a", b"b"])
    with pytest.raises(RanksDisagree, match=r"the weights of process 2 is not that of process 0 \(1 of 3 differ\)"):
        Ranks(0, 3).agree("the weights", b"a")
