"""The secrets that each process may see, by the manifests and by the compose file; and what actually is shown to it."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from manifests import Doc, containers, pods

ROOT = Path(__file__).parents[2]
PASSWORDS = {"database/worker-password", "database/service-password", "database/promoter-password"}
MAY_SEE: Mapping[str, set[str]] = {
    "Deployment service/service": {
        *("database/service-url", "database/promoter-url", "database/keeper-url"),
        *("service/session-secret", "service/oidc-secret", "service/webhook-secret", "service/smtp-password"),
        *("mlflow/promoter-name", "mlflow/promoter-password", "zenml/username", "zenml/password", "claim keys"),
    },
    "Deployment gateway/gateway": {"gateway/token", "gateway/secret"},
    "Deployment gateway/vllm": set(),
    "Deployment gateway-candidate/gateway": {"gateway/token", "gateway/secret"},
    "InferenceService gateway/kserve-container": {"gateway/token", "gateway/secret"},
    "Deployment worker/inbox": set(),
    "Deployment worker/worker": {
        *("database/worker-url", "mlflow/trainer-name", "mlflow/trainer-password"),
        *("zenml/username", "zenml/password", "claim leak-key"),
    },
    "Deployment mlflow/mlflow": {
        *("mlflow/backend-url", "mlflow/admin-name", "mlflow/admin-password", "mlflow/session-secret"),
        "mlflow/basic_auth.ini",
    },
    "Deployment zenml/zenml": {"zenml/store-url", "zenml/username", "zenml/password", "zenml/token-secret"},
    "StatefulSet database/database": {"database/owner-password"},
    "Job migrate/tables": {"database/owner-url"},
    "Job migrate/rights": {"database/owner-url"},
    "Job migrate/leak-key": {"claim keys", "claim leak-key"},
    "Job migrate/accounts": {"database/owner-url", "database/keeper-password", *PASSWORDS},
    "CronJob drain-inbox/verb": {
        *("database/worker-url", "mlflow/trainer-name", "mlflow/trainer-password"),
        *("zenml/username", "zenml/password", "claim leak-key"),
    },
    "CronJob reevaluate-champion/verb": {"database/worker-url", "mlflow/trainer-name", "mlflow/trainer-password"},
    "CronJob retention/verb": {"database/keeper-url", "mlflow/promoter-name", "mlflow/promoter-password"},
    "CronJob sync-and-verify/verb": {
        *("database/service-url", "database/promoter-url", "mlflow/promoter-name", "mlflow/promoter-password"),
        "claim keys",
    },
}
"""By container: keys of Secrets, and claims with keys on them. Whatever is not here, it must not see."""
KEY_CLAIMS = {"keys", "leak-key"}


def seen(docs: list[Doc]) -> dict[str, set[str]]:
    """By container: every key of a Secret in its environment or files, every claim of keys that it mounts."""
    found = {}
    for where, _, pod in pods(docs):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        for container in containers(pod):
            shown = set()
            for one in container.get("env", ()):
                if source := one.get("valueFrom", {}).get("secretKeyRef"):
                    shown.add(f"{_plain(source['name'])}/{source['key']}")
            shown |= {
                f"{_plain(one['secretRef']['name'])}/*" for one in container.get("envFrom", ()) if "secretRef" in one
            }
            for mount in container.get("volumeMounts", ()):
                shown |= _mounted(volumes[mount["name"]])
            found[f"{where}/{container['name']}"] = shown
    return found


def _mounted(volume: Doc) -> set[str]:
    claim = volume.get("persistentVolumeClaim", {}).get("claimName")
    found = {f"claim {claim}"} if claim in KEY_CLAIMS else set()
    sources = [source["secret"] for source in volume.get("projected", {}).get("sources", ()) if "secret" in source]
    for secret in [*sources, *([volume["secret"]] if "secret" in volume else [])]:
        name = _plain(secret.get("secretName") or secret.get("name"))
        found |= {f"{name}/{item['key']}" for item in secret.get("items", ({"key": "*"},))}
    return found


def _plain(name: str) -> str:
    """A Secret's name without the hash that Kustomize puts behind it."""
    return re.sub(r"-[a-z0-9]{10}$", "", name)


COMPOSE_MAY_SEE: Mapping[str, set[str]] = {
    "database": {"OWNER_PASSWORD"},
    "tables": {"OWNER_URL"},
    "accounts": {"OWNER_URL", *(f"{who}_PASSWORD" for who in ("WORKER", "SERVICE", "PROMOTER", "KEEPER"))},
    "keys": {"volume keys", "volume leak-key", "volume state"},
    "mlflow": {"MLFLOW_ADMIN_PASSWORD", "MLFLOW_SESSION_SECRET"},
    "registry": {f"MLFLOW_{who}_PASSWORD" for who in ("ADMIN", "TRAINER", "PROMOTER")},
    "service": {
        *("SERVICE_URL", "PROMOTER_URL", "KEEPER_URL", "SESSION_SECRET", "MLFLOW_PROMOTER_PASSWORD"),
        *("volume keys", "volume state"),
    },
    "worker": {"WORKER_URL", "MLFLOW_TRAINER_PASSWORD", "volume leak-key", "volume state"},
    "access": {"SERVICE_URL", "volume access", "volume keys"},
    "gateway": {"GATEWAY_SECRET", "volume access"},
}
"""By container of one server: variables of secrets.env (without LCIA_), and volumes with state, keys or a token."""


def make_secrets(folder: Path, old: str | None = None) -> dict[str, str]:
    """What infra/server/make-secrets.sh leaves in a folder, where `old` may lie already."""
    script = folder / "make-secrets.sh"
    script.write_bytes((ROOT / "infra" / "server" / "make-secrets.sh").read_bytes())
    if old is not None:
        (folder / "secrets.env").write_text(old, encoding="utf-8")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("LCIA_")}
    subprocess.run(["sh", script], check=True, env=plain)
    lines = (folder / "secrets.env").read_text(encoding="utf-8").splitlines()
    assert (folder / "secrets.env").stat().st_mode & 0o077 == 0
    return dict(line.split("=", 1) for line in lines)


def compose(secrets: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The containers of one server with their variables filled in, as compose does."""
    text = (ROOT / "infra" / "server" / "compose.yaml").read_text(encoding="utf-8")

    def filled(match: re.Match[str]) -> str:
        name, _, default = match[1].partition(":")
        return secrets.get(name, default.removeprefix("-"))

    found: dict[str, dict[str, Any]] = yaml.safe_load(re.sub(r"(?<!\$)\$\{([^}]+)\}", filled, text))["services"]
    return found


def seen_in_compose(secrets: Mapping[str, str]) -> dict[str, set[str]]:
    """By container: secrets whose value is anywhere in its entry, and volumes with keys or state."""
    found = {}
    for name, container in compose(secrets).items():
        text = yaml.safe_dump(container)
        shown = {key.removeprefix("LCIA_") for key, value in secrets.items() if value in text}
        urls = {one for one in shown if one.endswith("_URL")}  # a URL holds its password
        shown -= {one.replace("_URL", "_PASSWORD") for one in urls} - (
            {"OWNER_PASSWORD"} if name == "database" else set()
        )
        volumes = {volume.partition(":")[0] for volume in container.get("volumes", ())}
        found[name] = shown | {f"volume {one}" for one in volumes & {*KEY_CLAIMS, "state", "access"}}
    return found
