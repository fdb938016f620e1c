"""A whole small installation: PostgreSQL if there is one, MLflow, the service, gateways; each process can be killed.

Three tasks are learnt and promoted on a tiny random base model, whose answers are no good and quick. It is a base
model that vLLM takes too.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gateway.load import FAILURES, Client, Reply, wait_for
from components.audit.log import SYSTEM, Actor
from components.identity import people, tokens
from components.promotion.champion import RollbackRefused
from lcia.instance import Instance
from lcia.operations import decisions
from tests.support.mlflow_server import MlflowServer
from tests.support.private_postgresql import Cluster, PostgresqlMissing, running
from tests.support.small_loop import SmallLoop, learn, promote, write_loop
from tests.support.tiny_models import write_tiny_llama

ROOT = Path(__file__).parents[2]
TASKS = ("movie_sentiment", "product_sentiment", "passive_voice")
HEAD = 32
"""Width of the tiny model's heads; vLLM on CPUs takes no less."""
RATE = "1000000/minute"
"""Limit of requests that no client here meets."""
START_SECONDS = 240
PERSONS = {"gateway": "serve", "application": "answer", "engineer": "engineer", "ada": "approver"}
ADA = Actor("ada", assured=True, how="benchmark")
"""Somebody who decides."""


class Program:
    """An `lcia` process, started, killed and started again at will, always at the same address."""

    def __init__(self, folder: Path, name: str, argv: list[str], section: str, environment: Mapping[str, str]) -> None:
        self._log = folder / f"{name}.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        self.address = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "lcia.cli.main", *argv]
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
        self._environment[f"LCIA__{section.upper()}__PORT"] = str(port)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the process so far."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def begin(self) -> None:
        """Start it without waiting."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """End it as a machine that loses its power does."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def answers(self, path: str) -> bool:
        """True if it answers a path with status 200."""
        client = Client(self.address)
        try:
            return client.send(path)[0] == 200
        except FAILURES:
            return False
        finally:
            client.close()

    def wait(self, path: str) -> None:
        """Wait until it does.

        Raises:
            RuntimeError: it did not within the time given; the message holds the end of its log.
        """
        if not wait_for(lambda: self.answers(path), START_SECONDS, pause=0.2):
            raise RuntimeError(self._log.read_text(encoding="utf-8", errors="replace")[-4000:])


@dataclass
class Installation:
    """The parts that run, and what is needed to decide and to ask."""

    folder: Path
    loop: SmallLoop
    cluster: Cluster | None
    mlflow: MlflowServer
    service: Program
    tokens: dict[str, str] = field(default_factory=dict)
    gateways: list[Program] = field(default_factory=list)

    def open(self) -> Instance:
        """The state, as the command line opens it."""
        return self.loop.open()

    def gateway(self, name: str, **settings: Any) -> Program:
        """A gateway that follows the service, with a home of its own, begun; it is ended with the installation."""
        name = f"{name}-{len(self.gateways)}"
        home = self.folder / name
        home.mkdir()
        sections = {"rate": RATE, **settings}
        environment = {
            "LCIA_HOME": str(home),
            "LCIA_SERVER": self.service.address,
            "LCIA_TOKEN": self.tokens["gateway"],
            "LCIA_GATEWAY_SECRET": "s" * 40,
            "LCIA__AUDIT__PUBLIC_KEY": str(self.loop.home / "keys" / "audit-key.pub.pem"),
            **{f"LCIA__GATEWAY__{key.upper()}": json.dumps(value) for key, value in sections.items()},
        }
        program = Program(self.folder, name, ["gateway", "--config", str(self.loop.config)], "gateway", environment)
        program.begin()
        self.gateways.append(program)
        return program

    def questions(self) -> list[dict[str, Any]]:
        """Every test row as a request, without a word about its task."""
        return questions(self.loop)

    def expected(self, bodies: list[dict[str, Any]], numbers: tuple[int, ...], address: str) -> dict[str, list[str]]:
        """Answer of each version to each question, asked one after another for that very version."""
        client = Client(address, self.tokens["engineer"])
        answers = {}
        for number in numbers:
            replies = [client.ask(n, {**body, "model": f"assistant@{number}"}) for n, body in enumerate(bodies)]
            answers[str(number)] = [_need(reply).text for reply in replies]
        client.close()
        return answers


