"""Every alert rule as Prometheus itself evaluates it: silent before its time, firing after, silent again when mended.

`promtool` comes with Debian's package `prometheus`; PROMTOOL names another place.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

RULES = Path(__file__).parents[2] / "infra/monitoring/rules.yaml"
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed")
DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Case:
    """Series, one value a minute; minutes at which the alert is silent and at which it fires."""

    alert: str
    series: dict[str, str]
    silent: tuple[int, ...]
    firing: tuple[int, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


UP, JOB = 'up{job="lcia", instance="service:8600"}', (("job", "lcia"),)
WHERE = (*JOB, ("instance", "service:8600"))
SUBMITTED, FAILED = 'lcia_tasks{state="submitted"}', 'lcia_tasks{state="failed"}'
LOST, SILENT = 'lcia_lease_lost{name="lineage:a"}', 'lcia_lease_silent_seconds{name="lineage:a"}'
DONE = 'lcia_rounds_total{round="mlflow",outcome="ok"}'
OLDEST, UNTOLD = "lcia_candidate_oldest_seconds", "lcia_outbox_pending"
READY, POD = 'lcia_gateway_ready{pod="gateway-1"}', (("pod", "gateway-1"),)
RUNNING = 'lcia_gateway_running{pod="gateway-1"}'
OK, ERROR, REFUSED = (
    f'lcia_gateway_requests_total{{group="g1",outcome="{outcome}",pod="gateway-1"}}'
    for outcome in ("ok", "error", "refused")
)
FAST, ALL, EVERY = (f'lcia_gateway_request_seconds_bucket{{le="{le}"}}' for le in ("20.0", "60.0", "+Inf"))
CASES = (
    Case("LciaServiceDown", {UP: "1x4 0x9 1x9"}, (0, 4, 9, 15), (10, 14), WHERE),
    Case("LciaServiceDown", {UP: "1x4 0x3 1x20"}, (5, 8, 12, 20)),
    Case("LciaServiceDown", {"up{job='other'}": "1x30"}, (4,), (6, 30), JOB),  # nobody asks it
    Case("LciaWorkerLost", {LOST: "0x4 1x29 0x9"}, (0, 19, 35), (20, 34)),
    Case("LciaWorkerLost", {LOST: "1x30", 'lcia_lease_lost{name="b"}': "0x30"}, (14,), (15,)),
    Case("LciaWorkerLost", {LOST: "1x9 0 1x9 0 1x9"}, (9, 20, 29)),  # another took over each time
    Case("LciaTasksNotTaken", {SUBMITTED: "0x4 2x39 0x9"}, (0, 34, 45), (35, 44)),
    Case("LciaTasksNotTaken", {SUBMITTED: "3x60", SILENT: "15x60"}, (30, 60)),  # one waits, another is worked on
    Case("LciaTasksNotTaken", {SUBMITTED: "3x90", SILENT: "15x20 75+60x70"}, (50,), (60, 90)),
    Case("LciaTaskFailed", {FAILED: "0x4 1x9 0x9"}, (4, 9, 15), (10, 14)),
    Case("LciaTaskFailed", {SUBMITTED: "5x20", FAILED: "0x20"}, (20,)),
    Case("LciaCandidateWaits", {OLDEST: f"{3 * DAY - 600}+60x19 0x5"}, (0, 10, 21), (11, 19)),
    Case("LciaMlflowBehind", {UNTOLD: "0x4 2x69 0x9"}, (0, 64, 75), (65, 74)),
    Case("LciaMlflowBehind", {UNTOLD: "1x50 0 1x50"}, (50, 60, 100)),
    Case("LciaRoundFails", {DONE: "0+2x30 60x60"}, (1, 44, 59), (60, 80), (("round", "mlflow"),)),
    Case("LciaRoundFails", {DONE: "0+2x90", 'lcia_rounds_total{round="mlflow",outcome="failed"}': "7x90"}, (30, 90)),
    Case("LciaChampionNotServed", {"lcia_champion_served": "1x4 0x39 1x9"}, (0, 34, 50), (35, 44)),
    Case("LciaGatewayDiffers", {"lcia_replicas_differ_seconds": "0x4 30+60x9 0x9"}, (0, 8, 15), (9, 14)),
    Case("LciaGatewaysSilent", {"lcia_replicas": "3x4 0x19 2x9"}, (0, 4, 9, 25), (10, 24)),
    Case("LciaGatewaysSilent", {"lcia_replicas": "0x30"}, (5, 30)),  # there never was one
    Case("LciaGatewayNotReady", {READY: "1x4 0x9 1x9"}, (0, 4, 9, 15), (10, 14), POD),
    Case("LciaGatewayNotReady", {READY: "0x3 1x20"}, (3, 20), (), POD),  # it was loading
    Case("LciaGatewayErrors", {OK: "0+95x60", ERROR: "0x20 0+10x19 190x20"}, (20, 26, 60), (33, 40)),
    Case("LciaGatewayErrors", {OK: "0+97x60", ERROR: "0+3x60", REFUSED: "0+500x60"}, (30, 60)),
    Case("LciaGatewayErrors", {ERROR: "0+1x30"}, (1, 5), (10, 30)),  # and nothing is answered
    Case("LciaGatewayAnswersNothing", {RUNNING: "0x4 3x29 0x9", OK: "7x60"}, (4, 14, 35, 43), (15, 34)),
    Case("LciaGatewayAnswersNothing", {RUNNING: "3x60", OK: "0+1x60"}, (30, 60)),
    Case("LciaGatewayAnswersNothing", {ERROR: "0+5x40", OK: "0+1x9 10x30"}, (9, 28), (35, 40)),
    Case("LciaGatewayAnswersNothing", {RUNNING: "0x40", REFUSED: "0+9x40"}, (40,)),  # callers' mistakes
    Case("LciaGatewaySlow", {FAST: "0+98x60", ALL: "0+100x60", EVERY: "0+100x60"}, (1, 15), (20, 60)),
    Case("LciaGatewaySlow", {FAST: "0+100x60", ALL: "0+100x60", EVERY: "0+100x60"}, (30, 60)),
    Case("LciaGatewaySlow", {FAST: "100x60", ALL: "100x60", EVERY: "100x60"}, (30, 60)),  # nobody asks
)


def _rules() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}


def _promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, check=False)


def _evaluate(folder: Path, rules: dict[str, dict[str, Any]], cases: tuple[Case, ...]) -> tuple[int, str]:
    """Exit code and output of Prometheus's unit tests; what is expected is told by rules.yaml as it is."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "lcia", "rules": list(rules.values())}]}))
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
            "alert_rule_test": [
                {"eval_time": f"{minute}m", "alertname": case.alert, "exp_alerts": _expected(case, minute)}
                for minute in (*case.silent, *case.firing)
            ],
        }
        for case in cases
    ]
    told = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "tests.yaml").write_text(yaml.safe_dump(told))
    done = _promtool("test", "rules", folder / "tests.yaml")
    return done.returncode, done.stdout + done.stderr


