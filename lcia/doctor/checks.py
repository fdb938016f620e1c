"""Doctor: examines an installation and its state, and gives advice for each problem.

Each check gives findings of ok, warning or problem. Nothing is made or mended; a check that can't be made is a problem.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from components.errors import LciaError
from lcia import failures
from lcia.doctor import installation, packages, services, state
from lcia.doctor.findings import Finding, Installation


def examine(subject: Installation, *, quick: bool = False) -> list[Finding]:
    """Findings of every check, in order; `quick` neither loads the model nor asks MLflow and ZenML."""
    checks: list[tuple[str, Callable[[Installation], Iterator[Finding]]]] = [
        ("python", installation.check_python),
        ("libraries", installation.check_libraries),
        ("settings", installation.check_settings),
        ("disk", installation.check_disk),
        ("permissions", installation.check_permissions),
        ("database", state.check_database),
        ("accounts", state.check_accounts),
        ("log", state.check_log),
        ("leases", state.check_leases),
        ("rounds", state.check_rounds),
        ("store", state.check_store),
        ("parser", packages.check_parser),
        ("inbox", packages.check_inboxes),
    ]
    if not quick:
        checks += [("model", state.check_model), ("mlflow", services.check_mlflow), ("zenml", services.check_zenml)]
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings += check(subject)
        except LciaError as error:
            findings.append(Finding(name, "problem", str(error), "mend what it names, then run `lcia doctor` again"))
        except Exception as error:  # noqa: BLE001 - a broken check is a finding too
            advice = "mend what it names, then run `lcia doctor` again; report it if it stays"
            findings.append(Finding(name, "problem", failures.explain(error), advice))
    return findings


def report(findings: list[Finding]) -> dict[str, Any]:
    """Findings as plain data; `ok` is false if there is a problem."""
    counts = {verdict: sum(one.verdict == verdict for one in findings) for verdict in ("ok", "warning", "problem")}
    return {"ok": not counts["problem"], "counts": counts, "findings": [asdict(one) for one in findings]}
