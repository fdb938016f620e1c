"""Demo: three real tasks arrive one after the other; two demo identities submit and approve."""

import json
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from components.errors import LciaError
from components.evaluation.pictures import heat_map_png
from lcia.cli.text import decisions as decision_texts
from lcia.cli.text import versions
from lcia.gateway.server import in_background
from lcia.gateway.source import StateSource
from lcia.inference import ask
from lcia.instance import Instance, actor
from lcia.operations import audit, decisions, delivery, status, tasks
from lcia.operations.figures import accuracy_matrix, matrix
from lcia.operations.versions import show
from lcia.worker import loop

TASKS = ("movie_sentiment", "product_sentiment", "passive_voice")
"""A new group; the same group again, the hard case; another new group."""
EXAMPLES = (Path(__file__).parents[1] / "examples").resolve()
"""Packages of the three tasks: a link to `examples/tasks` in a checkout, files of the package in an installation."""
SUBMITTER, APPROVER = "demo-site", "demo-ops"
QUESTIONS = (
    (
        "Decide whether the film review snippet is positive or negative.",
        "A dull, overlong mess that wastes two fine actors.",
    ),
    ("Rewrite the sentence in the passive voice.", "The doctor thanked the manager."),
)


def run_demo(instance: Instance) -> bool:
    """Run what is not done yet, then show everything; a second call changes nothing and prints so.

    Returns False if MLflow does not serve the champion in the end.
    """
    before = status.status(instance)["audit"]["entries"]
    began = time.monotonic()
    base = instance.settings.base_model.name
    print(f"lcia demo: {len(TASKS)} real tasks on {base}, state in {instance.home}\n", flush=True)
    for number, name in enumerate(TASKS, 1):
        print(f"=== task {number} of {len(TASKS)}: {name}", flush=True)
        _learn(instance, EXAMPLES / name)
        print(flush=True)
    _summary(instance)
    entries = status.status(instance)["audit"]["entries"]
    print()
    if entries == before:
        print("Nothing was changed: all three tasks had been learnt and decided before.")
    else:
        print(f"{entries - before} log entries were added in {time.monotonic() - began:.0f} seconds.")
    return bool(delivery.standing(instance)["served"])


def _learn(instance: Instance, package: Path) -> None:
    item = tasks.submit(instance, package, actor(SUBMITTER))
    state = f": known, {item.state}" if item.known else ""
    print(f"{SUBMITTER} submits {item.name}@{item.version}{state}", flush=True)
    if item.state in ("submitted", "assessing", "waiting", "learning"):
        loop.work(instance, actor(SUBMITTER), _say, item.id)
    candidate = tasks.candidate_of(instance, item)
    if candidate is None:
        return
    evidence = show(instance, str(candidate.number))
    print(f"  grouping: {evidence['grouping']['words']}")
    print(f"  point {evidence['chosen']['reason']}")
    print("  " + versions.gate(evidence["gate"]).replace("\n", "\n  "))
    if candidate.state != "pending":
        print(f"  version {candidate.number} is {candidate.state} already")
        return
    try:
        answer = decisions.approve(instance, str(candidate.number), actor(APPROVER), "demo: the evidence was read")
    except LciaError as refusal:
        print(f"  {APPROVER} cannot approve: {refusal}")
        decisions.reject(instance, str(candidate.number), actor(APPROVER), f"demo: {evidence['gate']['verdict']}")
        print(f"  {APPROVER} rejects version {candidate.number}; the champion stays as it is")
    else:
        what = "is the champion" if answer["epoch"] else "waits for more people"
        print(f"  {APPROVER} approves: version {candidate.number} {what}")
        for line in decision_texts.delivery(answer):
            print(f"  {line}")


def _summary(instance: Instance) -> None:
    champion = instance.champion()
    print("=== what was learnt, and what was forgotten")
    if champion is None:
        print("No version was promoted; the gate's rows above say why.")
        return
    picture = instance.home / "reports" / "accuracy_matrix.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(heat_map_png(accuracy_matrix(instance)))
    print(versions.matrix(matrix(instance)))
    print(f"\nheat map: {picture}\n")
    for group in status.status(instance)["champion"]["groups"]:
        print(f"group {group['id']}: {', '.join(group['tasks'])}")
    print("\n=== the champion next to the base model")
    for instruction, text in QUESTIONS:
        print(f"{instruction}\n{text}")
        print(f"  champion: {versions.answer(ask.ask(instance, instruction, text, None, base=False))}")
        print(f"  base:     {versions.answer(ask.ask(instance, instruction, text, None, base=True))}")
    _ask_gateway(instance)
    print("\n=== the log")
    export = instance.home / "reports" / "log.jsonl"
    audit.export(instance, export)
    verification = audit.verify(None, export, instance.home / "keys" / "audit-key.pub.pem")
    print(f"{'verified' if verification.ok else 'NOT VERIFIED'}: {verification.message}")
    print("\n=== where to look next")
    print("  .venv/bin/lcia status | show | matrix | ask ... | gateway | audit verify")
    print("  learnt with the profile quick; `lcia run` takes that of zenml.yaml (`lcia settings profile`)")
    uri = instance.settings.registry.tracking_uri
    print(f"  MLflow (versions, reports):  .venv/bin/mlflow ui --backend-store-uri {shlex.quote(uri)}")
    folder = shlex.quote(str(instance.home / "zenml"))
    print(f"  ZenML (runs, reports):       ZENML_CONFIG_PATH={folder} .venv/bin/zenml login --local")


def _ask_gateway(instance: Instance) -> None:
    """Ask the gateway as an application does, in OpenAI's API; `lcia gateway` is the same one, for good."""
    instruction, text = QUESTIONS[1]
    body = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": f"{instruction}\n{text}"}]})
    print("\n=== the champion answers applications (lcia gateway, here on a free port)")
    with in_background(instance.settings, StateSource(lambda: instance)) as (address, gateway):
        while not gateway.follower.ready:
            if gateway.follower.problem:
                print(f"the gateway does not answer: {gateway.follower.problem}")
                return
            time.sleep(0.1)
        command = ["curl", "--silent", f"{address}/v1/chat/completions"]
        command += ["--header", "content-type: application/json", "--data", body]
        print(f"  {shlex.join(command)}")
        if shutil.which("curl") is None:
            print("  (curl is not installed; any client of OpenAI's API does it)")
            return
        reply = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)  # noqa: S603 - ours
    facts = reply["lcia"]
    print(f"  {reply['choices'][0]['message']['content']}")
    print(f"  by version {facts['version']}, group {facts['group']}, task {facts['task']}")


def _say(line: str) -> None:
    print(line, flush=True)
