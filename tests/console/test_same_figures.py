"""Every figure that appears in two places is one figure: operations, command line, pages, MLflow and reports agree.

On a state where they are tempted to differ: the newest task's rows are erased, an earlier task is replaced, sites have
quorums of their own, approvals do not count, and another task changed the predictions of its group.
"""

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from small_loop import OPS, Learnt, SmallLoop, learn, promote, write_package
from small_service import Server, served_loop

from components.audit.log import Actor
from components.promotion import champion, quorum
from components.registry.client import connect
from lcia.cli.text import status as status_text
from lcia.cli.text import tables
from lcia.cli.text import versions as text
from lcia.operations import decisions, retention, tasks
from tests.console.conftest import Visitor, words

FORGETFUL = ("tuning.learning_rate=0.5", "tuning.ema.rule=none", "tuning.steps=12")
"""Settings with which a task changes the predictions of its group."""
QUORUM = (
    "policy.approval.quorum=3",
    "policy.approval.override_quorum=3",
    'policy.approval.sites={"south": {"quorum": 2, "required_roles": ["auditor"]}, "writing": {"quorum": 1}}',
)
NUMBER = r"([+\-\u2212]?\d*\.?\d+|\u2013|n/a|not measurable|-(?= |$))"
MEANS = {"avg_acc": "Avg.ACC", "new_acc": "New.ACC", "bwt": "BWT", "forgetting": "Forgetting"}

VOID = r"approved (\w+), (?:(?! approved ).)*? does not count ([\w ]+?)(?: Revoke| approved|$| \d)"
"""On a page: the giver of an approval that does not count, and why."""

Faces = dict[str, dict[str, Any]]
"""Figure -> face -> value."""


