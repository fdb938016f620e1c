"""The benchmark of tuning and evaluation on a GPU: with tiny models on the CPU, and on a GPU where there is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.measure import COMPETITORS, peak_flops, read_arguments
from benchmarks.tuning_speed.measure import SFT, SFT_DEFAULTS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OWN = [name for name in COMPETITORS if name not in (SFT, SFT_DEFAULTS)]


def measured(work: Path, *options: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.gpu", "--without-trl", "--work", str(work), *options]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return json.loads((work / f"{options[1]}.json").read_text())


def check(report: dict, work: Path, *, on_gpu: bool) -> None:
    assert (report["gpu"] is not None) == on_gpu
    for top, found in report["top_layers"].items():
        below, above = found["layer_parameters"], found["adapted_layer_parameters"]
        assert (above == below) == (top == "all")
        assert found["flops_per_token"] == 2 * below + 2 * above
        assert found["trunk_split"]
        assert found["tokens"] >= found["positions"] > 0
        assert list(found["tuning"]) == list(COMPETITORS)
        assert found["tuning"][SFT] is found["tuning"][SFT_DEFAULTS] is None, "without TRL"
        for name in OWN:
            run = found["tuning"][name]
            assert run["tokens_per_second"] >= run["tokens_per_second_with_trunk"] > 0
            assert run["step_ms"] > 0 <= run["before_first_step_s"]
            assert run["first_loss"] == pytest.approx(found["tuning"][OWN[0]]["first_loss"], rel=0.5)
            assert (run["peak_bytes"] is not None) == on_gpu
            if peak := report["peak_flops"]:
                done = run["tokens_per_second_with_trunk"] * found["flops_per_token"]
                assert run["share_of_bound"] == pytest.approx(done / peak)
            else:
                assert run["share_of_bound"] is None
        assert len(found["ratios"]) == 2
        assert all(ratio > 0 for ratio in found["ratios"].values())
        assert found["ema"]["share_by_difference"] < 1
        assert (found["ema"]["events_ms"] is not None) == (found["ema"]["share_by_events"] is not None) == on_gpu
        assert found["evaluation"]["answers_per_second"] > 0 < found["evaluation"]["scores_per_second"]
        assert (found["evaluation"]["peak_bytes"] is not None) == on_gpu
    profile = (work / f"{report['shape']}.profile.txt").read_text()
    assert profile.count("all operators") == 2 * len(report["top_layers"])
    assert "aten::mm" in profile


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("shape", ["tiny", "tiny-llava"])
def test_every_number_is_there_or_null_on_the_cpu(tmp_path, shape):
    options = ("--shape", shape, "--steps", "2", "--rounds", "1", "--predict", "4", "--peak-tflops", "0.001")
    report = measured(tmp_path, *options)
    assert list(report["top_layers"]) == ["all", "2"]
    check(report, tmp_path, on_gpu=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_number_is_there_on_a_gpu(tmp_path):
    check(measured(tmp_path, "--shape", "1.5b", "--steps", "10"), tmp_path, on_gpu=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_large_shape_is_refused_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--shape", "7b"])
    with pytest.raises(SystemExit):
        read_arguments()
    assert "--shape 7b needs a GPU, and torch sees none" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--steps", "0"), ("--peak-tflops", "-1"), ("--batch", "0")])
def test_what_is_not_positive_is_refused(monkeypatch, capsys, option, value):
    monkeypatch.setattr(sys, "argv", ["gpu", "--shape", "tiny", option, value])
    with pytest.raises(SystemExit):
        read_arguments()
    assert f"{option} is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA L4", None),
        (None, None),
    ],
)
def test_the_peak_follows_from_the_name_or_is_given(name, peak):
    assert peak_flops(name, None) == peak
    assert peak_flops(name, 121.0) == 121e12
