"""Worker and service as processes with accounts of their own, in PostgreSQL and in MLflow: one task from end to end."""

import importlib.util
import io
import json
import os
import re
import secrets
import subprocess
import sys
import zipfile

import httpx2
import pytest
import yaml
from mlflow_server import MlflowServer, serving
from small_loop import TASKS

from components.storage import privileges

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("flask_wtf") is None, reason="MLflow's accounts need Flask-WTF"),
]
ADMIN = secrets.token_urlsafe(16)


@pytest.fixture
def mlflow(tmp_path, empty_mlflow):
    folder = tmp_path / "mlflow"
    folder.mkdir()
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 60\n"
    )
    told = {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN}
    with serving(MlflowServer(folder, empty_mlflow, "--app-name", "basic-auth", told=told)) as found:
        yield found.address


def test_submit_learn_approve_and_promote_each_with_its_own_account(fresh, postgresql, mlflow, tmp_path):
    name = postgresql.new()
    postgresql.execute(privileges.script(), name)
    settings = yaml.safe_load(fresh.config.read_text()) | {
        "storage": {"objects": f"file://{tmp_path}/objects"},
        "registry": {"tracking_uri": mlflow, "artifacts": "mlflow-artifacts:/"},
        "serve": {"port": 0},
    }
    fresh.config.write_text(yaml.safe_dump(settings))
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("LCIA_", "MLFLOW_"))}
    bare |= {"PYTHONPATH": os.pathsep.join(sys.path)}

    def told(user: str, password: str, account: str, **more: str) -> dict[str, str]:
        signed_in = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        home = {"LCIA_HOME": str(tmp_path / account), "ZENML_CONFIG_PATH": str(tmp_path / account / "zenml")}
        return bare | home | signed_in | {"LCIA__STORAGE__DATABASE": postgresql.url(name, f"lcia_{account}")} | more

    def run(environment: dict[str, str], *argv: str) -> tuple[int, dict, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "lcia.cli.main", *argv, *(["--json"] if argv[0] != "work" else [])],
            cwd=fresh.config.parent, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return ended.returncode, json.loads(ended.stdout) if ended.stdout.startswith("{") else {}, ended.stderr

    code, made, wrong = run(told("admin", ADMIN, "worker"), "registry", "accounts")
    assert code == 0, wrong
    worker = told("trainer", made["passwords"]["trainer"], "worker")
    promoter = {"LCIA__STORAGE__PROMOTER": postgresql.url(name, "lcia_promoter")}
    service = told("promoter", made["passwords"]["promoter"], "service", **promoter)
    server = subprocess.Popen(
        [sys.executable, "-m", "lcia.cli.main", "serve", "--bootstrap", "root"],
        cwd=fresh.config.parent, env=service, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        said = ""
        while not (found := re.search(r"on (http://\S+)", said)):
            line = server.stdout.readline()
            assert line, said
            said += line
        keys = {"root": re.search(r"lcia_\S+", said).group()}

        def ask(who: str, operation: str, **params: object) -> dict:
            got = httpx2.post(
                f"{found[1]}/v1/{operation}", json=params, headers={"authorization": f"Bearer {keys[who]}"}, timeout=120
            )
            assert got.status_code == 200, got.text
            return got.json()

        for person, role in [("sam", "submitter"), ("ann", "approver")]:
            ask("root", "add-person", person=person)
            ask("root", "grant", person=person, role=role)
        keys["sam"] = ask("root", "create-token", person="sam", label="test")["token"]
        code, made, wrong = run(service, "tokens", "create", "ann", "--label", "test")  # nobody else holds it
        assert code == 0, wrong
        keys["ann"] = made["token"]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for file in fresh.package(TASKS[0]).iterdir():
                archive.write(file, f"{TASKS[0]}/{file.name}")
        sent = httpx2.post(
            f"{found[1]}/v1/submit",
            content=packed.getvalue(),
            headers={"authorization": f"Bearer {keys['sam']}", "content-type": "application/zip"},
            timeout=120,
        )
        assert sent.status_code == 200, sent.text

        code, _, wrong = run(worker, "work")
        assert code in (0, 3), wrong
        code, _, wrong = run(worker, "approve", "1", "--reason", "I say so", "--as", "ann")
        assert code == 1
        assert "lcia_worker" in wrong

        assert ask("ann", "approve", version="1", reason="read the evidence")["epoch"] == 1
        for environment, account in [(worker, "worker"), (service, "service")]:
            _, seen, wrong = run(environment, "doctor")
            lines = {
                check: [one for one in seen["findings"] if one["check"] == check] for check in ("accounts", "mlflow")
            }
            assert all(one["verdict"] == "ok" for found_ in lines.values() for one in found_), lines
            assert f"can do the {account}'s work" in lines["accounts"][0]["words"]
            assert f"{'trainer cannot' if account == 'worker' else 'promoter can'} move" in lines["mlflow"][0]["words"]
            assert "serves version 1" in lines["mlflow"][-1]["words"]

        _, seen, _ = run(worker | {"LCIA__STORAGE__PROMOTER": worker["LCIA__STORAGE__DATABASE"]}, "doctor", "--quick")
        assert "who promotes nothing" in str(seen["findings"])
    finally:
        server.terminate()
        server.wait(60)
        postgresql.drop(name)