@pytest.fixture(scope="module")
def waiting(learnt: Learnt, tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    """Three champions, the first task replaced by the second, and version 4 of another site that waits."""
    loop = learnt.loop.copy(tmp_path_factory.mktemp("waiting"))
    instance = loop.open(*FORGETFUL)
    tasks.supersede(instance, OPS, "movie_sentiment@1", "product_sentiment@1", "newer reviews")
    package = write_package(
        loop.packages / "more", "product_sentiment", 40, version="2", owner="south",
        retention={"train_rows": 8, "evaluation_rows": False},
    )  # fmt: skip
    assert learn(instance, package)["state"] == "candidate"
    return loop


@pytest.fixture(scope="module")
def erased(waiting: SmallLoop, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Version 4 is the champion, and the rows of the task that it learnt are withdrawn."""
    loop = waiting.copy(tmp_path_factory.mktemp("erased"))
    instance = loop.open()
    promote(instance)
    retention.withdraw(instance, "product_sentiment@2", OPS, "no licence")
    return served_loop(loop)


@pytest.fixture
def undecided(waiting: SmallLoop, tmp_path: Path) -> Server:
    """Version 4 waits for approvals; sites have quorums and roles of their own."""
    return served_loop(waiting.copy(tmp_path), *QUORUM)


def test_means_and_scores_are_one_where_rows_were_erased(erased: Server) -> None:
    visitor, faces = Visitor(erased, "auditor"), Faces()
    for version in ("1", "2", "3", "4"):
        _means(erased, visitor, version, faces)
    _scores_of_champion(erased, visitor, faces)
    assert _differing(faces) == {}
    assert faces["bwt of 4"]["matrix"] not in (None, 0.0), "else nothing could differ"
    assert None in faces["score of product_sentiment@2"].values()
    assert erased.ask("auditor", "matrix").json()["superseded"] == {"movie_sentiment": "product_sentiment@1"}


def test_means_scores_and_margins_are_those_of_mlflow_and_the_reports(undecided: Server) -> None:
    visitor, faces = Visitor(undecided, "auditor"), Faces()
    _means(undecided, visitor, "4", faces)
    _report(visitor, faces)
    _gate(undecided, visitor, faces)
    _mlflow(undecided, faces)
    assert _differing(faces) == {}
    assert {"mlflow", "report", "page", "words"} <= set(faces["bwt of 4"])
    assert {"mlflow", "page"} <= set(faces["gate step product_sentiment"])


def test_changed_rows_are_counted_once(undecided: Server) -> None:
    visitor, faces = Visitor(undecided, "approver"), Faces()
    show, seen, diff = (
        undecided.ask("approver", *asked).json() if not params else undecided.ask("approver", *asked, **params).json()
        for asked, params in (
            (("show",), {"version": "4"}),
            (("flips",), {"version": "4"}),
            (("diff",), {"before": "3", "after": "4"}),
        )
    )
    page, compare = visitor.page("/versions/4/changed"), visitor.page("/compare?before=3&after=4")
    report = _text(visitor, "/versions/4/reports/evaluation")
    hidden = seen["held_back"] + seen["other_sites"]
    for kind, sign in (("lost", -1), ("won", 1)):
        row = faces.setdefault(kind, {})
        row["show"] = show["changed"][kind]
        row["flips"] = sum((one["score_after"] - one["score_before"]) * sign > 0 for one in seen["flips"])
        row["diff"] = sum(one[kind] for one in diff["scores"])
        row["page"] = int(_one(rf"(\d+) {kind}", page))
        row["words"] = int(_one(rf"changed answers: .*?(\d+) {kind}", text.show(show)))
        row["report"] = int(_one(rf"(\d+) {kind}", report))
    assert hidden == 0, "the reserve is open, and one site alone reads"
    for task in show["changed"]["tasks"]:
        row = next(one for one in diff["scores"] if one["task"] == task["task"])
        faces[f"changed {task['task']}"] = {
            "show": (task["lost"], task["won"]),
            "diff": (row["lost"], row["won"]),
            "compare": _pair(rf"{task['task']} .*? (\d+) (\d+) \d+ {task['rows']}(?: |$)", compare),
        }
    assert _differing(faces) == {}
    assert show["changed"]["lost"] > 0


@pytest.mark.parametrize("enforce", ["false", "true"])
def test_quorum_and_who_is_missing_are_one(waiting: SmallLoop, tmp_path: Path, enforce: str) -> None:
    server = served_loop(waiting.copy(tmp_path), *QUORUM, f"policy.gate.enforce={enforce}")
    spite = {"override": True} if enforce == "true" else {}
    server.person("elsewhere", "approver", site="north")
    server.person("sometimes", "approver", site="south")
    for name in ("approver", "sometimes"):
        assert server.ask(name, "approve", version="4", reason="read", **spite).status_code == 200, name
    server.ask("sometimes", "revoke", version="4", reason="once more")
    _quorum(server, given=1, needed=3 if spite else 2)
    server.ask("sometimes", "approve", version="4", reason="read", **spite)
    with server.instance.db.begin() as connection:
        from components.identity import people

        people.disable(connection, "sometimes", actor=OPS, reason="left")
    _quorum(server, given=1, needed=3 if spite else 2, void={"sometimes": "shut out"})


def test_each_site_of_a_version_that_was_rolled_away_from_has_its_quorum(learnt: Learnt, tmp_path: Path) -> None:
    server = served_loop(learnt.loop.copy(tmp_path), *QUORUM)
    decisions.rollback(server.instance, "1", OPS, "complaints")
    assert server.ask("approver", "approve", version="3", reason="read").status_code == 200
    faces = _quorum_faces(server, "3")
    assert _differing(faces) == {}
    assert {name: row["show"] for name, row in faces.items()} == {
        "quorum at reviews": (1, 3), "quorum at writing": (1, 1),
        "void": {"ops": "given before the champion was moved"},
    }  # fmt: skip


def test_counts_and_costs_are_one(erased: Server) -> None:
    visitor, faces = Visitor(erased, "auditor"), Faces()
    status, listed = erased.ask("auditor", "status").json(), erased.ask("auditor", "tasks").json()["tasks"]
    overview = visitor.page("/")
    for state, count in status["queue"].items():
        if state != "items" and count:
            shown = re.search(rf"(?:in use|withdrawn) {count}(?= |$)", overview)
            faces[f"tasks {state}"] = {
                "status": count,
                "tasks": sum(one["state"] == state for one in listed),
                "page": count if shown else overview,
            }
    show = erased.ask("auditor", "show", version="4").json()
    faces["tasks in use"] = {
        "status": len(status["champion"]["tasks"]),
        "show": sum(len(group["tasks"]) for group in show["groups"]),
        "matrix": len(show["matrix"]["tasks"]),
        "overview": int(_one(r"(\d+) tasks in 2 groups", overview)),
    }
    entries = erased.ask("auditor", "entries").json()["entries"]
    faces["log"] = {
        "status": erased.ask("auditor", "status").json()["audit"]["entries"],
        "entries": len(entries),
        "page": int(_one(r"(\d+) entries: everything", visitor.page("/log"))),
    }
    faces["versions"] = {
        "candidates": len(erased.ask("auditor", "candidates").json()["candidates"]),
        "page": visitor.get("/versions").text.count('name="v" value='),
    }
    sheet = {row["task"]: row for row in csv.DictReader(io.StringIO(visitor.get("/numbers.csv").text))}
    for one in listed:
        name, version = f"{one['name']}@{one['version']}", one["learnt_in"]
        spent = one["cost"]["actual"] if one["cost"] else None
        show = erased.ask("auditor", "show", version=str(version)).json()
        of_version = show["cost"]
        faces[f"cpu hours of {name}"] = {
            "tasks": round(spent["cpu_hours"], 9) if spent else None,
            "show": round(of_version["actual"]["cpu_hours"], 9) if of_version else None,
            "sheet": round(float(sheet[name]["cpu_hours"]), 9) if sheet[name]["cpu_hours"] else None,
        }
        took = r"Took (\d+) seconds"
        faces[f"seconds of {name}"] = {
            "tasks": round(spent["seconds"]) if spent else None,
            "task page": _maybe(took, visitor.page(f"/tasks/{one['id']}")),
            "version page": _maybe(took, visitor.page(f"/versions/{version}")),
            "words": _maybe(r"took (\d+) seconds", text.show(show)),
        }
    assert _differing(faces) == {}


def _means(server: Server, visitor: Visitor, version: str, faces: Faces) -> None:
    """Avg.ACC, New.ACC, BWT, Forgetting and every cell of a version's matrix, wherever they are shown."""
    matrix = server.ask("auditor", "matrix", version=version).json()
    show = server.ask("auditor", "show", version=version).json()
    page, said = visitor.page(f"/versions/{version}/matrix"), text.matrix(matrix)
    for name, label in MEANS.items():
        faces[f"{name} of {version}"] = {
            "matrix": _rounded(matrix[name]),
            "show": _rounded(show["matrix"][name]),
            "page": _number(_one(rf"{label} \? {NUMBER}", page)),
            "words": _number(_one(rf"{label}\s+{NUMBER}", said)),
        }
    cells = page.partition("As numbers")[2]
    for name, row in zip(matrix["tasks"], matrix["matrix"], strict=True):
        values = [_rounded(value) for value in row[: matrix["tasks"].index(name) + 1]]
        shown = re.findall(rf"(?<= ){NUMBER}(?= |$)", " " + _one(rf"{name} ((?:{NUMBER} ?)+)", cells))
        faces[f"row of {name} in {version}"] = {"matrix": values, "page": [_number(value) for value in shown]}
    now = matrix["matrix"][-1] if matrix["matrix"] else []
    earlier = dict(zip(matrix["tasks"], map(_rounded, now), strict=True))
    for task in show["earlier_tasks"]:
        faces[f"{task['task']} after {version}"] = {"matrix": earlier[task["task"]], "show": _rounded(task["after"])}


def _scores_of_champion(server: Server, visitor: Visitor, faces: Faces) -> None:
    """The champion's scores: lists, comparison, numbers and the overview."""
    matrix = server.ask("auditor", "matrix").json()
    listed = {f"{one['name']}@{one['version']}": one for one in server.ask("auditor", "tasks").json()["tasks"]}
    diff = {one["task"]: one for one in server.ask("auditor", "diff", before="3").json()["scores"]}
    sheet = {row["task"]: row for row in csv.DictReader(io.StringIO(visitor.get("/numbers.csv").text))}
    said = tables.tasks([*listed.values()], everything=True)
    for name, last in zip(matrix["tasks"], matrix["matrix"][-1], strict=True):
        label = name if "@" in name else f"{name}@1"
        row = faces.setdefault(f"score of {name}", {"matrix": _rounded(last)})
        row["tasks"], row["sheet"] = _rounded(listed[label]["score"]), _number(sheet[label]["score_now"] or "-")
        row["words"] = _number(_one(rf"{label} .*? g\d +\d +{NUMBER}", said))
        if name in diff:
            row["diff"] = _rounded(diff[name]["after"])
    points = visitor.page("/numbers")
    faces["avg_acc of 4"]["overview"] = _number(_one(rf"Mean score \? {NUMBER}", visitor.page("/")))
    faces["avg_acc of 4"]["numbers"] = round(float(_one(r"version in use is ([\d.]+) %", points)) / 100, 3)
    bwt = re.search(r"earlier tasks (lost|gained) ([\d.]+) % on average", points)
    faces["bwt of 4"]["numbers"] = bwt and _rounded(float(bwt[2]) / (-100 if bwt[1] == "lost" else 100))


def _report(visitor: Visitor, faces: Faces) -> None:
    """The stored evaluation report of version 4."""
    report = _text(visitor, "/versions/4/reports/evaluation")
    head = _one(rf"{' '.join(MEANS.values())} (.*?) Intervals", report)
    values = re.findall(r"([+-]?\d\.\d{3})(?: [+-]?\d\.\d{3} to [+-]?\d\.\d{3})?", head)
    for name, value in zip(MEANS, values, strict=True):
        faces[f"{name} of 4"]["report"] = _number(value)


def _gate(server: Server, visitor: Visitor, faces: Faces) -> None:
    """Losses and limits of the gate's rows, and how many tasks are what."""
    show = server.ask("auditor", "show", version="4").json()
    page = visitor.page("/versions/4")
    for row in show["gate"]["rows"]:
        if row["rule"] in ("step", "lifetime", "superseded", "unchanged") and row["value"] is not None:
            faces[f"gate {row['rule']} {row['task']}"] = {"show": _rounded(row["value"])}
    for task in show["earlier_tasks"]:
        if task["step"]:
            cells = _one(
                rf"Since first learnt .*?{task['task']} g\d (.*?) (?:product_|movie_|passive_|The other)", page
            )
            losses = [_number(cell) for cell in re.findall(r"(?<= )[\u2212-]?\d\.\d{3}(?= |$)", f" {cells} ")]
            face = faces[f"gate {task['step']['rule']} {task['task']}"]
            face["page"] = losses[2]
            faces[f"before of {task['task']}"] = {"show": _rounded(task["before"]), "page": losses[0]}
            faces[f"after of {task['task']}"] = {"show": _rounded(task["after"]), "page": losses[1]}
    verdicts = show["verdicts"]
    faces["inconclusive"] = {
        "show": (verdicts["inconclusive"], verdicts["all"]),
        "rows": (len({row["task"] for row in show["gate"]["rows"] if row["verdict"] == "inconclusive" and
                      row["rule"] in ("step", "lifetime")}), len(show["earlier_tasks"])),
        "page": tuple(map(int, re.findall(r"For (\d+) of (\d+) earlier tasks", page)[0])),
    }  # fmt: skip


def _mlflow(server: Server, faces: Faces) -> None:
    """Metrics and tags of version 4's run."""
    client = connect(server.instance.settings.registry.tracking_uri)
    offered = client.search_model_versions("name = 'assistant-candidates'")
    version = next(one for one in offered if one.tags["number"] == "4")
    metrics = client.get_run(version.run_id).data.metrics
    show = server.ask("auditor", "show", version="4").json()
    for name in MEANS:
        faces[f"{name} of 4"]["mlflow"] = _rounded(metrics[name])
    for figure in list(faces):
        kind, _, rest = figure.partition(" ")
        if kind == "gate":
            faces[figure]["mlflow"] = _rounded(metrics[f"gate/{rest.replace(' ', '/', 1)}"])
        elif figure.endswith(" after 4"):
            faces[figure]["mlflow"] = _rounded(metrics[f"acc/{kind}"])
    faces["verdict"] = {"mlflow": version.tags["verdict"], "show": show["gate"]["verdict"]}
    faces["predicted"] = {"mlflow": metrics["cost/predicted"], "show": show["predictions"]["made"]}
    faces["carried"] = {"mlflow": metrics["cost/carried_over"], "show": show["predictions"]["carried_over"]}


def _quorum(server: Server, *, given: int, needed: int, void: dict[str, str] | None = None) -> None:
    """Everything that says how far version 4 is decided says the same, and what policy enforces."""
    faces = _quorum_faces(server, "4")
    assert _differing(faces) == {}
    assert faces["quorum at south"]["show"] == (given, needed)
    assert faces["void"]["show"] == (void or {})
    status = server.ask("auditor", "status").json()["candidates"][-1]
    assert [site["roles_missing"] for site in status["quorum"]] == [["auditor"]]
    for page in (Visitor(server, "auditor").page("/"), Visitor(server, "auditor").page("/versions/4")):
        assert re.search(r"role auditor", page), page


def _quorum_faces(server: Server, version: str) -> Faces:
    visitor, faces = Visitor(server, "auditor"), Faces()
    show = server.ask("auditor", "show", version=version).json()
    status = server.ask("auditor", "status").json()
    listed = server.ask("auditor", "candidates").json()["candidates"][int(version) - 1]
    page, overview, said = visitor.page(f"/versions/{version}"), visitor.page("/"), text.show(show)
    sites, table = show["decision"]["quorum"], tables.versions([listed], everything=True)
    shown = re.findall(r"(\d+) of (\d+) approvals that count\.", page)
    for site, face in zip(sites, shown, strict=True):
        row = faces.setdefault(f"quorum at {site['site']}", {"show": (site["given"], site["needed"])})
        row["page"] = tuple(map(int, face))
        row["words"] = _pair(rf"(\d+) of (\d+) approvals that count at {site['site']}", said)
    now = status["candidates"][int(version) - 1]
    if now["state"] == "pending":
        row = faces[f"quorum at {sites[0]['site']}"]
        row["status"] = tuple(now["quorum"][0][name] for name in ("given", "needed"))
        row["overview"] = _pair(r"(\d+) of (\d+) approvals", overview)
        row["words of status"] = _pair(r"(\d+) of (\d+) approvals that count", status_text.status(status))
        row["enforced"] = _enforced(server, version)
    faces["void"] = {
        "show": {one["person"]: one["why"] for one in show["not_counted"]},
        "decision": {one["person"]: one["why_not"] for one in show["decision"]["given"]
                     if one["why_not"] and not one["revoked"]},
        "candidates": {one["person"]: one["why_not"] for one in listed["approvals"]
                       if one["why_not"] and not one["revoked"]},
        "page": dict(re.findall(VOID, page)),
        "words": dict(re.findall(r"the approval of (\w+) does not count: (.*)", said)),
        "table": dict(re.findall(r"(\w+): yes, does not count: ([\w ]+?)(?:,|\n|$)", table)),
    }  # fmt: skip
    if now["state"] == "pending":
        faces["void"]["status"] = {one["person"]: one["why"] for one in now["not_counted"]}
    return faces


def _enforced(server: Server, version: str) -> tuple[int, int]:
    """Approvals that count, and how many a promotion needs, as the refusal of one says."""
    instance = server.instance
    with pytest.raises(quorum.QuorumMissing) as refused:
        champion.promote(
            instance.db, instance.store, assistant=instance.assistant, version=version,
            actor=Actor("promoter", assured=True, how="token"), policy=instance.settings.policy, reason="try",
        )  # fmt: skip
    return _pair(r"(\d+) of (\d+) approvals that count", str(refused.value))


def _differing(faces: Faces) -> Faces:
    """Figures that are not the same everywhere."""
    return {
        name: row for name, row in faces.items() if any(value != next(iter(row.values())) for value in row.values())
    }


def _text(visitor: Visitor, address: str) -> str:
    """Words of a report, without its styles."""
    return words(re.sub(r"<style.*?</style>", " ", visitor.get(address).text, flags=re.DOTALL))


def _one(pattern: str, content: str) -> str:
    match = re.search(pattern, content)
    assert match is not None, (pattern, content)
    return match[1]


def _maybe(pattern: str, content: str) -> int | None:
    match = re.search(pattern, content)
    return int(match[1]) if match else None


def _pair(pattern: str, content: str) -> tuple[int, int]:
    match = re.search(pattern, content)
    assert match is not None, (pattern, content)
    return int(match[1]), int(match[2])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(f"{value:.3f}"), 3) + 0.0


def _number(shown: str) -> float | None:
    """A number as people are shown it; None where it can't be measured."""
    cleaned = shown.replace("\u2212", "-")
    return None if cleaned in ("\u2013", "n/a", "not measurable", "-", "") else _rounded(float(cleaned))