def questions(loop: SmallLoop) -> list[dict[str, Any]]:
    """Every test row of a loop's packages as a request."""
    return [body_of(row) for task in TASKS for row in rows_of(loop.package(task))]


def body_of(row: Mapping[str, str], model: str = "assistant") -> dict[str, Any]:
    """A row of a package as a request."""
    text = f"{row['instruction']}\n{row['input']}" if row.get("input") else row["instruction"]
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def rows_of(package: Path) -> list[dict[str, str]]:
    """Test rows of a package."""
    return [json.loads(line) for line in (package / "test.jsonl").read_text(encoding="utf-8").splitlines()]


def decide(instance: Instance, number: int) -> None:
    """Roll back to a version, or approve one that was rolled away from; signed at once."""
    try:
        decisions.rollback(instance, str(number), ADA, "it was better")
    except RollbackRefused:
        decisions.approve(instance, str(number), ADA, "it is better after all")


def served(address: str) -> int | None:
    """Number of the version that a gateway serves."""
    return state_of(address)["serves"]


def state_of(address: str) -> dict[str, Any]:
    """State that a gateway tells of itself.

    Raises:
        OSError, HTTPException: it does not answer.
    """
    client = Client(address)
    try:
        value: dict[str, Any] = json.loads(client.send("/health/ready")[2])
        return value
    finally:
        client.close()


@contextmanager
def installation(folder: Path) -> Iterator[Installation]:
    """Everything but gateways, running; three versions were promoted. All of it ends with the block."""
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(running(synchronous_commit="on"))  # its own end must lose no decision
        except PostgresqlMissing as error:
            print(f"SQLite instead of PostgreSQL: {error}")
            cluster = None
        empty = folder / "empty.db"
        empty.touch()
        (folder / "mlflow").mkdir()
        mlflow = MlflowServer(folder / "mlflow", empty)
        stack.callback(mlflow.kill)
        mlflow.start()
        loop = _loop(folder, cluster, mlflow)
        instance = loop.open()
        for task in TASKS:
            learn(instance, loop.package(task))
            promote(instance)
        environment = {"LCIA_HOME": str(loop.home), "LCIA_SESSION_SECRET": secrets.token_hex(20)}
        service = Program(folder, "service", ["serve", "--config", str(loop.config)], "serve", environment)
        stack.callback(service.kill)
        made = Installation(folder, loop, cluster, mlflow, service)
        for person, role in PERSONS.items():
            made.tokens[person] = _token(instance, person, role)
        service.begin()
        service.wait("/health")
        try:
            yield made
        finally:
            for gateway in made.gateways:
                gateway.kill()


def _loop(folder: Path, cluster: Cluster | None, mlflow: MlflowServer) -> SmallLoop:
    """Settings and packages on the tiny model, the database and MLflow."""
    write_tiny_llama(folder / "model", HEAD)
    loop = write_loop(folder, folder / "model")
    settings = yaml.safe_load(loop.config.read_text(encoding="utf-8"))
    settings["registry"] = {"tracking_uri": mlflow.address, "artifacts": "mlflow-artifacts:/"}
    settings["serve"] = {"rate": RATE}
    if cluster is not None:
        settings["storage"] = {"database": cluster.url(cluster.new())}
    loop.config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return loop


def _token(instance: Instance, person: str, role: str) -> str:
    with instance.db.begin() as connection:
        people.add(connection, person, actor=SYSTEM)
        people.grant(connection, person, role, actor=SYSTEM)
        own = Actor(person, assured=True, how="benchmark")
        return tokens.create(connection, person, "benchmark", timedelta(days=1), actor=own)[1]


def _need(reply: Reply) -> Reply:
    if not reply.ok:
        raise RuntimeError(f"{reply.address} answers {reply.status}: {reply.text}")
    return reply
