"""Verbs of a cluster: set up its stack, write its schedules."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import yaml

from components.errors import LciaError
from lcia.cli.app import DO, LOOK, Config, Json, Set, emit, group, read_settings, verb

stack = group("stack", "Choose where runs run: on this machine or on a cluster.")
schedule = group("schedule", "Write the schedules of zenml.yaml for Kubernetes.")

HEAD = "# Written by `lcia schedule render` from the section `schedules` of zenml.yaml; change it there.\n"


class StackUnknown(LciaError):
    """A name that is no stack, or a stack that the settings don't describe."""


class NothingScheduled(LciaError):
    """The settings name no schedule."""


@verb(DO, "lcia stack up local", "lcia stack up kubernetes", on=stack, name="up")
def stack_up(
    name: Annotated[str, typer.Argument(metavar="NAME", help="`local`, `kubernetes` or `kubeflow`.")],
    overrides: Set = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Check what a stack needs, then make it ZenML's active one. Running it again is safe.

    If something is missing, the message says what, and the active stack stays.
    """
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

    target = kubeflow if name == "kubeflow" else kubernetes
    checks = target.up(settings.cluster, home)
    text = "\n".join([*(f"ok  {check.what}" for check in checks), f"runs run on {name.title()} ({target.NAME})"])
    emit({"stack": target.NAME, "checks": [asdict(check) for check in checks]}, as_json=as_json, text=text)


@verb(
    LOOK,
    "lcia schedule render",
    "lcia schedule render --config k8s/overlays/production/zenml.yaml --output schedules.yaml",
    on=schedule,
    name="render",
)
def render(
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="File to write; default standard output.")
    ] = None,
    image: Annotated[
        str, typer.Option("--image", metavar="NAME", help="Image of the worker, as kustomize names it.")
    ] = "lcia-runtime",
    overrides: Set = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write the schedules of zenml.yaml as Kubernetes CronJobs."""
    from infra.schedules import cron_jobs

    _, _, settings = read_settings(config, overrides, touch=False)
    if not settings.schedules:
        raise NothingScheduled("zenml.yaml has no section `schedules`; `lcia settings schedules` explains its keys")
    jobs = cron_jobs(settings, image)
    text = HEAD + yaml.safe_dump_all(jobs, sort_keys=False, explicit_start=True, width=120)
    if output is not None:
        from components.storage.objects import write_durably

        write_durably(output, text.encode())
        text = f"{output}: {len(jobs)} CronJobs"
    emit({"file": str(output) if output else None, "jobs": jobs}, as_json=as_json, text=text.rstrip("\n"))
