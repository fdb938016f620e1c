"""Schedules as CronJobs: what each runs, under which account, and that the shipped files are what the settings say."""

from pathlib import Path

import pytest
import yaml

from components.settings import load_settings
from infra.schedules import COMMANDS, cron_jobs
from lcia.cli.cluster import HEAD
from lcia.cli.main import app

OVERLAYS = sorted(file.parent for file in (Path(__file__).parents[2] / "k8s" / "overlays").glob("*/schedules.yaml"))


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_shipped_schedules_are_rendered_from_the_shipped_settings(overlay: Path, tmp_path: Path) -> None:
    settings = load_settings(overlay / "zenml.yaml", home_folder=tmp_path)
    text = (overlay / "schedules.yaml").read_text(encoding="utf-8")
    assert text.startswith(HEAD)
    assert list(yaml.safe_load_all(text)) == cron_jobs(settings, "lcia-runtime")
    assert {schedule.work for schedule in settings.schedules.values()} == set(COMMANDS)


def test_a_job_is_bounded_in_every_way(tmp_path: Path) -> None:
    told = 'schedules={"nightly": {"work": "sync", "cron": "5 4 * * 1", "time_zone": "Europe/Berlin"}}'
    (job,) = cron_jobs(load_settings(overrides=[told], home_folder=tmp_path), "image")
    spec = job["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("5 4 * * 1", "Europe/Berlin", "Forbid")
    assert spec["startingDeadlineSeconds"] == 600
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 12 * 3600
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == ["sh", "-ec", "lcia sync && lcia audit verify"]
    assert pod["automountServiceAccountToken"] is False
    named = {env["name"] for env in pod["containers"][0]["env"]}
    assert "LCIA__STORAGE__PROMOTER" in named
    assert not [name for name in named if name.startswith("ZENML")]


def test_only_what_predicts_asks_for_a_gpu_and_only_what_starts_runs_for_a_token(tmp_path: Path) -> None:
    gpu = 'cluster={"steps": {"evaluate_forgetting": {"gpu": 1, "node_selector": {"pool": "gpu"}}}}'
    each = ", ".join(f'"{work}": {{"work": "{work}", "cron": "0 0 * * *"}}' for work in COMMANDS)
    settings = load_settings(overrides=[gpu, f"schedules={{{each}}}"], home_folder=tmp_path)
    pods = {job["metadata"]["name"]: job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            for job in cron_jobs(settings, "image")}  # fmt: skip
    asks = {name for name, pod in pods.items() if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]}
    assert asks == {"reevaluate"}
    assert pods["reevaluate"]["nodeSelector"] == {"pool": "gpu"}
    assert pods["reevaluate"]["containers"][0]["image"] == settings.cluster.image
    assert {name for name, pod in pods.items() if pod["automountServiceAccountToken"]} == {"inbox"}


def test_the_verbs_that_jobs_run_exist() -> None:
    import typer

    command = typer.main.get_command(app)
    for verbs in COMMANDS.values():
        for verb, *rest in verbs:
            found, options = command.commands[verb], [word for word in rest if word.startswith("-")]
            if len(options) < len(rest):
                found = found.commands[rest[0]]
            assert set(options) <= {name for param in found.params for name in (*param.opts, *param.secondary_opts)}
