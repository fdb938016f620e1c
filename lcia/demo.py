"""The demo: three real tasks arrive one after the other; two demo identities play submitter and approver."""

import shlex
import time
from pathlib import Path

from components.errors import LciaError
from components.evaluation.pictures import heat_map_png
from lcia import answering, auditing, delivery, verbs, words, worker
from lcia.workplace import Workplace, actor

TASKS = ("movie_sentiment", "product_sentiment", "passive_voice")
"""A new group; the same group again, the hard case; another new group."""
EXAMPLES = (Path(__file__).parent / "examples").resolve()
"""Their packages: a link to `examples/tasks` in a checkout, files of the package in an installation."""
SUBMITTER, APPROVER = "demo-site", "demo-ops"
QUESTIONS = (
    (
        "Decide whether the film review snippet is positive or negative.",
        "A dull, overlong mess that wastes two fine actors.",
    ),
    ("Rewrite the sentence in the passive voice.", "The doctor thanked the manager."),
)


def run(place: Workplace) -> bool:
    """Run what is not done yet, then show everything; a second call changes nothing and says so.

    False where MLflow does not serve the champion in the end.
    """
    before = verbs.status(place)["audit"]["entries"]
    began = time.monotonic()
    base = place.settings.base_model.name
    print(f"lcia demo: {len(TASKS)} real tasks on {base}, state in {place.home}\n", flush=True)
    for number, name in enumerate(TASKS, 1):
        print(f"=== task {number} of {len(TASKS)}: {name}", flush=True)
        _learn(place, EXAMPLES / name)
        print(flush=True)
    _summary(place)
    entries = verbs.status(place)["audit"]["entries"]
    print()
    if entries == before:
        print("Nothing was changed: all three tasks had been learnt and decided before.")
    else:
        print(f"{entries - before} log entries were added in {time.monotonic() - began:.0f} seconds.")
    return bool(delivery.standing(place)["served"])


def _learn(place: Workplace, package: Path) -> None:
    item = verbs.submit(place, package, actor(SUBMITTER))
    known = f": known, {item.state}" if item.known else ""
    print(f"{SUBMITTER} submits {item.name}@{item.version}{known}", flush=True)
    if item.state in ("submitted", "assessing", "waiting", "learning"):
        worker.work(place, actor(SUBMITTER), _say, item.id)
    candidate = verbs.candidate_of(place, item)
    if candidate is None:
        return
    shown = verbs.show(place, str(candidate.number))
    print(f"  grouping: {shown['grouping']['words']}")
    print(f"  point {shown['chosen']['reason']}")
    print("  " + words.gate(shown["gate"]).replace("\n", "\n  "))
    if candidate.state != "pending":
        print(f"  version {candidate.number} is {candidate.state} already")
        return
    try:
        _, made = verbs.approve(place, str(candidate.number), actor(APPROVER), "demo: the evidence was read")
    except LciaError as refusal:
        print(f"  {APPROVER} cannot approve: {refusal}")
        verbs.reject(place, str(candidate.number), actor(APPROVER), f"demo: {shown['gate']['verdict']}")
        print(f"  {APPROVER} rejects version {candidate.number}; the champion stays as it is")
    else:
        what = "is the champion" if made else "waits for more people"
        print(f"  {APPROVER} approves: version {candidate.number} {what}")
        for line in words.delivered(delivery.standing(place, candidate.digest)):
            print(f"  {line}")


def _summary(place: Workplace) -> None:
    champion = place.champion()
    print("=== what was learnt, and what was forgotten")
    if champion is None:
        print("No version was promoted; the gate's rows above say why.")
        return
    picture = place.home / "reports" / "accuracy_matrix.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(heat_map_png(verbs.accuracy_matrix(place)))
    print(words.matrix(verbs.matrix(place)))
    print(f"\nheat map: {picture}\n")
    for group in verbs.status(place)["champion"]["groups"]:
        print(f"group {group['id']}: {', '.join(group['tasks'])}")
    print("\n=== the champion next to the base model")
    for instruction, text in QUESTIONS:
        print(f"{instruction}\n{text}")
        print(f"  champion: {words.answer(answering.ask(place, instruction, text, None, base=False))}")
        print(f"  base:     {words.answer(answering.ask(place, instruction, text, None, base=True))}")
    print("\n=== the log")
    export = place.home / "reports" / "log.jsonl"
    auditing.export(place, export)
    checked = auditing.verify(None, export, place.home / "keys" / "audit-key.pub.pem")
    print(f"{'verified' if checked.ok else 'NOT VERIFIED'}: {checked.message}")
    print("\n=== where to look next")
    print("  .venv/bin/lcia status | show | matrix | ask ... | audit verify")
    uri = place.settings.registry.tracking_uri
    print(f"  MLflow (versions, reports):  .venv/bin/mlflow ui --backend-store-uri {shlex.quote(uri)}")
    folder = shlex.quote(str(place.home / "zenml"))
    print(f"  ZenML (runs, reports):       ZENML_CONFIG_PATH={folder} .venv/bin/zenml login --local")


def _say(line: str) -> None:
    print(line, flush=True)
