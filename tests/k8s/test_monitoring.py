"""Rules, dashboard and runbook speak of the metrics that the service really prints."""

import json
import re
from pathlib import Path

import yaml

from components.settings import Settings, StorageSettings
from components.storage import leases
from lcia import server
from lcia.instance import Instance
from lcia.service import metrics
from lcia.worker.rounds import Rounds

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "infra/monitoring/rules.yaml").read_text())["groups"][0]["rules"]
NAMES = re.compile(r"\blcia_\w+")


def _printed(tmp_path: Path) -> set[str]:
    storage = StorageSettings(database=f"sqlite:///{tmp_path}/lcia.db", objects=f"file://{tmp_path}/objects")
    instance = Instance.open(tmp_path, Settings(storage=storage))
    leases.acquire(instance.db, "lineage:assistant", leases.process_owner("worker"), 60)
    rounds = Rounds(instance.db, tmp_path, "service", 30, server.ROUNDS)
    rounds.run("mlflow", lambda: None)
    page = metrics.page(instance, rounds)
    samples = [line for line in page.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?\d+', line) for line in samples)
    assert 'lcia_lease_lost{name="lineage:assistant"} 0' in samples
    return set(re.findall(r"^# TYPE (\w+) (?:gauge|counter)$", page, re.MULTILINE))


def test_every_metric_of_rules_and_dashboard_is_printed(tmp_path: Path) -> None:
    printed = _printed(tmp_path)
    dashboard = json.loads((ROOT / "infra/monitoring/dashboard.json").read_text())
    asked = [rule["expr"] for rule in RULES]
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert {name for expr in asked for name in NAMES.findall(expr)} <= printed


def test_every_alert_has_its_page_of_the_runbook() -> None:
    sections = set(re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE))
    assert sections == {rule["alert"] for rule in RULES}
