"""A real state database and object store with candidates whose evidence is whole."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.audit.log import Actor
from components.gate.attempts import Family, attempts
from components.promotion import candidates
from components.promotion.candidates import Candidate
from components.registry.registry import Registry
from components.settings import PolicySettings
from components.storage.database import Database
from components.storage.objects import ObjectStore
from components.tasks import queue

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SITE = Actor("site", assured=False)
BOB = Actor("bob", assured=True, how="console")
CAROL = Actor("carol", assured=True, how="console")


@dataclass
class State:
    """The state folder of one test."""

    folder: Path
    db: Database
    store: ObjectStore

    def candidate(
        self,
        name: str,
        parent: str | None,
        verdict: str = "pass",
        launched_by: str = "lena",
        marks=(),
        rows=(),
        owner: str = "team",
    ) -> Candidate:
        """Register a candidate for task `name` on `parent`, with every object it needs."""
        store = self.store
        adapter = self.folder / "adapters" / f"{name}-{parent}-{verdict}"
        adapter.mkdir(parents=True, exist_ok=True)
        (adapter / "adapter.bin").write_bytes(f"weights of {name} on {parent} {verdict}".encode())
        (adapter / "adapter_config.json").write_text("{}")
        folder = store.put_folder(adapter)
        task = store.put_json({"kind": "task", "name": name})
        manifest = {
            "kind": "pool",
            "schema": 1,
            "assistant": "a",
            "parents": [] if parent is None else [parent],
            "task": task,
            "config": store.put_json({"policy": PolicySettings().model_dump(mode="json")}),
            "groups": [{"id": "g1", "adapter": folder, "curvature": store.put(b"curvature"), "tasks": []}],
        }
        digest = store.put_json(manifest)
        report = store.put(f"<p>{name} {verdict}</p>".encode())
        evidence = {
            "kind": "evidence",
            "schema": 1,
            "candidate": digest,
            "task": task,
            "parent": parent,
            "assessment": store.put_json({"kind": "assessment"}),
            "tuning": store.put_json({"kind": "tuning"}),
            "evaluation": store.put_json({"kind": "evaluation"}),
            "gate": store.put_json({"kind": "gate", "verdict": verdict, "rows": list(rows)}),
            "reports": {"gate": report},
        }
        with self.db.begin() as connection:
            item = queue.submit(
                connection,
                assistant="a",
                package=task,
                task=task,
                name=name,
                version="1",
                owner=owner,
                submitted_by=SITE,
            )
            for state in ["assessing", "learning", "candidate"]:
                queue.move(connection, None, item.id, state, "test", launched_by=launched_by)
            attempt = attempts(connection, Family("a", name, owner), 90) + 1
            return candidates.register(
                connection,
                None,
                attempt=attempt,
                assistant="a",
                digest=digest,
                task=task,
                task_name=f"{name}@1",
                parent=parent,
                evidence=store.put_json(evidence),
                verdict=verdict,
                submitted_by="site",
                launched_by=launched_by,
                item=item.id,
                marks=list(marks),
                publication={
                    "params": {"steps": 120},
                    "metrics": {"new_acc": 0.75},
                    "description": f"learnt {name}",
                    "files": {"assistant/manifest.json": digest, "reports/gate.html": report},
                    "folders": {"assistant/adapters/g1": folder},
                },
            )

    def damage(self, digest: str) -> None:
        """Change one byte of a stored object."""
        path = self.folder / "objects" / "sha256" / digest[:2] / digest
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))


def new_state(folder: Path) -> State:
    """An empty state folder with its tables."""
    db = Database(f"sqlite:///{folder}/state.db")
    db.migrate()
    return State(folder, db, ObjectStore(f"file://{folder}/objects"))


def client(registry: Registry) -> "MlflowClient":
    """MLflow as people's own programs see it."""
    with registry._talk() as found:
        return found
