"""Rules, dashboard and runbook speak of the metrics that the service and the gateways really print."""

import json
import re
from pathlib import Path

import yaml

from components.settings import Settings, StorageSettings
from components.storage import leases
from lcia import server
from lcia.gateway.measures import Meter
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


def _of_gateways() -> set[str]:
    """Names of the samples on the page of a gateway that has answered one request and failed at another."""
    measures = Meter()
    measures.count_answer("g1", "router", seconds=0.2, first=0.1, prompt=9, output=3)
    measures.count_failure(None, "error")
    page = measures.page(running=1, ready=True, version=3, target=3).decode()
    return set(re.findall(r"^(lcia_gateway_\w+)[{ ]", page, re.MULTILINE))


def test_a_gateway_counts_what_rules_and_autoscaler_read() -> None:
    assert {"lcia_gateway_ready", "lcia_gateway_running", "lcia_gateway_request_seconds_bucket"} <= _of_gateways()
    measures = Meter()
    measures.count_failure("g1", "error")
    measures.count_answer("g1", "router", seconds=0.2, first=None, prompt=9, output=0)
    page = measures.page(running=2, ready=False, version=None, target=3).decode()
    for sample in (
        'lcia_gateway_requests_total{group="g1",outcome="error"} 1.0',
        'lcia_gateway_requests_total{group="g1",outcome="ok"} 1.0',
        'lcia_gateway_request_seconds_bucket{le="0.2"} 1.0',
        "lcia_gateway_running 2.0",
        "lcia_gateway_ready 0.0",
    ):
        assert sample in page


def test_every_metric_of_rules_and_dashboard_is_printed(tmp_path: Path) -> None:
    printed = _printed(tmp_path) | _of_gateways()
    dashboard = json.loads((ROOT / "infra/monitoring/dashboard.json").read_text())
    asked = [rule["expr"] for rule in RULES]
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert {name for expr in asked for name in NAMES.findall(expr)} <= printed


def test_every_alert_has_its_page_of_the_runbook() -> None:
    sections = set(re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE))
    assert sections == {rule["alert"] for rule in RULES}
