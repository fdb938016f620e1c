"""Verbs of a cluster: set its stack up, write its schedules."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import yaml

from components.errors import LciaError
from components.storage.objects import write_durably
from lcia.cli.app import DO, LOOK, Config, Json, Set, app, emit, read_settings

stack = typer.Typer(rich_markup_mode=None, help="Where runs run: this machine or a cluster.", no_args_is_help=True)
schedule = typer.Typer(rich_markup_mode=None, help="What is done at set times.", no_args_is_help=True)
app.add_typer(stack, name="stack", rich_help_panel=DO)
app.add_typer(schedule, name="schedule", rich_help_panel=LOOK)

HEAD = "# Written by `lcia schedule render` from the section `schedules` of zenml.yaml; change it there.\n"


class StackUnknown(LciaError):
    """A stack of no kind that there is, or one that the settings say nothing about."""


class NothingScheduled(LciaError):
    """The settings name no schedule."""


@stack.command("up", epilog="Examples:\n\n  lcia stack up local\n\n  lcia stack up kubernetes")
def stack_up(
    name: Annotated[str, typer.Argument(metavar="NAME", help="`local`, `kubernetes` or `kubeflow`.")],
    overrides: Set = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Check what a stack needs, say what is missing, then make it ZenML's active one; may be repeated."""
    home, _, settings = read_settings(config, overrides)
    if name == "local":
        from infra.stacks import local

        local.up()
        emit(
            {"stack": "default", "checks": []}, as_json=as_json, text="runs run on this machine (ZenML's default stack)"
        )
        return
    if name not in ("kubernetes", "kubeflow"):
        raise StackUnknown(f"{name!r} is no stack, expected local, kubernetes or kubeflow")
    if settings.cluster is None:
        raise StackUnknown("zenml.yaml has no section `cluster`; `lcia settings cluster` explains its keys")
    if name == "kubernetes" and settings.cluster.kubeflow is not None:
        raise StackUnknown(
            "zenml.yaml has `cluster.kubeflow`, so runs are compiled for it; leave it out for kubernetes"
        )
    from infra.stacks import kubeflow, kubernetes

    chosen = kubeflow if name == "kubeflow" else kubernetes
    checks = chosen.up(settings.cluster, home)
    text = "\n".join([*(f"ok  {check.what}" for check in checks), f"runs run on {name.title()} ({chosen.NAME})"])
    emit({"stack": chosen.NAME, "checks": [asdict(check) for check in checks]}, as_json=as_json, text=text)


@schedule.command(
    "render",
    epilog="Examples:\n\n  lcia schedule render\n\n"
    "  lcia schedule render --config k8s/overlays/production/zenml.yaml --output schedules.yaml",
)
def render(
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Default: print it.")] = None,
    image: Annotated[str, typer.Option("--image", help="Image of the worker, as kustomize knows it.")] = "lcia-runtime",
    overrides: Set = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write the schedules of zenml.yaml as CronJobs of Kubernetes."""
    from infra.schedules import cron_jobs

    _, _, settings = read_settings(config, overrides, touch=False)
    if not settings.schedules:
        raise NothingScheduled("zenml.yaml has no section `schedules`; `lcia settings schedules` explains its keys")
    jobs = cron_jobs(settings, image)
    text = HEAD + yaml.safe_dump_all(jobs, sort_keys=False, explicit_start=True, width=120)
    if output is not None:
        write_durably(output, text.encode())
        text = f"{output}: {len(jobs)} CronJobs"
    emit({"file": str(output) if output else None, "jobs": jobs}, as_json=as_json, text=text.rstrip("\n"))
