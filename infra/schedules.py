"""Scheduled work on a cluster: the section `schedules` as CronJobs, each of which calls verbs of the command line.

`reevaluate` needs the base model, so it runs on the image of the steps; the others on that of the worker.
"""

from collections.abc import Mapping
from typing import Any

from components.settings import ClusterSettings, Settings
from components.settings.cluster import Schedule, Work
from infra.stacks.pods import CONFINED, resources

COMMANDS: Mapping[Work, tuple[tuple[str, ...], ...]] = {
    "inbox": (("work", "--once"),),
    "reevaluate": (("reevaluate",),),
    "sync": (("sync",), ("audit", "verify")),
    "retention": (("sweep",),),
}
ACCOUNTS: Mapping[Work, str] = {"inbox": "worker", "reevaluate": "worker", "sync": "service", "retention": "worker"}
"""Service account of each kind of work: only `inbox` starts runs, so only it talks to Kubernetes."""
_ACCOUNTS: Mapping[Work, tuple[str, str]] = {"sync": ("service", "promoter"), "retention": ("keeper", "promoter")}
"""Accounts of the database and of MLflow that are not the worker's."""
KEYS: Mapping[Work, str] = {"inbox": "leak-key", "sync": "keys"}
"""Claim with the key that a kind of work needs: hashes of leak checks, or the key that signs. The others need none."""
FAILED_KEPT, DONE_KEPT = 3, 1
SMALL = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
"""Resources of what loads no model."""


def cron_jobs(settings: Settings, image: str) -> list[dict[str, Any]]:
    """A CronJob for each schedule, by name; `image` is the worker's.

    One that is late by more than its deadline is left out, and none starts while the one before is under way.
    """
    cluster = settings.cluster or ClusterSettings()
    return [_cron_job(name, one, cluster, image) for name, one in sorted(settings.schedules.items())]


def _cron_job(name: str, schedule: Schedule, cluster: ClusterSettings, image: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "schedule"}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "schedule": schedule.cron,
            "timeZone": schedule.time_zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": schedule.deadline_seconds,
            "successfulJobsHistoryLimit": DONE_KEPT,
            "failedJobsHistoryLimit": FAILED_KEPT,
            "jobTemplate": {
                "spec": {
                    "activeDeadlineSeconds": round(schedule.longest_hours * 3600),
                    "backoffLimit": 1,
                    "template": {"metadata": {"labels": {**labels}}, "spec": _pod(schedule.work, cluster, image)},
                }
            },
        },
    }


def _pod(work: Work, cluster: ClusterSettings, image: str) -> dict[str, Any]:
    request = cluster.pod("evaluate_forgetting") if work == "reevaluate" else None
    place: dict[str, Any] = {}
    if request is not None:
        place = {"nodeSelector": dict(request.node_selector), "tolerations": list(request.tolerations)}
    return {
        "restartPolicy": "Never",
        "serviceAccountName": ACCOUNTS[work],
        "automountServiceAccountToken": work == "inbox",
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **{key: value for key, value in place.items() if value},
        "containers": [
            {
                "name": "verb",
                "image": cluster.image if work == "reevaluate" else image,
                "imagePullPolicy": "IfNotPresent",
                "command": _command(COMMANDS[work]),
                "env": _environment(work),
                "resources": resources(request) if request else SMALL,
                "securityContext": CONFINED,
                "volumeMounts": [
                    {"name": "objects", "mountPath": "/state"},
                    *([{"name": KEYS[work], "mountPath": "/state/keys"}] if work in KEYS else []),
                    {"name": "settings", "mountPath": "/app/zenml.yaml", "subPath": "zenml.yaml", "readOnly": True},
                    {"name": "temporary", "mountPath": "/tmp"},  # noqa: S108 - inside the pod
                ],
            }
        ],
        "volumes": [
            {"name": "objects", "persistentVolumeClaim": {"claimName": cluster.claim}},
            *([{"name": KEYS[work], "persistentVolumeClaim": {"claimName": KEYS[work]}}] if work in KEYS else []),
            {"name": "settings", "configMap": {"name": "settings"}},
            {"name": "temporary", "emptyDir": {}},
        ],
    }


def _command(verbs: tuple[tuple[str, ...], ...]) -> list[str]:
    """One verb is started as it is; more than one, one after the other for as long as they succeed."""
    if len(verbs) == 1:
        return ["lcia", *verbs[0]]
    return ["sh", "-ec", " && ".join(" ".join(("lcia", *verb)) for verb in verbs)]


def _environment(work: Work) -> list[dict[str, Any]]:
    """Accounts of the database, of MLflow and of ZenML, from Secrets; each work those that it needs."""
    account, registry = _ACCOUNTS.get(work, ("worker", "trainer"))
    secrets = {
        "LCIA__STORAGE__DATABASE": ("database", f"{account}-url"),
        "MLFLOW_TRACKING_USERNAME": ("mlflow", f"{registry}-name"),
        "MLFLOW_TRACKING_PASSWORD": ("mlflow", f"{registry}-password"),
    }
    if work == "inbox":
        secrets |= {f"ZENML_STORE_{part.upper()}": ("zenml", part) for part in ("username", "password")}
    if work == "sync":
        secrets["LCIA__STORAGE__PROMOTER"] = ("database", "promoter-url")
    variables: list[dict[str, Any]] = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for name, (secret, key) in secrets.items()
    ]
    return [*variables, {"name": "ZENML_STORE_URL", "value": "http://zenml:8080"}] if work == "inbox" else variables
