"""A real installation to attack: PostgreSQL, MLflow, service and worker, each an operating-system user of its own.

Each process has the accounts, secrets and folders that the documentation hands out, and nothing more. The object
store is shared by group, as one volume is on Kubernetes.
"""

import contextlib
import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml

from components.storage import privileges
from tests.support.private_postgresql import TEMPLATE, Cluster, running
from tests.support.small_loop import SECTIONS, TASKS, write_package
from tests.support.tiny_models import write_tiny_llama

ROOT = Path(__file__).parents[2]
UIDS = {"worker": 40_001, "service": 40_002, "mlflow": 40_003, "site": 40_004}
"""Users without a passwd entry; `site` is somebody who may drop packages and nothing else."""
GROUP = 40_000
"""Of worker and service, who share the object store."""
SETTINGS: dict[str, Any] = {**SECTIONS, "serve": {"port": 0}}
SECONDS = 300


class NotInstallable(Exception):
    """This machine can't hold a real installation; the words say what it lacks."""


@dataclass
class Installation:
    """Addresses, accounts and people of a running installation."""

    folder: Path
    cluster: Cluster
    database: str
    passwords: dict[str, str]
    """Account -> its password in the database."""
    environments: dict[str, dict[str, str]]
    """Process -> all of its environment."""
    settings: dict[str, Any]
    """Of worker and service, as in their zenml.yaml."""
    mlflow: str = ""
    service: str = ""
    tokens: dict[str, str] = field(default_factory=dict)

    def uid(self, process: str) -> int:
        """Number of the operating-system user that a process runs as."""
        return UIDS[process]

    def stored(self, digest: str) -> Path:
        """File of an object in the store."""
        return self.folder / "objects" / "sha256" / digest[:2] / digest

    def owner(self, statement: str) -> None:
        """Change the database as its owner; how a stolen backup or an administrator would."""
        self.cluster.execute(statement, self.database)

    def command(self, process: str, *argv: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run `lcia` as the operating-system user of a process."""
        return self.run(process, [sys.executable, "-m", "lcia.cli.main", *argv], **more)

    def run(self, process: str, argv: list[str], **more: str) -> "subprocess.CompletedProcess[str]":
        """Run a program as the operating-system user of a process, with that process's environment."""
        return subprocess.run(
            [*as_user(process), *argv], cwd=self.folder / process, env=self.environments[process] | more,
            capture_output=True, text=True, check=False, timeout=SECONDS, umask=0o002,
        )  # fmt: skip

    def ask(self, who: str, operation: str, /, **params: object) -> tuple[int, dict[str, Any]]:
        """POST an operation with somebody's token; returns status and answer."""
        got = httpx2.post(f"{self.service}/v1/{operation}", json=params, headers=self.signed_in(who), timeout=SECONDS)
        return got.status_code, got.json()

    def look(self, who: str, operation: str, /, **params: str) -> tuple[int, dict[str, Any]]:
        """GET an operation with somebody's token; returns status and answer."""
        got = httpx2.get(f"{self.service}/v1/{operation}", params=params, headers=self.signed_in(who), timeout=SECONDS)
        return got.status_code, got.json()

    def submit(self, person: str, packed: bytes) -> tuple[int, dict[str, Any]]:
        """Send a packed package."""
        headers = {**self.signed_in(person), "content-type": "application/zip"}
        got = httpx2.post(f"{self.service}/v1/submit", content=packed, headers=headers, timeout=SECONDS)
        return got.status_code, got.json()

    def signed_in(self, person: str) -> dict[str, str]:
        """Headers of somebody's requests."""
        return {"authorization": f"Bearer {self.tokens[person]}"}


def as_user(process: str) -> list[str]:
    """Prefix of a command line that runs it as a process's user, without a capability left."""
    uid = UIDS[process]
    group = GROUP if process in {"worker", "service"} else uid
    return ["setpriv", f"--reuid={uid}", f"--regid={group}", "--clear-groups", "--no-new-privs"]


def need_users() -> None:
    """Refuse where other users can't be, or can't run Python.

    Raises:
        NotInstallable: see above.
    """
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        raise NotInstallable("only root, with setpriv of util-linux, can run each process as a user of its own")
    tried = subprocess.run([*as_user("site"), sys.executable, "-c", "import psycopg, lcia.cli.main"], check=False,
                           capture_output=True, text=True, cwd="/", env={"PYTHONPATH": str(ROOT)})  # fmt: skip
    if tried.returncode:
        raise NotInstallable(
            f"other users can't run {sys.executable}: {tried.stderr.strip() or tried.returncode}. Every folder above "
            "the interpreter and this checkout needs to be open to others (`chmod o+x`)"
        )


@contextlib.contextmanager
def installation() -> Iterator[Installation]:
    """Two tasks learnt and promoted, a third one waits for people; everything goes when the block ends.

    Raises:
        NotInstallable, PostgresqlMissing: this machine lacks something.
    """
    need_users()
    folder = Path(tempfile.mkdtemp(prefix="lcia-attacks-"))
    folder.chmod(0o755)
    processes: list[subprocess.Popen[str]] = []
    try:
        with running() as cluster:
            system = _prepare(folder, cluster)
            processes.append(_start_mlflow(system))
            write_settings(system)
            said = system.command(
                "worker", "registry", "accounts", "--json", **_mlflow_user("admin", system.passwords["mlflow"])
            )
            accounts = json.loads(said.stdout)["passwords"]
            system.environments["worker"] |= _mlflow_user("trainer", accounts["trainer"])
            system.environments["service"] |= _mlflow_user("promoter", accounts["promoter"])
            processes.append(start_service(system, "--bootstrap", "root"))
            _people(system)
            _learn(system)
            yield system
    finally:
        for process in processes:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def start_service(system: Installation, *options: str) -> "subprocess.Popen[str]":
    """`lcia serve` as its own user; notes its address, and the first admin's token where one is made."""
    process = subprocess.Popen(
        [*as_user("service"), sys.executable, "-m", "lcia.cli.main", "serve", *options], umask=0o002,
        cwd=system.folder / "service", env=system.environments["service"], text=True, stdout=subprocess.PIPE,
        stderr=(system.folder / "service.log").open("w", encoding="utf-8"),
    )  # fmt: skip
    said = ""
    while not (address := re.search(r"on (http://\S+)", said)):
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise RuntimeError(said + (system.folder / "service.log").read_text(encoding="utf-8"))
        said += line
    system.service = address[1]
    if token := re.search(r"lcia_\S+", said):
        system.tokens["root"] = token.group()
    return process


def files_of(name: str) -> dict[str, bytes]:
    """Files of a task package of the examples, with its first rows alone."""
    with tempfile.TemporaryDirectory() as folder:
        return {file.name: file.read_bytes() for file in write_package(Path(folder), name).iterdir()}


def packed(files: dict[str, bytes]) -> bytes:
    """A package as a zip."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in files.items():
            archive.writestr(f"package/{file}", data)
    return content.getvalue()


def write_settings(system: Installation, **sections: Any) -> None:
    """Write zenml.yaml for worker and service, with sections changed."""
    registry = {"tracking_uri": system.mlflow, "artifacts": "mlflow-artifacts:/"}
    text = yaml.safe_dump(system.settings | {"registry": registry} | sections)
    for process in ("worker", "service"):
        (system.folder / process / "zenml.yaml").write_text(text, encoding="utf-8")


def _prepare(folder: Path, cluster: Cluster) -> Installation:
    """Folders, database with passwords, settings, an environment for each process."""
    for process, uid in UIDS.items():
        home = folder / process
        home.mkdir(mode=0o700)
        os.chown(home, uid, GROUP if process in {"worker", "service"} else uid)
    objects, inbox = folder / "objects", folder / "inbox"
    for shared, group, mode in ((objects, GROUP, 0o2775), (inbox, UIDS["site"], 0o1770)):
        shared.mkdir()
        os.chown(shared, UIDS["worker"], group)
        shared.chmod(mode)
    write_tiny_llama(folder / "model")
    for file in (folder / "model").iterdir():
        file.chmod(0o644)
    cluster.folder.chmod(0o755)  # its socket is for everybody, who then needs a password
    database = cluster.new(TEMPLATE)
    cluster.execute(privileges.script(), database)
    passwords = {account: secrets.token_urlsafe(16) for account in (*privileges.ACCOUNTS, "mlflow")}
    for account in privileges.ACCOUNTS:
        cluster.execute(f"ALTER ROLE lcia_{account} PASSWORD '{passwords[account]}'")
    _need_passwords(cluster)
    settings = SETTINGS | {
        "base_model": {"name": str(folder / "model"), "device": "cpu", "threads": 1},
        "storage": {"objects": f"file://{objects}"},
        "inbox": {"url": str(inbox), "quiet_seconds": 0},
    }
    environments = {}
    for process in UIDS:
        url = {"worker": "worker", "service": "service"}.get(process)
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder / process), "OMP_NUM_THREADS": "1",
            "LCIA_HOME": str(folder / process / "home"), "ZENML_CONFIG_PATH": str(folder / process / "zenml"),
        }  # fmt: skip
        if url:
            environment |= {"LCIA__STORAGE__DATABASE": cluster.url(database, f"lcia_{url}")}
        environments[process] = environment
    system = Installation(folder, cluster, database, passwords, environments, settings)
    for process in ("worker", "service"):
        (folder / process / "pgpass").write_text(
            "".join(f"*:*:*:lcia_{one}:{passwords[one]}\n" for one in ACCOUNTS_OF[process]), encoding="utf-8"
        )
        (folder / process / "pgpass").chmod(0o600)
        os.chown(folder / process / "pgpass", UIDS[process], GROUP)
        environments[process]["PGPASSFILE"] = str(folder / process / "pgpass")
    environments["service"] |= {
        "LCIA__STORAGE__PROMOTER": cluster.url(database, "lcia_promoter"),
        "LCIA_SESSION_SECRET": secrets.token_urlsafe(32),
    }
    return system


ACCOUNTS_OF = {"worker": ("worker",), "service": ("service", "promoter")}
"""Process -> accounts of the database whose passwords it holds."""


def _need_passwords(cluster: Cluster) -> None:
    """Everybody signs in with a password; root alone is the owner."""
    data = cluster.folder / "data"
    (data / "pg_ident.conf").write_text("owner root postgres\n", encoding="utf-8")
    rules = "local all postgres peer map=owner\nlocal all all scram-sha-256\n"
    (data / "pg_hba.conf").write_text(rules, encoding="utf-8")
    cluster.execute("SELECT pg_reload_conf()")


def _mlflow_user(name: str, password: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}


def _start_mlflow(system: Installation) -> "subprocess.Popen[str]":
    """MLflow with accounts, as its own user; returns when it answers."""
    folder = system.folder / "mlflow"
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 60\n",
        encoding="utf-8",
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    system.mlflow = f"http://127.0.0.1:{port}"
    environment = system.environments["mlflow"] | {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_AUTH_ADMIN_PASSWORD": system.passwords["mlflow"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }  # fmt: skip
    process = subprocess.Popen(
        [*as_user("mlflow"), sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port),
         "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts"),
         "--app-name", "basic-auth"],
        cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=(system.folder / "mlflow.log").open("w", encoding="utf-8"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{system.mlflow}/health", timeout=5):
            return process
        time.sleep(0.2)
    raise RuntimeError((system.folder / "mlflow.log").read_text(encoding="utf-8"))


def _people(system: Installation) -> None:
    """Somebody for each role, each with a token that was made on the service's machine."""
    for person, (role, site) in PEOPLE.items():
        for operation, told in (("add-person", {}), ("grant", {"role": role, "site": site})):
            _need(system.ask("root", operation, person=person, **told))
        said = system.command("service", "tokens", "create", person, "--label", "attacks", "--json")
        system.tokens[person] = json.loads(said.stdout)["token"]


PEOPLE = {
    "sam": ("submitter", "*"), "ann": ("approver", "*"), "ben": ("approver", "*"), "wes": ("approver", "writing"),
    "tom": ("auditor", "*"), "ada": ("admin", "*"),
}  # fmt: skip
"""Name -> role, and the site where it holds; with the second admin one alone appoints nobody any more."""


def _learn(system: Installation) -> None:
    """Learn the tasks one after another; the last waits for people."""
    for task in TASKS:
        _need(system.submit("sam", packed(files_of(task))))
        done = system.command("worker", "work")
        if done.returncode not in (0, 3):
            raise RuntimeError(done.stdout + done.stderr)
        if task != TASKS[-1]:
            number = str(TASKS.index(task) + 1)
            _need(system.ask("ann", "approve", version=number, reason="read the evidence"))


def _need(answer: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    status, value = answer
    if status != 200:
        raise RuntimeError(f"{status}: {value}")
    return value