def _expected(case: Case, minute: int) -> list[dict[str, Any]]:
    rule = _rules()[case.alert]
    alert = {"exp_labels": {**rule["labels"], **dict(case.labels)}, "exp_annotations": rule["annotations"]}
    return [alert] if minute in case.firing else []


def test_prometheus_takes_the_rules() -> None:
    done = _promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stderr
    assert f"{len(_rules())} rules found" in done.stdout


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    assert {case.alert for case in CASES if case.firing and case.silent} == _rules().keys()
    code, out = _evaluate(tmp_path, _rules(), CASES)
    assert code == 0, out


@pytest.mark.parametrize("alert", sorted(_rules()))
@pytest.mark.parametrize("change", [{"expr": "vector(0) > 0"}, {"expr": "vector(1)"}, {"for": "7d"}, {"for": "0m"}])
def test_a_rule_that_is_broken_is_found(alert: str, change: dict[str, str], tmp_path: Path) -> None:
    rules = _rules()
    if change == {"for": "0m"} and "for" not in rules[alert]:
        change = {"expr": rules[alert]["expr"].replace(">", ">=")}  # its time is in the expression
    its = tuple(case for case in CASES if case.alert == alert)
    code, _ = _evaluate(tmp_path, {alert: rules[alert] | change}, its)
    assert code == 1
