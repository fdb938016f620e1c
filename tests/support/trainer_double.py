"""A double of Kubeflow Trainer: an API server for TrainJobs that starts each node's torchrun on this machine."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import yaml

SPEC = json.loads(Path(__file__).with_name("trainjob-spec.json").read_text(encoding="utf-8"))
COLLECTION = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/lcia-runs/trainjobs"


def validate(job: dict[str, Any]) -> None:
    """As the cluster would: unknown fields are errors."""
    jsonschema.validate(job["spec"], SPEC)


@dataclass
class Trainer:
    """TrainJobs by name, with the processes of their nodes."""

    refuse: int = 0
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    nodes: dict[str, list[subprocess.Popen[bytes]]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def make(self, job: dict[str, Any]) -> None:
        validate(job)
        name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable if word == "python" else word for word in (*trainer["command"], *trainer["args"])]
        told = {each["name"]: each["value"] for each in trainer["env"] if each["name"] != "HOME"}
        told |= {"PET_NNODES": str(trainer["numNodes"]), "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"])}
        told |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        self.jobs[name] = {**job, "status": {}}
        self.nodes[name] = [
            subprocess.Popen(command, env={**os.environ, **told, "PET_NODE_RANK": str(number)})
            for number in range(trainer["numNodes"])
        ]

    def look(self, name: str) -> dict[str, Any] | None:
        if name not in self.jobs:
            return None
        codes = [node.poll() for node in self.nodes.get(name, ())]
        ended = "Failed" if any(codes) else "Complete" if all(code == 0 for code in codes) else None
        conditions = [{"type": ended, "status": "True"}] if ended else []
        return {**self.jobs[name], "status": {"conditions": conditions}}

    def remove(self, name: str) -> None:
        self.jobs.pop(name)
        for node in self.nodes.pop(name, ()):
            node.terminate()
            node.wait()

    def kubeconfig(self, file: Path) -> Path:
        cluster = {"name": "double", "cluster": {"server": self.url}}
        user = {"name": "trainer", "user": {"token": "of-this-test"}}
        context = {"name": "double", "context": {"cluster": "double", "user": "trainer"}}
        told = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "users": [user], "contexts": [context]}
        file.write_text(yaml.safe_dump(told))
        return file


@contextmanager
def serving(trainer: Trainer) -> Iterator[Trainer]:
    """Answer at `trainer.url` within the block; what still runs then is ended."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: dict[str, Any] | None) -> None:
            content = json.dumps(body or {"kind": "Status", "code": status}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def handle_any(self) -> None:
            name = self.path.partition("?")[0].removeprefix(COLLECTION).strip("/")
            trainer.asked.append((self.command, name))
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if trainer.refuse:
                self.answer(trainer.refuse, None)
            elif self.command == "POST":
                trainer.make(body)
                self.answer(201, trainer.look(body["metadata"]["name"]))
            elif (found := trainer.look(name)) is None:
                self.answer(404, None)
            else:
                if self.command == "DELETE":
                    trainer.remove(name)
                self.answer(200, found)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    trainer.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield trainer
    finally:
        server.shutdown()
        for name in list(trainer.jobs):
            trainer.remove(name)
