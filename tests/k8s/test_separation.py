"""Each process sees the secrets that it needs and no other, by the manifests and by the compose file."""

import copy
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import itsdangerous
import pytest
from manifests import OVERLAYS, RUNS_SPACE, SERVERS, Doc, named, pods, reaches, render
from separation import COMPOSE_MAY_SEE, MAY_SEE, compose, make_secrets, seen, seen_in_compose
from small_loop import SmallLoop
from small_service import ENVIRONMENT, Server

from infra.stacks.kubernetes import NEEDED


@pytest.fixture(scope="module", params=OVERLAYS)
def docs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Doc]:
    return render(request.param, tmp_path_factory.mktemp(request.param))


def test_each_process_sees_its_secrets_and_no_other(docs: list[Doc]) -> None:
    found = seen(docs)
    assert found == {name: MAY_SEE[name] for name in found}
    absent = {name.partition("/")[0] for name in MAY_SEE} - {name.partition("/")[0] for name in found}
    assert {name for name in absent if "gateway" not in name} <= {"StatefulSet database"}
    broken = copy.deepcopy(docs)
    pod = named(broken, "Deployment")["worker"]["spec"]["template"]["spec"]
    pod["volumes"].append({"name": "k", "persistentVolumeClaim": {"claimName": "keys"}})
    pod["containers"][0]["volumeMounts"].append({"name": "k", "mountPath": "/k"})
    assert "claim keys" in seen(broken)["Deployment worker/worker"]


def test_who_signs_does_not_hash_and_who_hashes_does_not_sign() -> None:
    """Only the copy of an earlier release's key sees both, once."""
    both = [name for name, shown in MAY_SEE.items() if {"claim keys", "claim leak-key"} <= shown]
    assert both == ["Job migrate/leak-key"]
    assert not any("database/owner" in key for name in MAY_SEE for key in MAY_SEE[name] if "worker" in name)


def test_no_secret_of_the_servers_is_where_runs_are(docs: list[Doc]) -> None:
    """A worker that was broken into may make any Job there is a right for: nothing there is worth mounting."""
    spaces = {doc["metadata"]["namespace"] for doc in docs if doc["kind"] == "Secret"}
    assert spaces <= {SERVERS}
    assert named(docs, "PersistentVolumeClaim", RUNS_SPACE).keys() == {"objects"}
    assert named(docs, "Role", SERVERS) == named(docs, "RoleBinding", SERVERS) == {}, "no right where Secrets are"
    assert "get" not in NEEDED["", "secrets"]


def test_runs_reach_zenml_and_no_server_whatever_their_labels(docs: list[Doc]) -> None:
    """Labels are the run's to choose, its namespace is not."""
    servers = {name.partition(" ")[2]: labels for name, labels, _ in pods(docs)}
    step = {"pipeline": "p", "step_name": "tune"}
    for name, labels in servers.items():
        for chosen in (step, labels, {**step, **labels}):
            assert reaches(docs, (RUNS_SPACE, chosen), (SERVERS, labels)) == (name == "zenml"), name
    assert reaches(docs, (SERVERS, servers["worker"]), (SERVERS, servers["mlflow"]))
    assert not reaches(docs, (SERVERS, servers["zenml"]), (SERVERS, servers["mlflow"]))
    if "database" in servers:
        assert reaches(docs, (SERVERS, servers["worker"]), (SERVERS, servers["database"]))
        assert not reaches(docs, (SERVERS, servers["zenml"]), (SERVERS, servers["database"]))


def test_containers_of_one_server_see_their_secrets_and_no_other(tmp_path: Path) -> None:
    assert seen_in_compose(make_secrets(tmp_path)) == COMPOSE_MAY_SEE
    targets = {
        name: {volume.split(":")[1] for volume in one["volumes"] if volume.split(":")[0] in ("keys", "leak-key")}
        for name, one in compose({}).items()
        if name in ("service", "worker")
    }
    assert targets == {"service": {"/state/keys"}, "worker": {"/state/keys"}}, "over what an earlier release left"


def moved(folder: Path) -> None:
    """Run the script of the container `keys` on folders instead of volumes."""
    *_, script = compose({})["keys"]["command"]
    for volume in ("state", "leak-key", "keys"):
        (folder / volume).mkdir(exist_ok=True)
    text = re.sub(r"(?<![\w/])/(state|leak-key|keys)\b", rf"{folder}/\1", script).replace("$$", "$")
    subprocess.run(["sh", "-ec", text], check=True)


def test_keys_that_lay_together_are_taken_apart_once(tmp_path: Path) -> None:
    old = tmp_path / "state" / "keys"
    (old / "next").mkdir(parents=True)
    for name, mode in (("audit-key.pem", 0o600), ("audit-key.pub.pem", 0o644), ("leak-key", 0o600)):
        (old / name).write_text(name)
        (old / name).chmod(mode)
    moved(tmp_path)
    there = {one: sorted(path.name for path in (tmp_path / one).iterdir()) for one in ("keys", "leak-key")}
    assert there == {
        "keys": [".apart", "audit-key.pem", "audit-key.pub.pem", "next"],
        "leak-key": [".apart", "audit-key.pub.pem", "leak-key"],
    }
    assert list(old.iterdir()) == []
    assert (tmp_path / "leak-key" / "leak-key").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "leak-key" / "leak-key").stat().st_mtime_ns
    moved(tmp_path)
    assert (tmp_path / "leak-key" / "leak-key").stat().st_mtime_ns == before


def test_secrets_of_an_earlier_release_get_what_is_new(tmp_path: Path) -> None:
    old = "LCIA_OWNER_PASSWORD=o\nLCIA_WORKER_URL=postgresql://w\nLCIA_SESSION_SECRET=shared\n"
    found = make_secrets(tmp_path, old)
    assert (found["LCIA_OWNER_PASSWORD"], found["LCIA_WORKER_URL"]) == ("o", "postgresql://w")
    assert found["LCIA_SESSION_SECRET"] not in ("shared", found["LCIA_MLFLOW_SESSION_SECRET"]), "MLflow knew it"
    assert make_secrets(tmp_path) == found, "and stays"


def signed_again(cookie: str, secret: str) -> str:
    """The content of a session cookie, signed by whoever has a secret."""
    content = cookie.partition(".")[0]
    return itsdangerous.TimestampSigner(secret).sign(content).decode()


def test_a_cookie_signed_with_mlflows_secret_is_nobodys(
    fresh: SmallLoop, serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    containers = compose(make_secrets(tmp_path))
    own = str(containers["service"]["environment"]["LCIA_SESSION_SECRET"])
    monkeypatch.setitem(ENVIRONMENT, "LCIA_SESSION_SECRET", own)
    server = serve(fresh)
    server.sign_in("approver")
    cookie, server.client.headers["accept"] = server.client.cookies["lcia_session"], "application/json"
    answers = []
    for secret in (str(containers["mlflow"]["environment"]["MLFLOW_FLASK_SERVER_SECRET_KEY"]), own):
        server.client.cookies.clear()
        server.client.cookies.set("lcia_session", signed_again(cookie, secret))
        answers.append(server.client.get("/v1/status").status_code)
    assert answers == [401, 200]
