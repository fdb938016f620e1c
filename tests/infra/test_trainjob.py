"""A step on several nodes: the TrainJob that it makes, checked against Trainer's schema and run by a double."""

import copy
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
from manifests import RUNS_SPACE, granted, named, render, unselected
from small_loop import SmallLoop, learn, write_loop
from trainer_double import Trainer, serving, validate

import steps.tune
from components.model.adapters import fetch_adapter
from components.settings import ClusterSettings
from components.settings.cluster import StepPod
from components.storage.objects import ObjectStore
from infra.stacks import trainjob
from infra.stacks.pods import run_options
from infra.stacks.trainjob import TrainJobFailed, name_of, train_job
from steps.order import LearnContext, open_learning
from steps.processes import together

pytestmark = pytest.mark.slow

GPUS = StepPod(
    cpu="8",
    memory="64Gi",
    gpu=4,
    nodes=2,
    node_selector={"gpu": "h200"},
    tolerations=({"key": "gpu", "operator": "Exists"},),
)
SETTINGS = ClusterSettings(image="registry.example.org/lcia-train@sha256:" + "a" * 64, steps={"tune": GPUS})


def test_the_manifest_is_what_trainer_takes() -> None:
    job = train_job(
        SETTINGS, "tune", "/var/lib/lcia", "order", ["steps.rank", "tune", "file:///o", "order"], "answer-1"
    )
    validate(job)
    trainer, patch = job["spec"]["trainer"], job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["resourcesPerNode"]["limits"] == {"memory": "64Gi", "nvidia.com/gpu": "4"}
    pod = patch["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    assert pod["spec"]["serviceAccountName"] == "step"
    assert (pod["spec"]["nodeSelector"], pod["spec"]["tolerations"]) == (
        {"gpu": "h200"},
        [{"key": "gpu", "operator": "Exists"}],
    )
    container = {
        "name": "node",
        "image": trainer["image"],
        "env": trainer["env"],
        "resources": trainer["resourcesPerNode"],
        **{key: value for key, value in pod["spec"]["containers"][0].items() if key != "name"},
    }
    merged = {**{k: v for k, v in pod["spec"].items() if k != "containers"}, "containers": [container]}
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node", **pod["metadata"]}, "spec": merged}
    kubernetes_validate.validate(whole, "1.36", strict=True)
    broken = copy.deepcopy(job)
    broken["spec"]["trainer"]["gpus"] = 4
    with pytest.raises(jsonschema.ValidationError):
        validate(broken)


def test_the_step_itself_asks_for_no_gpu_and_may_make_trainjobs_only() -> None:
    options = run_options(SETTINGS, "/var/lib/lcia", ("tune", "gate"))["steps"]
    tune, gate = (options[step]["settings"]["orchestrator"] for step in ("tune", "gate"))
    assert tune["step_pod_service_account_name"] == "trainer"
    assert "nvidia.com/gpu" not in tune["pod_settings"]["resources"]["limits"]
    assert tune["pod_settings"]["additional_pod_spec_args"]["automount_service_account_token"]
    assert gate["step_pod_service_account_name"] == "step"
    assert not gate["pod_settings"]["additional_pod_spec_args"]["automount_service_account_token"]


@pytest.mark.parametrize("overlay", ["production", "single-node"])
def test_the_component_goes_with_an_overlay(overlay: str, tmp_path: Path) -> None:
    docs = render(overlay, tmp_path, components=["trainer"])
    for doc in docs:
        kubernetes_validate.validate(doc, "1.36", strict=True)
    assert granted(docs, "trainer", RUNS_SPACE) == {("trainjobs", verb) for verb in ("create", "get", "delete")}
    assert granted(docs, "step", RUNS_SPACE) == granted(docs, "worker", space="lcia") == set()
    job = train_job(SETTINGS, "tune", "/s", "o", [], "a")
    patch = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    labels = patch["template"]["spec"]["template"]["metadata"]["labels"]
    chosen = named(docs, "NetworkPolicy", RUNS_SPACE)["trainer-nodes"]["spec"]["podSelector"]["matchLabels"]
    assert chosen.items() <= labels.items()
    assert unselected([doc for doc in docs if not doc["metadata"]["name"].startswith("trainer")]) == []


def test_only_what_can_be_shared_is_spread_over_nodes() -> None:
    with pytest.raises(ValueError, match="nodes of gate in cluster is more than 1; only tune and evaluate_forgetting"):
        ClusterSettings(steps={"gate": GPUS})
    with pytest.raises(ValueError, match="nodes of default"):
        ClusterSettings(default=GPUS)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Trainer]:
    monkeypatch.setattr(trainjob, "POLL_SECONDS", 0.2)
    with serving(Trainer()) as found:
        file = found.kubeconfig(tmp_path / "kubeconfig")  # the client read KUBECONFIG when it was imported
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
        yield found


