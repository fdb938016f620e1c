"""What ZenML is told about pods on Kubernetes, and that ZenML takes it."""

import pytest
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.integrations.kubernetes.flavors import KubernetesOrchestratorSettings

from components.settings import ClusterSettings, SettingsError, load_settings
from components.settings.cluster import StepPod
from infra.runs import STEPS, _union
from infra.stacks.pods import pod, run_options
from pipelines.assess_task import assess_task
from pipelines.learn_task import learn_task

GPU = StepPod(cpu="4", memory="32Gi", gpu=1, node_selector={"pool": "gpu"}, tolerations=({"operator": "Exists"},))


def test_the_steps_are_those_of_the_pipelines():
    for pipeline in (assess_task, learn_task):
        pipeline.prepare(store="file:///nowhere", order="0" * 64)
        assert tuple(pipeline.invocations) == STEPS[pipeline.name]


def test_a_gpu_is_asked_for_by_the_step_that_needs_it_and_by_no_other():
    options = run_options(ClusterSettings(steps={"tune": GPU}), "/state", STEPS["learn_task"])
    asked = {step: told["settings"]["orchestrator"]["pod_settings"] for step, told in options["steps"].items()}
    assert asked["tune"]["resources"]["limits"] == {"memory": "32Gi", "nvidia.com/gpu": "1"}
    assert asked["tune"]["node_selectors"] == {"pool": "gpu"}
    assert asked["tune"]["tolerations"] == [{"operator": "Exists"}]
    assert all("nvidia.com/gpu" not in asked[step]["resources"]["requests"] for step in asked if step != "tune")


def test_zenml_knows_every_key():
    options = run_options(ClusterSettings(), "/state", STEPS["learn_task"])
    assert set(options) <= set(PipelineRunConfiguration.model_fields)
    told = [options["settings"]["orchestrator"], *(s["settings"]["orchestrator"] for s in options["steps"].values())]
    for one in told:
        read = KubernetesOrchestratorSettings.model_validate(one)
        assert set(one) <= set(KubernetesOrchestratorSettings.model_fields)
        assert read.pod_failure_policy["rules"][0]["action"] == "Ignore"
        assert set(one["pod_settings"]) <= set(type(read.pod_settings).model_fields)


def test_pods_meet_the_restricted_standard():
    for asked in (StepPod(), GPU):
        security = pod(ClusterSettings(), asked, "/state")["container_security_context"]
        assert security["runAsNonRoot"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}


def test_only_the_orchestrator_can_talk_to_kubernetes():
    told = run_options(ClusterSettings(), "/state", ())["settings"]["orchestrator"]
    assert told["orchestrator_pod_settings"]["additional_pod_spec_args"] == {"automount_service_account_token": True}
    assert told["pod_settings"]["additional_pod_spec_args"] == {"automount_service_account_token": False}
    assert (told["service_account_name"], told["step_pod_service_account_name"]) == ("orchestrator", "step")


def test_options_of_the_settings_file_win():
    assert _union({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "e": 5}) == {"a": {"b": 4, "c": 2}, "d": 3, "e": 5}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ('schedules={"n": {"work": "sync", "cron": "61 * * * *"}}', "five fields"),
        ('schedules={"n": {"work": "sync", "cron": "0 * * * *", "time_zone": "Mars"}}', "Europe/Berlin"),
        ('cluster={"steps": {"tunee": {}}}', "cluster.steps"),
        ('cluster={"default": {"memory": "lots"}}', "cluster.default.memory"),
    ],
)
def test_mistakes_are_said(override, said, tmp_path):
    with pytest.raises(SettingsError, match=said):
        load_settings(overrides=[override], home_folder=tmp_path)