@pytest.fixture(scope="module")
def ordered(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallLoop, str, str, str]:
    """A loop, and store, tuning order and answer as the worker and one process had them."""
    loop, seen = write_loop(tmp_path_factory.mktemp("ordered"), tiny_folder), list[tuple[str, str, str]]()

    def asked(name, work, context, store: str, order: str, *rest: str) -> str:
        seen.append((store, order, together(name, work, context, store, order, *rest)))
        return seen[-1][-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(steps.tune, "together", asked)
        learn(loop.open(), loop.package("movie_sentiment"))
    return (loop, *seen[0])


@pytest.fixture
def order(
    ordered, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[LearnContext, str, str, str]:
    """That order with a work area of its own, asked of two nodes."""
    loop, store, digest, answer = ordered
    monkeypatch.setenv("LCIA_HOME", str(loop.home))
    objects = ObjectStore(store)
    own = objects.put_json({**objects.get_json(digest), "scratch": request.node.name})
    context = open_learning(store, own)
    cluster = ClusterSettings(context="double", steps={"tune": StepPod(nodes=2)})
    return replace(context, settings=context.settings.model_copy(update={"cluster": cluster})), store, own, answer


def test_two_nodes_tune_what_one_process_does(order, trainer: Trainer) -> None:
    context, store, digest, alone = order
    answer = together("tune", steps.tune.work, context, store, digest)
    made, before = context.store.get_json(answer), context.store.get_json(alone)
    assert made["losses"] == pytest.approx(before["losses"], rel=1e-4)
    others = fetch_adapter(context.store, before["points"]["live"])
    for name, tensor in fetch_adapter(context.store, made["points"]["live"]).items():
        assert (tensor - others[name]).norm() <= 1e-3 * tensor.norm()
    name = name_of("tune", digest)
    assert [verb for verb, _ in trainer.asked if verb != "GET"] == ["POST", "DELETE"]
    assert trainer.asked[-1] == ("DELETE", name), "a finished one is not left behind"


def test_a_refusal_on_a_node_is_the_steps(order, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    context, store, digest, _ = order
    package = context.store.get_json(digest)
    broken = {**context.settings.for_steps(), "tuning": {**context.settings.tuning.model_dump(), "learning_rate": 1e30}}
    again = context.store.put_json({**package, "settings": context.store.put_json(broken), "scratch": "refused"})
    with pytest.raises(Exception, match="the loss is not finite at step 2"):
        together("tune", steps.tune.work, replace(context, order=open_learning(store, again).order), store, again)
    assert name_of("tune", again) in trainer.jobs, "one that failed stays for its logs"


def test_asked_to_stop_it_takes_its_nodes_along(order, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    context, store, digest, _ = order

    def interrupted(*_: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(InterruptedError):
            together("tune", steps.tune.work, context, store, digest)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert trainer.jobs == {}


def test_started_again_it_waits_for_the_one_that_is_there(order, trainer: Trainer) -> None:
    context, store, digest, _ = order
    cluster = context.settings.cluster
    assert cluster is not None
    program = ["steps.rank", "--answer", "answer-first", "tune", store, digest]
    trainer.make(train_job(cluster, "tune", os.environ["LCIA_HOME"], digest, program, "answer-first"))
    assert context.store.get_json(together("tune", steps.tune.work, context, store, digest))["kind"] == "tuning"
    assert "POST" not in [verb for verb, _ in trainer.asked]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "service account trainer may not make TrainJob .* apply the component k8s/components/trainer"),
        (
            404,
            "install Kubeflow Trainer 2.3 or newer with its runtime torch-distributed, or set nodes of the step to 1",
        ),
        (500, "the cluster refused TrainJob lcia-tune-[0-9a-f]{10} with 500"),
    ],
)
def test_what_the_cluster_refuses_is_said(trainer: Trainer, status: int, words: str) -> None:
    trainer.refuse = status
    settings = SETTINGS.model_copy(update={"context": "double"})
    with pytest.raises(TrainJobFailed, match=words):
        trainjob.run(settings, train_job(settings, "tune", "/s", "o", [], "a"), lambda: False)
